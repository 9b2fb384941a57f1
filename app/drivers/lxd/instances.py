"""Making, starting, stopping and removing instances."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from app.drivers.base import DriverError, GiveUp, InstanceSpec, Progress, TryAgain
from app.drivers.inside import shell
from app.drivers.libraries import INSIDE
from app.drivers.lxd import execute, libraries, network, shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

POWER_TIMEOUT = 60.0
START_TRIES, START_PAUSE = 3, 0.5  # seconds between them
# LXD 5.0 on a busy host: of several that start at once one ends with 1; and a file does not take its new owner when the
# first start gives them to the range of ids of the machine. The next start passes over those that have theirs.
_NOW_AND_THEN = ("lxd forkstart", "Failed to change ownership of")
# The linker's cache names the directory's links, and stays true when what they lead to is renewed.
LINK = shell(f"/sbin/ldconfig; ln -sf {INSIDE}/bin/nvidia-smi /usr/local/bin/nvidia-smi")
STOP_TIMEOUT = 30  # so long LXD waits for a clean shutdown
TURN_TIMEOUT = 40.0  # a change that hangs has an instance to itself for 30 s in LXD, which refuses all else meanwhile
COPY_TIMEOUT = 900.0  # the first instance of an image has to unpack it
_KEPT = ("volatile.", "image.")  # LXD's own keys of an instance
_REMOVAL = 30.0  # seconds within which LXD has let go of an instance
_making: dict[tuple[int, str], threading.Lock] = {}  # by process too: a fork may copy a held one


def create(wire: Wire, spec: InstanceSpec, progress: Progress) -> None:
    """Make the instance and start it; one with the owner's mark is taken up where an earlier call left it."""
    what = f"Create {spec.name}"
    with as_driver_errors(what):
        progress("preparing", 0)
        current = wire.find_anywhere(spec.name)[0]  # one look: it may be made at this moment
        if current and not wire.is_here(current):
            where = f"{current['location']}, another member of the cluster, has an instance of that name"
            raise GiveUp(what, where, "Choose another name.")
        if current and current["config"].get(shapes.OWNER) != spec.owner:
            raise GiveUp(what, "an instance of that name exists and is not this owner's", "Choose another name.")
        joined = current is not None and join(wire, spec.name, lambda done: progress("copying", done))
        if current and current["config"].get(shapes.MAKING) and not joined:
            wire.send("delete", "instances", spec.name, limit=POWER_TIMEOUT)
            current = None
        if current is None:
            _make(wire, spec, what, progress)
        if current is None or current["config"].get(shapes.MAKING):  # now it is whole
            body = {"config": {shapes.MAKING: "", shapes.PROTECTED: "true"}}
            wire.send("patch", "instances", spec.name, json=body, limit=POWER_TIMEOUT)
        progress("starting", 0)
        power(wire, spec.name, "start")
        progress("checking", 0)
        await_init(wire, spec.name, what)
        _link_libraries(wire, spec.name)
        progress("checking", 100)


def _make(wire: Wire, spec: InstanceSpec, what: str, progress: Progress) -> None:
    refuse_unknown_image(wire, what, spec.image)
    progress("copying", 0)
    with alone(wire):
        body = blank(wire, what, spec)
        del body["config"][shapes.PROTECTED]  # of half an instance it could not be taken back
        body["config"][shapes.MAKING] = "true"
        told = partial(progress, "copying")
        wire.send("post", "instances", json=body, limit=COPY_TIMEOUT, params=wire.here(), progress=told)


def blank(wire: Wire, what: str, spec: InstanceSpec) -> Json:
    """The request for a new instance; refuses a default profile that could only go wrong."""
    config, devices = libraries.for_new(wire.lxd_dir)
    pool = _pool(what, wire.get("profiles", "default")["devices"])
    return shapes.new_instance(spec, pool, {**network.nics(wire, spec.name), **devices}, config)


def _link_libraries(wire: Wire, name: str) -> None:
    if libraries.DEVICES[0] in (wire.find(name)[0] or {}).get("devices", {}):
        with suppress(DriverError):  # a distribution without it finds them by LD_LIBRARY_PATH
            execute.run(wire, name, LINK)


