"""The device in a process's memory, its descriptor closed."""

import ctypes
import mmap
import os

from kit import Tries, attack, checked, holder, libc


def hold(node: str) -> None:
    def prepare() -> Tries:
        fd = os.open(node, os.O_RDONLY)
        address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
        checked(-1 if address == ctypes.c_void_p(-1).value else 0)
        os.close(fd)
        return {"read its memory": lambda: "read" if ctypes.string_at(address, 1) == b"\0" else "empty"}

    holder("holder", prepare)


attack(hold)
