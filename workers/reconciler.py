"""A pass over one host: load what should be, observe what is, plan, act, and record what a later look saw.

No transaction is open while LXD is asked for anything. Whatever is killed half-way, the next pass starts from what it
then sees, so it ends in the same state.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from app import clock
from app.drivers.base import DriverError, GiveUp, HostSeen, LxdDriver, Node
from app.errors import DomainError
from app.extensions import db, transaction
from app.models import Host, Operation, OperationKind
from app.services import enforcement, instances, inventory, operations
from app.services.plan import Attach, Detach, Plan, Trouble, next_end, plan, plan_alone

log = logging.getLogger(__name__)

AT_ONCE = 8  # GPUs handed over side by side; one instance's updates are serialised by the driver

Errors = dict[int, tuple[Trouble, str]]
"""By allocation id, why its GPU was not plugged in."""


@dataclass(frozen=True)
class PassResult:
    """What a pass did. `ok`: the host and the database could both be reached. `next_boundary`: when to look again."""

    ok: bool
    plan: Plan = field(default_factory=Plan)
    errors: Errors = field(default_factory=dict)
    next_boundary: datetime | None = None
    milliseconds: int = 0
    trouble: str = ""


def run_pass(host_name: str, driver: LxdDriver) -> PassResult:
    """One pass over the host. Needs an app context. Expected trouble is in the result, not raised."""
    started = time.monotonic()
    try:
        with transaction():
            host = inventory.host(host_name)
            inventory.saw_agent(host.id)
            want = enforcement.desired(host)
    except DBAPIError as error:
        db.session.remove()
        return _pass_alone(host_name, driver, started, error)
    todo, errors = Plan(), Errors()
    try:
        seen = driver.observe()
        todo = plan(want, seen)
        errors = act(driver, todo)
        if not todo.quiet:
            seen = _look_again(driver, seen, todo)
    except DriverError as error:  # what was done but not seen, the next pass sees and writes down
        trouble = str(error)
        _note(host_name, lambda host: enforcement.could_not_look(host, want, trouble))
        return PassResult(False, todo, errors, want.next_boundary, _since(started), trouble)

    def write(host: Host) -> None:
        enforcement.record(host, want, seen, errors)
        enforcement.looked(host, _since(started), seen)

    trouble = _note(host_name, write) or _note(host_name, enforcement.settle_ended)
    return PassResult(not trouble, todo, errors, want.next_boundary, _since(started), trouble)


def _note(host_name: str, write: Callable[[Host], object]) -> str:
    """Write down something about the host in a transaction; why it could not be, or "". The next pass makes it good."""
    try:
        with transaction():
            write(inventory.host(host_name))
    except DBAPIError as error:
        log.warning("host %s: what this pass did is not recorded yet: %s", host_name, error)
        db.session.remove()
        return str(error)
    return ""


def act(driver: LxdDriver, todo: Plan) -> Errors:
    """Do what the plan says: per GPU first every detach, then, once it is seen to be gone, the attach."""
    chains: dict[str, tuple[list[Detach], list[Attach]]] = defaultdict(lambda: ([], []))
    for detach in todo.detaches:
        chains[detach.pci_address or detach.device][0].append(detach)
    for attach in todo.attaches:
        chains[attach.want.gpu.pci_address][1].append(attach)
    if not chains:
        return {}
    errors: Errors = {}
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(chains)), thread_name_prefix="gpu") as pool:
        for found in pool.map(lambda chain: _hand_over(driver, *chain), chains.values()):
            errors.update(found)
    return errors


def _hand_over(driver: LxdDriver, detaches: list[Detach], attaches: list[Attach]) -> Errors:
    """One GPU: out of every instance that should not have it, then into the one that should."""
    try:
        for item in detaches:
            driver.detach(item.instance, item.device)
            _require_gone(driver, item)
    except DriverError as error:
        log.warning("detach of %s from %s: %s", item.device, item.instance, error)
        return {attach.want.tag.allocation_id: (Trouble.HELD, str(error)) for attach in attaches}
    errors: Errors = {}
    for attach in attaches:
        want = attach.want
        try:
            driver.attach(want.instance or "", want.gpu, want.tag)
        except DriverError as error:
            log.warning("attach of %s to %s: %s", want.device, want.instance, error)
            errors[want.tag.allocation_id] = (Trouble.ERROR, f"{error} {error.todo}".strip())
    return errors


def _require_gone(driver: LxdDriver, item: Detach) -> None:
    """LXD's "done" is not believed: the device and its node must be seen to be gone. Raises DriverError."""
    seen = driver.observe(frozenset({item.instance})).instances.get(item.instance)
    for device in seen.devices if seen else ():
        if device.name == item.device and (device.configured or device.node == Node.PRESENT):
            raise GiveUp(f"{item.device} is still in {item.instance}", "LXD said that it was removed")


