"""The node mounted in two more places, one with a space in its name; no process holds anything."""

from kit import attack, copy, reopen

COPIES = ("/root/keep", "/root/my keep")


def hold(node: str) -> None:
    for path in COPIES:
        copy(node, path)


def probe(_node: str) -> dict[str, str]:
    return {path: reopen(path) for path in COPIES}


attack(hold, probe)
