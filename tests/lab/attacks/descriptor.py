"""A process that keeps a descriptor open."""

import os

from kit import attack, holder, keeping


def hold(node: str) -> None:
    holder("holder", lambda: keeping(os.open(node, os.O_RDONLY)))


attack(hold)
