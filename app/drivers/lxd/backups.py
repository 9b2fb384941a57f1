"""Backups on a real LXD. What LXD packs brings all settings along that the instance has or had at the snapshot: GPUs,
ports, paths of the host, whatever an admin set. And its profiles: all of the host's where it has none of its own. So it
packs a copy without settings, in a project of LXD's whose only profile is empty; the copy is removed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from app.drivers.base import DriverError, GiveUp, Progress
from app.drivers.lxd import instances, shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.survey import size_of
from app.drivers.lxd.wire import Wire

PROJECT = "berth-backups"  # nothing but copies is in there
PACK_LIMIT = 4 * 3600.0  # seconds
FETCH_LIMIT = 4 * 3600.0
SPARE, SPARE_SHARE = 2 << 30, 0.05  # what stays free on a file system: bytes, and a share of it
UNKNOWN = 20 << 30  # bytes to count with where nobody knows what a disk holds
PACKED = 70  # per cent of the work that are done when LXD has packed the copy
_FILE = "file"  # LXD's name of the backup


def backup(wire: Wire, source: Json, snapshot: str, into: Path, most: int, progress: Progress) -> int:
    """See BackupDriver; `source` is the instance as LXD has it, and its snapshot exists."""
    name, what = str(source["name"]), f"Back up {source['name']}"
    side = Wire(wire.endpoint, project=PROJECT)
    with as_driver_errors(what):
        _have_project(wire)
        _remove(side, name, what)
        _refuse_without_room(wire, name, into, most, what)
        try:
            progress("keeping", 5)
            _copy(side, source, f"{name}/{snapshot}" if snapshot else name, what)
            _refuse_without_room(side, name, into, most, what)  # a snapshot may hold more than the machine does now
            progress("packing", 10)
            _pack(side, name, what, lambda done: progress("packing", 10 + done * (PACKED - 10) // 100))
            told = partial(_tell, progress)
            return side.fetch("instances", name, "backups", _FILE, "export", into=into, limit=FETCH_LIMIT, told=told)
        finally:
            with suppress(DriverError, RefusedError, OSError):  # the first error is the one to tell of
                _remove(side, name, what)


def _have_project(wire: Wire) -> None:
    config = {"features.profiles": "true", "features.images": "false", "features.storage.volumes": "false"}
    body = {"name": PROJECT, "description": "Copies that Berth makes backups of, for a moment", "config": config}
    try:
        wire.get("projects", PROJECT)
    except RefusedError as error:
        if error.code != 404:
            raise
        wire.send("post", "projects", json=body, limit=instances.POWER_TIMEOUT)


def _tell(progress: Progress, done: int, size: int) -> None:
    progress("packing", PACKED + (100 - PACKED) * done // max(size, done, 1))


def _copy(side: Wire, source: Json, origin: str, what: str) -> None:
    """A stopped copy with a disk and nothing else."""
    _name, root = shapes.root_disk(source)
    disk = {key: root[key] for key in ("pool", "size") if key in root}
    body: Json = {
        "name": source["name"],
        "type": "container",
        "source": {"type": "copy", "source": origin, "project": "default", "instance_only": True},
        "profiles": ["default"],  # the project's: so that it has that of whatever LXD takes it in
        "config": {**shapes.ALWAYS, shapes.PROTECTED: "false"},  # else its original's: half of it could not be removed
        "devices": {"root": {"type": "disk", "path": "/", **disk}},
    }
    with instances.alone(side):
        instances.make(side, what, body)
    instances.strip(side, str(source["name"]), body)


def _pack(side: Wire, name: str, what: str, told: Callable[[int], None]) -> None:
    request = {
        "name": _FILE,
        "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "instance_only": True,
        "optimized_storage": False,  # so that any pool takes it back, and tar reads it
        "compression_algorithm": "gzip",
    }
    side.finish(what, "post", "instances", name, "backups", json=request, limit=PACK_LIMIT, progress=told)


def _refuse_without_room(wire: Wire, name: str, into: Path, most: int, what: str) -> None:
    held = _held(wire, name)
    if held > most:
        detail = f"its disk holds {_gib(held)}, and a backup may have {_gib(most)} at most"
        raise GiveUp(what, detail, "Remove files from it, or copy what you need over SSH.")
    needs: dict[Path, int] = {into.parent: held}
    if wire.lxd_dir is not None:
        packed = wire.lxd_dir / "backups"
        same = packed.exists() and packed.stat().st_dev == into.parent.stat().st_dev
        needs = {into.parent: 2 * held} if same else {into.parent: held, packed: held}
    for place, bytes_needed in needs.items():
        if place.exists():
            room = shutil.disk_usage(place)
            spare = max(SPARE, round(room.total * SPARE_SHARE))
            if room.free - spare < bytes_needed:
                detail = f"the host has no room: it needs {_gib(bytes_needed)} and has {_gib(room.free)} free"
                raise GiveUp(what, detail, "Remove files from the machine, or ask an admin to make room.")


def _held(wire: Wire, name: str) -> int:
    """The bytes on its disk; where the pool does not know, as many as there may be."""
    disk = (wire.get("instances", name, "state").get("disk") or {}).get("root") or {}
    if used := int(disk.get("usage") or 0):
        return used
    current = wire.find(name)[0] or {}
    return size_of(shapes.root_disk(current)[1].get("size", "")) or UNKNOWN


def _remove(side: Wire, name: str, what: str) -> None:
    """Take the copy away, on whichever member of the cluster it is, once LXD has let go of it: what was begun for
    somebody who is gone goes on."""
    with suppress(RefusedError):
        instances.join(side, name)
    instances.remove(side, name, what)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
