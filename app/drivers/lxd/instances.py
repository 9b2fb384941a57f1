"""Starting, stopping and removing instances, and what all that make one have in common."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from app.drivers.base import GiveUp, InstanceSpec, TryAgain
from app.drivers.lifecycle import BESIDE
from app.drivers.lxd import libraries, network, shapes, turns
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

POWER_TIMEOUT = 60.0
START_TRIES, START_PAUSE = 3, 0.5  # seconds between them
# LXD 5.0 on a busy host: of several that start at once one ends with 1; and a file does not take its new owner when the
# first start gives them to the range of ids of the machine. The next start passes over those that have theirs.
_NOW_AND_THEN = ("lxd forkstart", "Failed to change ownership of")
STOP_TIMEOUT = 30  # so long LXD waits for a clean shutdown
_NOT_OBEYED = "it did not shut down"
TURN_TIMEOUT = 40.0  # a change that hangs has an instance to itself for 30 s in LXD, which refuses all else meanwhile
COPY_TIMEOUT = 900.0  # the first instance of an image has to unpack it
_KEPT = ("volatile.", "image.")  # LXD's own keys of an instance
_INSIDE = "Executing command"  # what LXD calls it
_REMOVAL = 30.0  # seconds within which LXD has let go of an instance
_making: dict[tuple[int, str], threading.Lock] = {}  # by process too: a fork may copy a held one


def blank(wire: Wire, what: str, spec: InstanceSpec) -> Json:
    """The request for a new instance; refuses a default profile that could only go wrong."""
    config, devices = libraries.for_new(wire.lxd_dir)
    pool = _pool(what, wire.get("profiles", "default")["devices"])
    return shapes.new_instance(spec, pool, {**network.nics(wire, spec.name), **devices}, config)


@contextmanager
def alone(wire: Wire) -> Iterator[None]:
    """Hold this while an instance is made: LXD 5.0 gives two that are made at once the same range of user ids, or one
    that the host does not allow, and neither would see the address that the other has chosen."""
    with _making.setdefault((os.getpid(), wire.endpoint), threading.Lock()):
        yield


def make(wire: Wire, what: str, body: Json, progress: Callable[[int], None] | None = None) -> None:
    """Make an instance on this host, whole. Raises as `Wire.finish`: then there may be half of it."""
    wire.finish(what, "post", "instances", json=body, limit=COPY_TIMEOUT, params=wire.here(), progress=progress)


def restart(wire: Wire, name: str) -> None:
    """Stop it, by force where a clean one is not obeyed, and start it. Not LXD's own restart: that starts it with the
    devices that it had at the beginning, a GPU too that was taken away meanwhile and is somebody else's."""
    try:
        power(wire, name, "stop")
    except TryAgain as error:
        if _NOT_OBEYED not in str(error):
            raise
        power(wire, name, "stop", force=True)
    power(wire, name, "start")


def power(wire: Wire, name: str, action: str, *, force: bool = False, anywhere: bool = False) -> bool:
    """start, stop, freeze; what is so already is fine. Whether a start began from nothing: not one that went on."""
    what = f"{action.capitalize()} {name}"
    with as_driver_errors(what):
        current = _found(wire, name, anywhere)
        if current is None:
            raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
        status = current["status"].lower()
        if (action, status) in {("start", "running"), ("stop", "stopped"), ("freeze", "frozen")}:
            return False
        if action == "freeze" and status != "running":
            raise TryAgain(what, f"the instance is {status}", "Start the instance.")
        if (action, status, force) == ("stop", "frozen", False):  # it could not shut down
            power(wire, name, "start")
        action = "unfreeze" if (action, status) == ("start", "frozen") else action
        request = {"action": action, "timeout": STOP_TIMEOUT, "force": force}
        try:
            _switch(wire, name, request)
        except RefusedError as error:
            if "is already " in str(error):  # running, stopped: somebody was faster
                return action == "start"
            if force or action != "stop" or "shutting down" not in str(error):
                raise
            raise TryAgain(what, f"{_NOT_OBEYED} in {STOP_TIMEOUT} s", "Stop it at once.") from error
    return action == "start"


def _switch(wire: Wire, name: str, request: Json) -> None:
    """Ask for another state as soon as LXD is not at something else with the instance, and once more where it is known
    to fail now and then."""
    deadline, left = time.monotonic() + TURN_TIMEOUT, START_TRIES
    while True:
        try:
            wire.send("put", "instances", name, "state", json=request, limit=POWER_TIMEOUT)
        except RefusedError as error:
            fails = any(words in str(error) for words in _NOW_AND_THEN)
            left -= fails
            waits = "is busy running" in str(error) and time.monotonic() < deadline
            if not waits and not (fails and left):
                raise
            time.sleep(0.2 if waits else START_PAUSE)
        else:
            return


def delete(wire: Wire, name: str, owner: str, *, anywhere: bool = False) -> None:
    """Stop and remove it, if it bears this owner's mark: another one of its name is somebody else's, and the owner's is
    gone. `anywhere`: on another member of the cluster too."""
    what = f"Delete {name}"
    with as_driver_errors(what):
        turns.look_and_act(lambda: _delete(wire, name, owner, anywhere))
        if _owned(wire, name, owner, anywhere):
            raise TryAgain(what, "LXD still lists it")


