"""The host's NVIDIA libraries for an instance that was made without them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from app.drivers.base import DriverError, GiveUp
from app.drivers.libraries import DUE
from app.drivers.lxd import creation, execute, instances, libraries, shapes
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

Update = Callable[[str, str, Callable[[Json, Json], bool]], None]


def lend(wire: Wire, update: Update, name: str) -> bool:
    """Give it what new ones get; whether that counts from its next start on only."""
    what = f"Give {name} NVIDIA's libraries"

    def change(current: Json, body: Json) -> bool:
        config, devices = libraries.for_new(wire.lxd_dir)
        if not config and not devices:
            detail = "this host brings no libraries into machines"
            raise GiveUp(what, detail, "Install those of its driver's version in the machine.")
        if shapes.privileged(current):
            raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
        wanted = {**body["config"], **config}, {**body["devices"], **devices}
        if wanted == (body["config"], body["devices"]):
            return False
        body["config"], body["devices"] = {**wanted[0], DUE: "true"}, wanted[1]
        return True

    update(name, what, change)
    return settle(wire, update, name)


def after_start(wire: Wire, update: Update, name: str, *, begun: bool = True) -> None:
    """Have what was lent found by one that was just started, or that ran already (not `begun`). It runs, whatever comes
    of this: the next start tries again."""
    with suppress(DriverError), as_driver_errors(f"Tell {name} of NVIDIA's libraries"):
        settle(wire, update, name, started=begun)


def settle(wire: Wire, update: Update, name: str, *, started: bool = False) -> bool:
    """Tell the linker of one that runs what it has been given; whether something is to come yet with its next start.
    `started`: it was just now."""
    current = wire.find(name)[0]
    if current is None or DUE not in current["config"]:
        return False
    mounted = libraries.DEVICES[0] in current["devices"]
    if current["status"].lower() != "running" or not (mounted or started):
        return True
    what = f"Tell {name} of NVIDIA's libraries"
    if mounted:
        instances.await_init(wire, name, what)
        with suppress(DriverError):  # a distribution without it finds them by LD_LIBRARY_PATH
            execute.run(wire, name, creation.LINK)
    update(name, what, lambda _current, body: body["config"].pop(DUE, None) is not None)
    return False
