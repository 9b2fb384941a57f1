"""System calls that Python has no names for. Standard library only: the scanning child has nothing else."""

from __future__ import annotations

import ctypes
import os
import platform

_NUMBERS = {  # name: by architecture; from the kernel's tables
    "kcmp": {"x86_64": 312, "aarch64": 272},
    "bpf": {"x86_64": 321, "aarch64": 280},
    "pidfd_getfd": {"x86_64": 438, "aarch64": 438},
}
# Not the kind that lets go of Python's lock at each call: a look makes tens of thousands.
_libc = ctypes.PyDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> int:
    """Make the call. Raises OSError, ENOSYS too where this machine's number for it is not known."""
    number = _NUMBERS[name].get(platform.machine())
    if number is None:
        raise OSError(38, f"no number for {name} on {platform.machine()}")
    ctypes.set_errno(0)
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result


class Statx:
    """What kind of file a path leads to, and its device number, without asking a file system that may never answer.

    `os.stat` waits for ever for a file on an overlay over a dead FUSE server; with AT_STATX_DONT_SYNC the kernel says
    what it knows."""

    _DONT_SYNC, _TYPE = 0x4000, 0x1

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(256)
        self._address = ctypes.addressof(self._buffer)
        self._call = _libc.statx
        self._call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
        self._mode = ctypes.c_uint16.from_buffer(self._buffer, 0x1C)
        # stx_rdev_major in the lower half, stx_rdev_minor in the upper one; 0 for what is no device.
        self._rdev = ctypes.c_uint64.from_buffer(self._buffer, 0x80)

    def __call__(self, folder: int, name: bytes) -> tuple[int, int]:
        """Mode (type bits) and device of what `name` in the open directory leads to; (0, 0) if it is gone."""
        if self._call(folder, name, self._DONT_SYNC, self._TYPE, self._address):
            return 0, 0
        return self._mode.value, self._rdev.value


def device(major: int, minor: int) -> int:
    """A device number as `Statx` gives it."""
    return major | minor << 32