def clear(wire: Wire, name: str, owner: str) -> None:
    """Remove what rebuilds and moves of it that failed half-way have left, wherever in the cluster it was then."""
    for end in BESIDE:
        delete(wire, name + end, owner, anywhere=True)


def _found(wire: Wire, name: str, anywhere: bool) -> Json | None:
    return (wire.find_anywhere if anywhere else wire.find)(name)[0]


def _owned(wire: Wire, name: str, owner: str, anywhere: bool) -> Json | None:
    current = _found(wire, name, anywhere)
    return current if current is not None and shapes.owner_of(current) == owner else None


def _delete(wire: Wire, name: str, owner: str, anywhere: bool) -> None:
    current = _owned(wire, name, owner, anywhere)
    if current is None:
        return
    if current["config"].get(shapes.MAKING):
        with suppress(RefusedError):  # the one who asked for it may be gone
            join(wire, name)
    if current["status"].lower() != "stopped":
        power(wire, name, "stop", force=True, anywhere=anywhere)
    _drop(wire, current)


def strip(wire: Wire, name: str, body: Json) -> None:
    """Leave of a new copy what the request for it names. LXD copies the rest too: GPUs, doors, shared folders, and
    marks of whose it was. It has not run yet."""
    current, etag = wire.find(name)
    assert current is not None
    clean = shapes.writable(current)
    own = {key: value for key, value in current["config"].items() if key.startswith(_KEPT)}
    clean |= {"config": own | body["config"], "devices": body["devices"], "profiles": body["profiles"]}
    wire.finish(f"Make {name}", "put", "instances", name, json=clean, etag=etag, limit=POWER_TIMEOUT)


def remove(wire: Wire, name: str, what: str) -> None:
    """Remove a stopped one, on whichever member of the cluster. LXD that is still making it, or is at taking it away
    itself, fails at this for a while. Raises RefusedError too."""
    deadline, trouble = time.monotonic() + _REMOVAL, None
    current = wire.find_anywhere(name)[0]
    while current is not None and time.monotonic() < deadline:
        try:
            _drop(wire, current)
        except RefusedError as error:
            trouble = error
        if (current := wire.find_anywhere(name)[0]) is not None:
            time.sleep(0.5)
    if current is not None:
        raise trouble or TryAgain(what, "LXD still lists it")


def _drop(wire: Wire, current: Json) -> None:
    """Have a stopped one removed; a protected one is freed first. Of half of one LXD says that this failed, for want of
    a disk to note it on, and has done it: only the removal tells. On btrfs LXD 5.0 makes a directory for the note in
    the disk's place, which it cannot remove: so what is being made is not protected."""
    name = str(current["name"])
    kept = _unprotect(wire, name) if shapes.protected(current) else None
    try:
        wire.send("delete", "instances", name, limit=POWER_TIMEOUT)
    except RefusedError as error:
        if kept and "is protected" in str(error):
            raise kept from error
        raise


def _unprotect(wire: Wire, name: str) -> RefusedError | None:
    """LXD's refusal, if any. It is at the stop for a moment longer than it says, and refuses any change meanwhile."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while True:
        try:
            body = {"config": {shapes.PROTECTED: "false"}}
            wire.send("patch", "instances", name, json=body, limit=POWER_TIMEOUT)
        except RefusedError as error:
            if not error.busy or time.monotonic() > deadline:
                return error
        else:
            return None
        time.sleep(0.1)


def join(wire: Wire, name: str, progress: Callable[[int], None] | None = None) -> bool:
    """Wait for what LXD is still doing with an instance: it goes on when the one who asked is gone. Whether it was, up
    to a moment ago, and got done: LXD lists what it has done for 5 s more. What runs inside is not LXD's doing."""
    found = False
    listed = wire.get("operations", recursion=1)
    done = listed.get("success") or []
    for operation in (listed.get("running") or []) + done:
        inside = operation.get("class") != "task" or operation.get("description") == _INSIDE
        if not inside and shapes.is_of(operation, name):
            found = wire.join(operation["id"], COPY_TIMEOUT, progress) or operation in done
    return found


def refuse_unknown_image(wire: Wire, what: str, image: str) -> None:
    """Raise GiveUp for an image that the host does not have."""
    images = [info for found in wire.get("images", recursion=1) for info in shapes.image_infos(found)]
    if image not in {info.alias for info in images}:
        raise GiveUp(what, f"no image {image!r} on this host", "Import it there, or choose another one.")


def _pool(what: str, profile: Json) -> str:
    """The storage pool for a new instance."""
    devices = profile.values()
    if any(device.get("type") == "gpu" for device in devices):
        raise GiveUp(what, "the default profile gives every instance a GPU", "Remove the GPU from that profile.")
    for device in devices:
        if device.get("path") == "/" and device.get("pool"):
            return str(device["pool"])
    raise GiveUp(what, "the default profile has no root disk", "Run lxd init on the host.")


def await_init(wire: Wire, name: str, what: str) -> None:
    """Wait until its first process runs."""
    deadline = time.monotonic() + POWER_TIMEOUT
    while time.monotonic() < deadline:
        state = wire.get("instances", name, "state")
        if state["status"].lower() == "running" and state["pid"] > 0:
            return
        time.sleep(0.1)
    raise TryAgain(what, "the instance did not come up", f"Look at its log: lxc info {name} --show-log.")
