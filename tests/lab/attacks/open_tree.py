"""A descriptor of a mount of the node that is nowhere in the tree."""

import os

from kit import attack, checked, holder, keeping, libc

OPEN_TREE, AT_FDCWD, OPEN_TREE_CLONE = 428, -100, 1


def hold(node: str) -> None:
    holder("holder", lambda: keeping(checked(libc.syscall(OPEN_TREE, AT_FDCWD, os.fsencode(node), OPEN_TREE_CLONE))))


attack(hold)
