"""Making an instance, also one that LXD is making already: for somebody who died, or who was faster."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from app.drivers.base import DriverError, GiveUp, InstanceSpec, Progress
from app.drivers.inside import shell
from app.drivers.libraries import INSIDE
from app.drivers.lxd import execute, instances, libraries, shapes, turns
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

# The linker's cache names the directory's links, and stays true when what they lead to is renewed.
LINK = shell(f"/sbin/ldconfig; ln -sf {INSIDE}/bin/nvidia-smi /usr/local/bin/nvidia-smi")


def create(wire: Wire, spec: InstanceSpec, progress: Progress) -> None:
    """Make the instance and start it; one with the owner's mark is taken up where an earlier call left it."""
    what = f"Create {spec.name}"
    with as_driver_errors(what):
        progress("preparing", 0)
        turns.look_and_act(lambda: _have(wire, spec, what, progress))
        progress("starting", 0)
        instances.power(wire, spec.name, "start")
        progress("checking", 0)
        instances.await_init(wire, spec.name, what)
        _link_libraries(wire, spec.name)
        progress("checking", 100)


def _have(wire: Wire, spec: InstanceSpec, what: str, progress: Progress) -> None:
    """Have it whole: what LXD is at already is waited for, whoever asked, and half of one is made anew."""
    current = _own(wire, spec, what)
    joined = instances.join(wire, spec.name, lambda done: progress("copying", done))
    if joined:
        current = _own(wire, spec, what)
    if current and current["config"].get(shapes.MAKING) and not joined:
        wire.send("delete", "instances", spec.name, limit=instances.POWER_TIMEOUT)
        current = None
    if current is None:
        _make(wire, spec, what, progress)
    if current is None or current["config"].get(shapes.MAKING):  # now it is whole
        body = {"config": {shapes.MAKING: "", shapes.PROTECTED: "true"}}
        wire.send("patch", "instances", spec.name, json=body, limit=instances.POWER_TIMEOUT)


def _own(wire: Wire, spec: InstanceSpec, what: str) -> Json | None:
    """The instance, as far as there is one; refuses one that is elsewhere, or somebody else's."""
    current = wire.find_anywhere(spec.name)[0]
    if current and not wire.is_here(current):
        where = f"{current['location']}, another member of the cluster, has an instance of that name"
        raise GiveUp(what, where, "Choose another name.")
    if current and shapes.owner_of(current) != spec.owner:
        raise GiveUp(what, "an instance of that name exists and is not this owner's", "Choose another name.")
    return current


def _make(wire: Wire, spec: InstanceSpec, what: str, progress: Progress) -> None:
    instances.refuse_unknown_image(wire, what, spec.image)
    progress("copying", 0)
    with instances.alone(wire):
        body = instances.blank(wire, what, spec)
        del body["config"][shapes.PROTECTED]  # of half an instance it could not be taken back
        body["config"][shapes.MAKING] = "true"
        instances.make(wire, what, body, partial(progress, "copying"))


def _link_libraries(wire: Wire, name: str) -> None:
    if libraries.DEVICES[0] in (wire.find(name)[0] or {}).get("devices", {}):
        with suppress(DriverError):  # a distribution without it finds them by LD_LIBRARY_PATH
            execute.run(wire, name, LINK)
