"""A file that io_uring keeps, its descriptor closed."""

from kit import attack, holder
from ring import registered


def hold(node: str) -> None:
    holder("holder", lambda: {"read through the ring": registered(node).read})


attack(hold)
