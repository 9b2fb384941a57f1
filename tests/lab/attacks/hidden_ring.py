"""A file that io_uring keeps in a ring that has no descriptor either, nor memory of its own."""

from kit import attack, holder
from ring import registered


def hold(node: str) -> None:
    holder("holder", lambda: {"read through the ring": registered(node, hidden=True).read})


attack(hold)
