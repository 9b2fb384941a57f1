"""A disk for the storage pool: nothing that somebody may still want is ever overwritten unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from app.drivers.system import System
from app.services.hostinit.step import Action, Command, Trouble

Json = dict[str, Any]


def clear(system: System, disk: str, *, erase: bool) -> list[Action]:
    """What has to be done before the disk can be used. Raises Trouble for one that is in use or, without `erase`, not
    empty."""
    every = list(_tree(_listed(system, disk)))
    for part in every:
        used = [point for point in part.get("mountpoints") or () if point]
        if used:
            raise Trouble(f"{disk} is in use: {part['name']} is mounted at {used[0]}", advice(system))
        if system.busy(part["name"]):  # LXD from a snap mounts its pools where nobody else sees it
            raise Trouble(f"{disk} is in use: the kernel holds {part['name']}", advice(system))
        if part["type"] not in {"disk", "part", "loop"}:
            raise Trouble(f"{disk} is in use: {part['name']} on it is a {part['type']}", advice(system))
    signed = [(part["name"], what) for part in every if (what := _signature(system, part["name"]))]
    if not signed and len(every) == 1:
        return []
    if not erase:
        on_it = "; ".join(f"{what} on {name}" for name, what in signed) or f"{len(every) - 1} partitions"
        raise Trouble(f"{disk} is not empty: {on_it}", "Take another disk, or have it erased for good: --erase.")
    return [Command(("wipefs", "--all", part["name"])) for part in reversed(every)]


def advice(system: System) -> str:
    """Which disks could be taken."""
    empty = []
    for disk in _lsblk(system):
        if disk.get("type") == "disk" and not disk.get("children") and not any(disk.get("mountpoints") or ()):
            size = int(disk.get("size") or 0) >> 30
            if size and not (system.busy(disk["name"]) or _signature(system, disk["name"])):
                empty.append(f"--disk {disk['name']} ({size} GiB)")
    return f"Give an empty disk or a file's size: {', '.join([*empty, '--loop GIB'])}."


def _listed(system: System, disk: str) -> Json:
    found = _lsblk(system, disk)
    if len(found) != 1:
        raise Trouble(f"{disk} is no disk of this host", advice(system))
    return found[0]


def _lsblk(system: System, *disk: str) -> list[Json]:
    command = ["lsblk", "--json", "--bytes", "--paths", "--output", "NAME,TYPE,SIZE,MOUNTPOINTS", *disk]
    done = system.run(command)
    return list(json.loads(done.text)["blockdevices"]) if done.ok else []


def _tree(disk: Json) -> Iterator[Json]:
    yield disk
    for child in disk.get("children") or ():
        yield from _tree(child)


def _signature(system: System, path: str) -> str:
    """What is on it, as wipefs finds by reading it: udev may not know yet. Unreadable counts as something."""
    done = system.run(["wipefs", "--json", path])
    if not done.ok:
        return f"what cannot be read ({done.complaint[:100]})"
    found = json.loads(done.text or "{}").get("signatures") or []
    return ", ".join(sorted({str(one.get("type")) for one in found}))
