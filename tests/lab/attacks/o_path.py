"""A descriptor that can do nothing itself (O_PATH), but can be opened again through /proc."""

import os

from kit import attack, holder, keeping


def hold(node: str) -> None:
    holder("holder", lambda: keeping(os.open(node, os.O_PATH)))


attack(hold)