@contextmanager
def alone(wire: Wire) -> Iterator[None]:
    """Hold this while an instance is made: LXD 5.0 gives two that are made at once the same range of user ids, or one
    that the host does not allow, and neither would see the address that the other has chosen."""
    with _making.setdefault((os.getpid(), wire.endpoint), threading.Lock()):
        yield


def power(wire: Wire, name: str, action: str, *, force: bool = False) -> None:
    """start, stop, restart, freeze; what is so already is fine. A restart is forced where a clean one is not obeyed."""
    what = f"{action.capitalize()} {name}"
    with as_driver_errors(what):
        current = wire.find(name)[0]
        if current is None:
            raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
        status = current["status"].lower()
        if (action, status) in {("start", "running"), ("stop", "stopped"), ("freeze", "frozen")}:
            return
        if action == "freeze" and status != "running":
            raise TryAgain(what, f"the instance is {status}", "Start the instance.")
        if status == "frozen" and action in {"stop", "restart"} and not force:  # it could not shut down
            power(wire, name, "start")
        action = {("restart", "stopped"): "start", ("start", "frozen"): "unfreeze"}.get((action, status), action)
        request = {"action": action, "timeout": STOP_TIMEOUT, "force": force}
        try:
            _switch(wire, name, request)
        except RefusedError as error:
            if "is already " in str(error):  # running, stopped: somebody was faster
                return
            if force or action not in {"stop", "restart"} or "shutting down" not in str(error):
                raise
            if action == "stop":
                raise TryAgain(what, f"it did not shut down in {STOP_TIMEOUT} s", "Stop it at once.") from error
            power(wire, name, action, force=True)


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


def delete(wire: Wire, name: str) -> None:
    """Stop and remove it, if it is Berth's; a missing one is fine."""
    what = f"Delete {name}"
    with as_driver_errors(what):
        current = wire.find(name)[0]
        if current is None:
            return
        if not current["config"].get(shapes.OWNER):
            raise GiveUp(what, f"it has no {shapes.OWNER}: Berth did not make it", "Delete it with lxc delete.")
        if current["status"].lower() != "stopped":
            power(wire, name, "stop", force=True)
        if current["config"].get(shapes.PROTECTED):
            _unprotect(wire, name)
        try:
            wire.send("delete", "instances", name, limit=POWER_TIMEOUT)
        except RefusedError as error:
            if error.code != 404:
                raise
        if wire.find(name)[0]:
            raise TryAgain(what, "LXD still lists it", "It is tried again by itself.")


def strip(wire: Wire, name: str, body: Json) -> None:
    """Leave of a new copy what the request for it names. LXD copies the rest too: GPUs, doors, shared folders, and
    marks of whose it was. It has not run yet."""
    current, etag = wire.find(name)
    assert current is not None
    clean = shapes.writable(current)
    own = {key: value for key, value in current["config"].items() if key.startswith(_KEPT)}
    clean |= {"config": own | body["config"], "devices": body["devices"], "profiles": body["profiles"]}
    wire.send("put", "instances", name, json=clean, etag=etag, limit=POWER_TIMEOUT)


def remove(wire: Wire, name: str, what: str) -> None:
    """Remove a stopped one. LXD that is still making it, or is at taking it away itself, fails at this for a while."""
    deadline, trouble = time.monotonic() + _REMOVAL, ""
    while time.monotonic() < deadline:
        try:
            wire.send("delete", "instances", name, limit=POWER_TIMEOUT)
        except RefusedError as error:
            trouble = str(error)
        if wire.find(name)[0] is None:
            return
        time.sleep(0.5)
    raise TryAgain(what, trouble or "LXD still lists it", "Try again.")


def _unprotect(wire: Wire, name: str) -> None:
    """LXD is at the stop for a moment longer than it says, and refuses any change meanwhile."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while True:
        try:
            body = {"config": {shapes.PROTECTED: "false"}}
            return wire.send("patch", "instances", name, json=body, limit=POWER_TIMEOUT)
        except RefusedError as error:
            if not error.busy or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def join(wire: Wire, name: str, progress: Callable[[int], None]) -> bool:
    """Wait for what LXD is still doing with an instance: it goes on when the one who asked is gone. Whether it was."""
    found = False
    for operation in wire.get("operations", recursion=1).get("running") or []:
        if f"/1.0/instances/{name}" in (operation.get("resources") or {}).get("instances", []):
            wire.join(operation["id"], COPY_TIMEOUT, progress)
            found = True
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
