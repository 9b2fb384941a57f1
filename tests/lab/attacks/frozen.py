"""A holder that is frozen, in a group of the container's own: no signal reaches it."""

import os

from groups import enter, hierarchies
from kit import WORK, Tries, attack, holder, keeping

STATE = WORK / "groups-freezer" / "ice" / "freezer.state"


def hold(node: str) -> None:
    groups = {"freezer": hierarchies()["freezer"]}

    def prepare() -> Tries:
        enter("ice", groups)
        return keeping(os.open(node, os.O_RDONLY))

    holder("holder", prepare)
    STATE.write_text("FROZEN")


def probe(_node: str) -> dict[str, str]:
    STATE.write_text("THAWED")
    return {}


attack(hold, probe)
