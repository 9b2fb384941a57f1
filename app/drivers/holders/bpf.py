"""Device rules on a version 2 cgroup: a small program that the kernel asks before it opens a device.

Made by hand: eight bytes an instruction, no compiler, no library. The one program of ours on a group is known by its
name and replaced in one step; others (LXD's, systemd's) stay, and all of them have to say yes.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.drivers.base import Number
from app.drivers.holders.syscalls import call

NAME = b"berth_fence"
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _GET_FD, _GET_INFO, _QUERY = 5, 8, 9, 13, 15, 16  # enum bpf_cmd
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE = 15, 6  # enum bpf_prog_type, bpf_attach_type
_MULTI, _REPLACE = 2, 4
_CHARACTER = 2  # BPF_DEVCG_DEV_CHAR
_PROGRAMS_AT_MOST = 64  # on one group
_NAME_IN_INFO = 64  # offset of the name in struct bpf_prog_info


def deny(group: Path, numbers: Collection[Number]) -> None:
    """Let what is in the cgroup open none of these character devices; replaces what was denied before."""
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _ours(folder) as before:
            if not numbers:
                if before is not None:
                    _bpf(_PROG_DETACH, struct.pack("=IIII", folder, before, _CGROUP_DEVICE, 0))
                return
            program = _load(code(numbers))
            try:
                flags = _MULTI | (_REPLACE if before is not None else 0)
                _bpf(_PROG_ATTACH, struct.pack("=IIIII", folder, program, _CGROUP_DEVICE, flags, before or 0))
            finally:
                os.close(program)  # the group keeps it
    finally:
        os.close(folder)


def code(numbers: Collection[Number]) -> bytes:
    """The program: 0 (no) for these character devices, 1 (yes) for all else.

    Its context is struct bpf_cgroup_dev_ctx: access and type, major, minor."""
    body = [
        _instruction(0x61, 2, 1, 0),  # r2 = type and access
        _instruction(0x57, 2, imm=0xFFFF),  # r2 &= the type's half
        _instruction(0x61, 3, 1, 4),  # r3 = major
        _instruction(0x61, 4, 1, 8),  # r4 = minor
        _instruction(0x15, 2, off=2, imm=_CHARACTER),  # a character device: look on
        _instruction(0xB7, 0, imm=1),
        _instruction(0x95),
    ]
    for major, minor in sorted(numbers):
        body += [
            _instruction(0x55, 3, off=3, imm=major),
            _instruction(0x55, 4, off=2, imm=minor),
            _instruction(0xB7, 0, imm=0),
            _instruction(0x95),
        ]
    return b"".join([*body, _instruction(0xB7, 0, imm=1), _instruction(0x95)])


def _instruction(operation: int, target: int = 0, source: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", operation, target | source << 4, off, imm)


@contextmanager
def _ours(folder: int) -> Iterator[int | None]:
    """The descriptor of our program on the group, if it has one."""
    found = None
    for number in _attached(folder):
        with suppress(OSError):  # it may be gone by now
            handle = _bpf(_GET_FD, struct.pack("=III", number, 0, 0))
            if found is None and _name(handle) == NAME:
                found = handle
            else:
                os.close(handle)
    try:
        yield found
    finally:
        if found is not None:
            os.close(found)


def _attached(folder: int) -> tuple[int, ...]:
    ids = (ctypes.c_uint32 * _PROGRAMS_AT_MOST)()
    query = struct.pack("=IIIIQI", folder, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _PROGRAMS_AT_MOST)
    asked = ctypes.create_string_buffer(query, 64)
    call("bpf", _QUERY, ctypes.addressof(asked), 64)
    return tuple(ids[: struct.unpack_from("=I", asked, 24)[0]])


def _name(program: int) -> bytes:
    info = ctypes.create_string_buffer(256)
    _bpf(_GET_INFO, struct.pack("=IIQ", program, 256, ctypes.addressof(info)))
    return info.raw[_NAME_IN_INFO : _NAME_IN_INFO + 16].rstrip(b"\0")


def _load(program: bytes) -> int:
    text, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"Apache-2.0")
    head = struct.pack(
        "=IIQQIIQII", _CGROUP_DEVICE_PROGRAM, len(program) // 8, ctypes.addressof(text), ctypes.addressof(licence),
        0, 0, 0, 0, 0,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, head + NAME.ljust(16, b"\0"))


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    return call("bpf", command, ctypes.addressof(buffer), 128)