def _look_again(driver: LxdDriver, before: HostSeen, todo: Plan) -> HostSeen:
    """The host as it is now: the instances that were touched are looked at anew."""
    touched = {item.instance for item in todo.detaches}
    touched |= {item.want.instance for item in todo.attaches if item.want.instance}
    now = driver.observe(frozenset(touched)).instances
    kept = {name: seen for name, seen in before.instances.items() if name not in touched}
    return HostSeen({**kept, **now})


def _pass_alone(host_name: str, driver: LxdDriver, started: float, error: Exception) -> PassResult:
    """A pass without the database: bookings still end on time, by what the instances carry, and none begins."""
    log.warning("host %s: the database is away, ending what has ended and starting nothing: %s", host_name, error)
    try:
        seen = driver.observe()
        todo = plan_alone(seen, clock.now())
        act(driver, todo)
        boundary = next_end(seen, clock.now())
    except DriverError as trouble:
        return PassResult(False, milliseconds=_since(started), trouble=str(trouble))
    return PassResult(False, todo, {}, boundary, _since(started), "the database is away")


def run_operations(host_name: str, driver: LxdDriver) -> int:
    """Do the host's queued operations, one after the other. Needs an app context. Returns how many were done."""
    done = 0
    while True:
        with transaction():
            host = inventory.host(host_name)
            operation = operations.claim(host.id)
        if operation is None:
            return done
        error = _perform(operation, driver)
        with transaction():
            operations.finish(operation.id, f"agent:{host_name}", error)
        done += 1


def _perform(operation: Operation, driver: LxdDriver) -> str:
    """Do one operation; the error's text, or "" when it worked."""

    def progress(step: str, percent: int) -> None:
        with transaction():
            operations.progress(operation.id, step, percent)

    name = operation.instance.name
    try:
        match operation.kind:
            case OperationKind.CREATE:
                driver.create(instances.spec(operation.instance), progress)
            case OperationKind.START:
                progress("starting", 10)
                driver.start(name)
            case OperationKind.STOP:
                progress("stopping", 10)
                driver.stop(name, force=bool(operation.details.get("force")))
            case OperationKind.RESTART:
                progress("stopping", 10)
                driver.restart(name)
            case OperationKind.DELETE:
                progress("deleting", 10)
                driver.delete(name)
    except DriverError as error:
        return f"{str(error).rstrip('.')}. {error.todo}".strip()
    except DomainError as error:
        return str(error)
    return ""


def describe(result: PassResult) -> list[str]:
    """What a pass did, a line each, for a terminal."""
    lines = [f"detached {item.device} from {item.instance}" for item in result.plan.detaches]
    lines += [
        f"attached {item.want.device} to {item.want.instance}"
        for item in result.plan.attaches
        if item.want.tag.allocation_id not in result.errors
    ]
    lines += [f"not attached {item.want.device}: {item.trouble}" for item in result.plan.waits]
    lines += [f"not attached (allocation {key}): {why} {text}" for key, (why, text) in result.errors.items()]
    lines += [f"foreign {item.device} on {item.instance}, left alone" for item in result.plan.foreign]
    return lines


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
