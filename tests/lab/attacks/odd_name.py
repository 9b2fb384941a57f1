"""A holder with a name that looks like the rest of a line of /proc/PID/stat."""

import os

from kit import Tries, attack, checked, holder, keeping, libc

PR_SET_NAME = 15


def hold(node: str) -> None:
    def prepare() -> Tries:
        checked(libc.prctl(PR_SET_NAME, b") R 1 1\n(", 0, 0, 0))
        return keeping(os.open(node, os.O_RDONLY))

    holder("holder", prepare)


attack(hold)
