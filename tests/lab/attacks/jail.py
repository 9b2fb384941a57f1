"""A copy of all of /dev, with what is mounted in it, and a program that has it for its root."""

import os
from pathlib import Path

from kit import MS_BIND, MS_PRIVATE, MS_REC, Tries, attack, holder, mount, reopen

JAIL = Path("/root/jail")


def hold(node: str) -> None:
    (JAIL / "dev").mkdir(parents=True)
    mount("/dev", str(JAIL / "dev"), flags=MS_BIND | MS_REC)
    mount("none", str(JAIL / "dev"), flags=MS_PRIVATE | MS_REC)

    def prepare() -> Tries:
        return {"open it in the jail": lambda: os.chroot(JAIL) or reopen(node)}

    holder("holder", prepare)


def probe(node: str) -> dict[str, str]:
    return {"open it from outside": reopen(str(JAIL) + node)}


attack(hold, probe)
