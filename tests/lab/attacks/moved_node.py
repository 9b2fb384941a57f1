"""The node's mount moved to another place, so that there is nothing for LXD to unmount."""

from pathlib import Path

from kit import MS_MOVE, MS_PRIVATE, attack, mount, reopen

PLACE = "/root/moved"


def hold(node: str) -> None:
    Path(PLACE).touch()
    mount("none", "/dev", flags=MS_PRIVATE)  # nothing is moved out of a shared one
    mount(node, PLACE, flags=MS_MOVE)


def probe(_node: str) -> dict[str, str]:
    return {"open it there": reopen(PLACE)}


attack(hold, probe)
