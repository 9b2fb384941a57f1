"""Two processes with one table of descriptors; the one that opened the node has ended."""

import ctypes
import os
import signal

from kit import CLONE_FILES, Tries, attack, checked, holder, keeping, libc

CLONE3 = 435


def hold(node: str) -> None:
    def prepare() -> Tries:
        number, told = os.pipe()
        wish = (ctypes.c_uint64 * 8)(CLONE_FILES, 0, 0, 0, signal.SIGCHLD)
        if checked(libc.syscall(CLONE3, wish, ctypes.sizeof(wish))):
            os.write(told, str(os.open(node, os.O_RDONLY)).encode())
            os._exit(0)
        return keeping(int(os.read(number, 9)))

    holder("holder", prepare)


attack(hold)
