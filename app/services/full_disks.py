"""Machines whose disks fill: from when on one counts as full, and that its owner is told, once for each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import clock
from app.models import Instance, InstanceStatus
from app.services import audit

# Of a disk's size. On btrfs and ZFS what came with the image counts too, and is not in what LXD says is used.
FILLED = 0.85
ROOM = 0.75  # below this it is no longer full: what comes and goes around FILLED is told of once
LIMITED = frozenset({"btrfs", "zfs", "lvm", "ceph"})  # pools that keep a machine to its disk's size
TOLD = "full_at"  # among what is observed of a machine: since when its owner knows, seconds since 1970
_KNOWN = {InstanceStatus.RUNNING, InstanceStatus.FROZEN, InstanceStatus.STOPPED}


def is_full(instance: Instance) -> bool:
    """Whether a machine's disk is full, or so nearly that it may be, as it was last seen."""
    return judge(instance.status, instance.observed, instance.disk_gib)


def judge(status: InstanceStatus, seen: Mapping[str, Any], disk_gib: int) -> bool:
    """The same of parts of a machine."""
    part = _part(seen, disk_gib)
    return part is not None and part >= FILLED and status in _KNOWN


def follow(
    host: str, number: int, name: str, disk_gib: int, told: float | None, seen: Mapping[str, Any]
) -> dict[str, Any]:
    """What is to be written down of a machine, `seen` just now: with it, whether its owner knows (`told` so far). They
    are told here where it has filled. The machine's row must be locked."""
    part = _part(seen, disk_gib)
    if part is not None and part >= FILLED and told is None:
        told = clock.now().timestamp()
        facts = {"host": host, "machine": number, "disk": seen["disk"], "size": disk_gib}
        key = f"disk_full:{number}:{clock.now():%Y%m%d%H}"  # by the hour: whoever is root there can fill it at will
        audit.record(f"agent:{host}", "instance.disk_full", f"instance:{name}", key=key, **facts)
    elif part is not None and part < ROOM:
        told = None
    return {**seen, TOLD: told} if told is not None else dict(seen)


def _part(seen: Mapping[str, Any], disk_gib: int) -> float | None:
    """Of its disk, what is used, 0 to 1; None where that is not known or nothing limits it."""
    used = seen.get("disk")
    limited = seen.get("pool_driver") in LIMITED and seen.get("disk_limit")  # one that was taken over may have none
    return used / (disk_gib << 30) if limited and used is not None else None
