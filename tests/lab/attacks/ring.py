"""An io_uring ring by hand. A hidden one has neither a descriptor nor memory that it maps: /proc does not show it."""

import ctypes
import errno
import mmap
import os
import struct

from kit import checked, libc

SETUP, ENTER, REGISTER = 425, 426, 427
REGISTER_FILES, GETEVENTS, READ, FIXED_FILE, SQES = 2, 1, 22, 1, 0x10000000
NO_MMAP, ONLY_REGISTERED = 1 << 14, 1 << 15  # of SETUP
ENTER_REGISTERED, REGISTER_REGISTERED = 1 << 4, 1 << 31
NOBODY = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def memory(fd: int = -1, flags: int = NOBODY, offset: int = 0) -> int:
    address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)
    checked(-1 if address == ctypes.c_void_p(-1).value else 0)
    return int(address)


def number(address: int) -> ctypes.c_uint32:
    return ctypes.c_uint32.from_address(address)


class Ring:
    def __init__(self, *, hidden: bool = False) -> None:
        self._hidden = hidden
        params = ctypes.create_string_buffer(120)
        if hidden:
            self._ring, self._sqes = memory(), memory()
            struct.pack_into("I", params, 8, NO_MMAP | ONLY_REGISTERED)
            struct.pack_into("Q", params, 72, self._sqes)
            struct.pack_into("Q", params, 112, self._ring)
        self._fd = checked(libc.syscall(SETUP, 4, params))
        if not hidden:
            self._ring = memory(self._fd, mmap.MAP_SHARED)
            self._sqes = memory(self._fd, mmap.MAP_SHARED, SQES)
        self._sq, self._cq = struct.unpack_from("7I", params, 40), struct.unpack_from("6I", params, 80)

    def register(self, fd: int) -> None:
        """Have the ring keep an open file."""
        command = REGISTER_FILES | (REGISTER_REGISTERED if self._hidden else 0)
        checked(libc.syscall(REGISTER, self._fd, ctypes.c_uint(command), (ctypes.c_int * 1)(fd), 1))

    def read(self) -> str:
        """What comes of reading the file that the ring keeps."""
        byte = ctypes.create_string_buffer(1)
        entry = struct.pack("BBHiQQIIQ", READ, FIXED_FILE, 0, 0, 0, ctypes.addressof(byte), 1, 0, 0)
        ctypes.memmove(self._sqes, entry.ljust(64, b"\0"), 64)
        tail = number(self._ring + self._sq[1])
        number(self._ring + self._sq[6] + 4 * (tail.value & number(self._ring + self._sq[2]).value)).value = 0
        tail.value += 1
        flags = GETEVENTS | (ENTER_REGISTERED if self._hidden else 0)
        checked(libc.syscall(ENTER, self._fd, 1, 1, flags, None, 0))
        head = number(self._ring + self._cq[0])
        place = head.value & number(self._ring + self._cq[2]).value
        result = ctypes.c_int32.from_address(self._ring + self._cq[5] + 16 * place + 8).value
        head.value += 1
        return "read" if result > 0 else errno.errorcode.get(-result, str(result))


def registered(node: str, *, hidden: bool = False) -> Ring:
    """A ring that keeps the node open; nothing else does."""
    ring, fd = Ring(hidden=hidden), os.open(node, os.O_RDONLY)
    ring.register(fd)
    os.close(fd)
    return ring
