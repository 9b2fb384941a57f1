"""An instance that goes to another member of its LXD cluster, with its disk and its snapshots.

LXD's own move goes by a name that nobody knows if it is interrupted, and brings GPUs and ports of the old host along.
So a copy is made there, as NAME-MOVED: no machine of a person's is called so, their names have no capitals. Then the
original becomes NAME-OLD and is deleted, and the copy gets its name. Whatever is killed half-way, a look at which of
them there are, and where, says how to go on: as long as there is NAME, nobody knows of a whole copy, and one is made
anew; what is called otherwise, maybe half deleted, nobody could have started and worked in since.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial

from app.drivers.base import TAG_PREFIX, DriverError, GiveUp, HostUnreachable, Progress, TryAgain
from app.drivers.lxd import instances, shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

NICS = TAG_PREFIX + "nics"  # on the copy: what is to be put back
MOVE_LIMIT = 7200.0  # seconds for a disk over the network
STEP_LIMIT = 60.0


def move(wire: Wire, name: str, member: str, progress: Progress) -> None:
    """See above. What fails before the copy is whole leaves the original as it was, and nothing else."""
    what, moved, old = f"Move {name} to {member}", f"{name}-MOVED", f"{name}-OLD"
    with as_driver_errors(what):
        with suppress(RefusedError):  # copying or renaming for one who is gone
            instances.join(wire, moved)
        current = wire.find_anywhere(name)[0]
        if current is not None and current.get("location") == member:
            return
        if current is not None:
            _refuse(wire, current, member, what)
            instances.remove(wire, moved, what)  # what an earlier try left may be half a copy
            try:
                _copy(wire, current, moved, member, progress)
            except HostUnreachable:
                raise
            except DriverError:
                with suppress(DriverError, RefusedError):  # nothing is left over; the first error is the one to tell of
                    instances.remove(wire, moved, what)
                raise
            instances.remove(wire, old, what)  # what a rebuild may have left
            wire.finish(what, "post", "instances", name, json={"name": old}, limit=STEP_LIMIT)
        progress("renaming", 90)
        instances.remove(wire, old, what)
        _dress(wire, moved, what)
        wire.finish(what, "post", "instances", moved, json={"name": name}, limit=STEP_LIMIT)


def _refuse(wire: Wire, current: Json, member: str, what: str) -> None:
    here = wire.member()
    if not here:
        raise GiveUp(what, "this host is in no LXD cluster", "Join its LXD to the other one's cluster.")
    if member not in {str(found["server_name"]) for found in wire.get("cluster", "members", recursion=1) or []}:
        raise GiveUp(what, "its LXD cluster has no such member", "See lxc cluster list.")
    if current["location"] != here:
        raise GiveUp(what, f"it is on {current['location']}", f"{current['location']}'s agent has to move it.")
    if current["status"].lower() != "stopped":
        raise TryAgain(what, f"it is {current['status'].lower()}", "Stop it first.")


def _copy(wire: Wire, current: Json, moved: str, member: str, progress: Progress) -> None:
    """The same instance on the other member, but for its GPUs, ports, directories and libraries: those are the hosts'
    own. Its NICs are kept in a note until the original is gone: no two may have one address."""
    config, every = shapes.without_gpus(current)
    config |= {key: value for key, value in current["config"].items() if key.startswith("image.")}
    if shapes.PROTECTED in config:
        config[shapes.PROTECTED] = "false"  # of half a copy it could not be taken back
    nics = {key: one for key, one in every.items() if one.get("type") == "nic"}
    devices = {key: one for key, one in every.items() if one.get("path") == "/" or one.get("type") == "none"}
    body = {
        "name": moved,
        "type": "container",
        "architecture": current["architecture"],
        "profiles": current["profiles"],
        "description": current.get("description", ""),
        "config": {**config, NICS: json.dumps(nics)},
        "devices": {**devices, **{key: {"type": "none"} for key in nics}},
        "source": {"type": "copy", "source": current["name"]},
    }
    progress("moving", 10)
    told, what = partial(progress, "moving"), f"Move {current['name']}"
    wire.finish(what, "post", "instances", json=body, limit=MOVE_LIMIT, params={"target": member}, progress=told)
    found = wire.find_anywhere(moved)[0]
    if found is None or found["location"] != member:
        raise TryAgain(what, "LXD says done, and there is no copy")
    if _snapshots(wire, current["name"]) - _snapshots(wire, moved):
        raise TryAgain(what, "the copy lacks snapshots")


def _dress(wire: Wire, moved: str, what: str) -> None:
    """Its NICs and its protection as they were."""
    current, etag = wire.find_anywhere(moved)
    if current is None:
        raise GiveUp(what, "the cluster has no such instance", "Create the instance anew.")
    if (kept := current["config"].get(NICS)) is None:
        return
    body = shapes.writable(current)
    body["devices"] |= json.loads(kept)
    del body["config"][NICS]
    if shapes.PROTECTED in body["config"]:
        body["config"][shapes.PROTECTED] = "true"
    wire.finish(what, "put", "instances", moved, json=body, etag=etag, limit=STEP_LIMIT)


def _snapshots(wire: Wire, name: str) -> set[str]:
    return {str(path).rpartition("/")[2] for path in wire.get("instances", name, "snapshots") or []}
