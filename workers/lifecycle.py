"""Operations on a machine's life: freeze, rename, resize, snapshots, taking over. Each may be done again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from app import clock
from app.drivers.base import DriverError, GiveUp, HostUnreachable, LxdDriver
from app.drivers.lifecycle import BESIDE, RENEWED, Size
from app.extensions import transaction
from app.services import instances, operations, surveys
from app.services.snapshots import AUTO
from workers import moving_in

if TYPE_CHECKING:
    from workers.works import Work


def freeze(work: Work) -> None:
    """Pause it."""
    work.driver.freeze(work.instance.name)


def rename(work: Work) -> None:
    """Stop, rename, and start what ran. The database has the new name already."""
    details, new = work.operation.details, work.instance.name
    old = str(details["old"])
    work.progress("stopping", 10)
    try:
        if old in work.driver.observe(frozenset({old})).instances:
            moving_in.halt(work.driver, old)
        work.progress("renaming", 50)
        work.driver.rename(old, new)
    except DriverError:
        if details["ran"]:
            with suppress(DriverError):  # the first error is the one to tell of
                work.driver.start(old)
        raise
    with transaction():
        operations.remember(work.operation.id, renamed=True)
    if details["ran"]:
        work.progress("starting", 70)
        work.driver.start(new)


def resize(work: Work) -> None:
    """Set its limits."""
    details = work.operation.details
    work.progress("resizing", 20)
    work.driver.resize(
        work.instance.name, Size(int(details["cpus"]), int(details["memory_mib"]), int(details["disk_gib"]))
    )
    _mirror(work)


def snapshot(work: Work) -> None:
    """Make one. One by schedule takes the place of the oldest of its kind when there are enough."""
    name, details = str(work.operation.details["snapshot"]), work.operation.details
    machine = work.instance.name
    work.progress("keeping", 10)
    there = _snapshots(work.driver, machine)
    if name not in there:
        autos = sorted(one for one in there if one.startswith(AUTO)) if name.startswith(AUTO) else []
        spare = max(len(there) - int(details["most"]) + 1, len(autos) - int(details["keep"]) + 1, 0)
        if len(there) - min(spare, len(autos)) >= int(details["most"]):
            raise GiveUp(f"Snapshot {machine}", f"it has {len(there)} already", "Delete one that is not needed.")
        work.driver.snapshot(machine, name)
        for one in autos[:spare]:
            work.driver.forget(machine, one)
    _mirror(work)


def restore(work: Work) -> None:
    """Stop it, put its disk back, and start it if it ran. It starts with the settings it had, and without a GPU: what
    is booked is plugged in again by the next pass. Done again, it takes back nothing that people did since."""
    details = work.operation.details
    if not details.get("restored"):
        _put_back(work, str(details["snapshot"]))
        with transaction():  # while it is off
            operations.remember(work.operation.id, restored=True)
    if details["ran"]:
        work.progress("starting", 80)
        moving_in.start_with_keys(work)
    _mirror(work)


def _put_back(work: Work, snapshot: str) -> None:
    machine = work.instance
    work.progress("stopping", 10)
    moving_in.halt(work.driver, machine.name)
    try:
        work.progress("restoring", 40)
        with transaction():
            operations.remember(work.operation.id, begun=True)
        work.driver.restore(machine.name, snapshot)
    except HostUnreachable:
        raise
    except DriverError:
        if work.operation.details["ran"]:
            _start_again(work)
        raise
    # A try that was killed half-way left the settings of that day: what Berth counts on is set again.
    work.driver.adopt(machine.name, machine.owner.username)
    work.driver.resize(machine.name, Size(machine.cpus, machine.memory_mib, 0))


def forget(work: Work) -> None:
    """Remove a snapshot."""
    work.progress("deleting", 10)
    work.driver.forget(work.instance.name, str(work.operation.details["snapshot"]))
    _mirror(work)


def rebuild(work: Work) -> None:
    """Make it anew from its image, /home kept. Done again when the new one had its name, it is not made a second time:
    people may be at work in it."""
    name = work.instance.name
    if work.operation.percent < RENEWED:
        work.driver.rebuild(instances.spec(work.instance), work.progress)
    else:
        work.driver.start(name)
        for end in BESIDE:
            work.driver.delete(name + end, work.instance.owner.username)
    _mirror(work)


def move(work: Work) -> None:
    """Stop it and bring it to another member of the cluster, whose agent starts it."""
    details, machine = work.operation.details, work.instance
    work.progress("stopping", 5)
    try:
        if machine.name in work.driver.observe(frozenset({machine.name})).instances:
            moving_in.halt(work.driver, machine.name)
        work.driver.move(machine.name, str(details["member"]), work.progress)
    except HostUnreachable:
        raise
    except DriverError:
        if details["ran"]:
            _start_again(work)
        raise


def adopt(work: Work) -> None:
    """Mark it as Berth's, and give it the limits that it is on record with."""
    machine = work.instance
    work.progress("preparing", 10)
    work.driver.adopt(machine.name, machine.owner.username)
    work.driver.resize(machine.name, Size(machine.cpus, machine.memory_mib, 0))
    _mirror(work)


def lend_libraries(work: Work) -> None:
    """Give it the host's NVIDIA libraries; whether they are there only from its next start on is kept with the work."""
    work.progress("lending", 20)
    due = work.driver.lend_libraries(work.instance.name)
    with transaction():
        operations.remember(work.operation.id, due=due)
    _mirror(work)


def _start_again(work: Work) -> None:
    """After a restore that did not work: as it was before. Not where GPUs may have come back: then it stays stopped."""
    with suppress(DriverError, KeyError):
        name = work.instance.name
        if not work.driver.survey(frozenset({name})).instances[name].gpus:
            moving_in.start_with_keys(work)


def _snapshots(driver: LxdDriver, instance: str) -> list[str]:
    found = driver.survey(frozenset({instance})).instances.get(instance)
    return [one.name for one in found.snapshots] if found else []


def _mirror(work: Work) -> None:
    """Show at once what changed; what cannot be seen now, the next slow look shows."""
    began = clock.now()
    with suppress(DriverError):
        found = work.driver.survey(frozenset({work.instance.name}))
        with transaction():
            surveys.record_one(work.instance.id, found, began)
