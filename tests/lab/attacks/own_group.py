"""A holder in a control group of its own that is called like another container's."""

import os

from groups import enter, hierarchies
from kit import Tries, attack, holder, keeping


def hold(node: str) -> None:
    def prepare() -> Tries:
        enter("lxc.payload.other", hierarchies())
        return keeping(os.open(node, os.O_RDONLY))

    holder("holder", prepare)


attack(hold)
