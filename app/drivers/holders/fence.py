"""A container's cgroup says no: it opens none of the GPUs it has not booked, by whatever path and with whatever rights.

In an unprivileged container LXD sets no device rule at all. Version 1 has the file `devices.deny`, which container
root cannot undo (the kernel asks for CAP_SYS_ADMIN in the first namespace); version 2 takes a program (see `bpf`).
Neither touches what is open already.
"""

from __future__ import annotations

import logging
from pathlib import Path

from app.drivers.base import Number
from app.drivers.holders import bpf, cgroups
from app.drivers.holders.cgroups import Hierarchies

log = logging.getLogger(__name__)


class Fence:
    """Keeps to each container's cgroup what it may not open. Not for several threads at once."""

    def __init__(self, trees: Hierarchies) -> None:
        self._trees = trees
        self._set: dict[str, tuple[int, frozenset[Number]]] = {}  # by cgroup: the inode it had, and what is denied

    def deny(self, group: str, numbers: frozenset[Number], allowed: frozenset[Number], *, anew: bool = False) -> str:
        """Let the container open none of these, and those in `allowed` again; why that could not be done, or "".

        Nothing is written when it is so already: the kernel keeps it for as long as the group lives. `anew`: written
        all the same, as somebody else may have allowed it meanwhile."""
        top = self._top(group)
        if top is None:
            return "its cgroup is not known" if group == "" else "this host has no cgroup tree that can deny devices"
        try:
            inode = top.stat().st_ino
            known, before = self._set.get(group, (0, frozenset[Number]()))
            if known == inode and before == numbers and not anew:
                return ""
            if self._trees.devices:
                _write_v1(top, numbers, allowed if known != inode else allowed & before)
            else:
                bpf.deny(top, numbers)
        except (OSError, OverflowError) as error:
            self._set.pop(group, None)
            return str(error)
        self._set[group] = (inode, numbers)
        return ""

    def forget(self) -> None:
        """Write everything anew the next time."""
        self._set.clear()

    def _top(self, group: str) -> Path | None:
        tree = self._trees.devices or self._trees.unified
        return tree / group if tree and group else None


def _write_v1(top: Path, denied: frozenset[Number], allowed: frozenset[Number]) -> None:
    """A denial goes down to the groups within by itself; an allowance has to be written to each."""
    for major, minor in sorted(denied):
        (top / "devices.deny").write_text(f"c {major}:{minor} rwm")
    if not allowed:
        return
    for group in cgroups.below(top):
        for major, minor in sorted(allowed):
            try:
                (group / "devices.allow").write_text(f"c {major}:{minor} rwm")
            except FileNotFoundError:
                break
