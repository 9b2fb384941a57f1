"""Making, starting, stopping and removing instances."""

from __future__ import annotations

import time

from app.drivers.base import GiveUp, InstanceSpec, Progress, TryAgain
from app.drivers.lxd import shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

POWER_TIMEOUT = 60.0
STOP_TIMEOUT = 30  # so long LXD waits for a clean shutdown
TURN_TIMEOUT = 40.0  # a change that hangs has an instance to itself for 30 s in LXD, which refuses all else meanwhile
COPY_TIMEOUT = 900.0  # the first instance of an image has to unpack it


def create(wire: Wire, spec: InstanceSpec, progress: Progress) -> None:
    """Make the instance and start it; one with the owner's mark is taken up where an earlier call left it."""
    what = f"Create {spec.name}"
    with as_driver_errors(what):
        progress("preparing", 0)
        current = wire.find(spec.name)[0]
        if current and current["config"].get(shapes.OWNER) != spec.owner:
            raise GiveUp(what, "an instance of that name exists and is not this owner's", "Choose another name.")
        if current:
            _join(wire, spec.name, progress)
        else:
            body = shapes.new_instance(spec, _pool(wire, what, spec.image))
            progress("copying", 0)
            wire.send(
                "post", "instances", json=body, limit=COPY_TIMEOUT, progress=lambda done: progress("copying", done)
            )
        progress("starting", 0)
        power(wire, spec.name, "start")
        progress("checking", 0)
        _await_init(wire, spec.name, what)
        progress("checking", 100)


def power(wire: Wire, name: str, action: str, *, force: bool = False) -> None:
    """start, stop or restart; what is so already is fine. A restart is forced where a clean one is not obeyed."""
    what = f"{action.capitalize()} {name}"
    with as_driver_errors(what):
        current = wire.find(name)[0]
        if current is None:
            raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
        status = current["status"].lower()
        if (action, status) in {("start", "running"), ("stop", "stopped")}:
            return
        if action == "restart" and status == "stopped":
            action = "start"
        if action == "start" and status == "frozen":
            action = "unfreeze"
        request = {"action": action, "timeout": STOP_TIMEOUT, "force": force}
        try:
            _in_turn(wire, name, request)
        except RefusedError as error:
            if "is already " in str(error):  # running, stopped: somebody was faster
                return
            if force or action not in {"stop", "restart"} or "shutting down" not in str(error):
                raise
            if action == "stop":
                raise TryAgain(what, f"it did not shut down in {STOP_TIMEOUT} s", "Stop it at once.") from error
            power(wire, name, action, force=True)


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
        try:
            wire.send("delete", "instances", name, limit=POWER_TIMEOUT)
        except RefusedError as error:
            if error.code != 404:
                raise
        if wire.find(name)[0]:
            raise TryAgain(what, "LXD still lists it", "It is tried again by itself.")


def _in_turn(wire: Wire, name: str, request: Json) -> None:
    """Ask for another state as soon as LXD is not at something else with the instance."""
    deadline = time.monotonic() + TURN_TIMEOUT
    while True:
        try:
            wire.send("put", "instances", name, "state", json=request, limit=POWER_TIMEOUT)
        except RefusedError as error:
            if "is busy running" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _join(wire: Wire, name: str, progress: Progress) -> None:
    """Wait for what LXD is still doing with an instance: it goes on when the one who asked is gone."""
    for operation in wire.get("operations", recursion=1).get("running") or []:
        if f"/1.0/instances/{name}" in (operation.get("resources") or {}).get("instances", []):
            wire.join(operation["id"], COPY_TIMEOUT, lambda done: progress("copying", done))


def _pool(wire: Wire, what: str, image: str) -> str:
    """The storage pool for a new instance; refuses on the way what could only go wrong."""
    images = [info for found in wire.get("images", recursion=1) for info in shapes.image_infos(found)]
    if image not in {info.alias for info in images}:
        raise GiveUp(what, f"no image {image!r} on this host", "Import it there, or choose another one.")
    devices = wire.get("profiles", "default")["devices"].values()
    if any(device.get("type") == "gpu" for device in devices):
        raise GiveUp(what, "the default profile gives every instance a GPU", "Remove the GPU from that profile.")
    for device in devices:
        if device.get("path") == "/" and device.get("pool"):
            return str(device["pool"])
    raise GiveUp(what, "the default profile has no root disk", "Run lxd init on the host.")


def _await_init(wire: Wire, name: str, what: str) -> None:
    deadline = time.monotonic() + POWER_TIMEOUT
    while time.monotonic() < deadline:
        state = wire.get("instances", name, "state")
        if state["status"].lower() == "running" and state["pid"] > 0:
            return
        time.sleep(0.1)
    raise TryAgain(what, "the instance did not come up", f"Look at its log: lxc info {name} --show-log.")
