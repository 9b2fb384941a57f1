"""Two who are to live on untouched: one that holds nothing, one that holds and reads the GPU that stays."""

import os

from kit import attack, holder, keeping


def hold(node: str) -> None:
    holder("idle", dict)
    holder("reader", lambda: keeping(os.open(node, os.O_RDONLY)))


attack(hold)
