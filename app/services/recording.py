"""What a pass writes: what a look at the host, made after acting, showed; and the books of what is over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.base import HostSeen, Node, device_name
from app.extensions import db, settings
from app.models import Allocation, Booking, Host, Operation, OperationState
from app.services import audit, charges, instances, operations, quota
from app.services.enforcement import not_gone, on
from app.services.plan import Desired, Trouble, is_in, plan
from app.services.rules.fees import OWN_TROUBLE, PROMPT

T = TypeVar("T")


@dataclass(frozen=True)
class Late:
    """How long after it was due a GPU was seen attached (`what`: attach) or free (detach), in seconds."""

    what: str
    seconds: float


def record(
    host: Host,
    want: Desired,
    seen: HostSeen,
    errors: dict[int, tuple[Trouble, str]],
    free: Mapping[str, datetime] | None = None,
) -> list[Late]:
    """Write what a look at the host, made after acting, showed: `errors` by allocation id. Writes only what changed.
    How late each was that is seen attached or gone for the first time; without those that something kept waiting.

    `free`: by PCI address, when each GPU was proven free; None where LXD's word has to do."""
    left, late, anew = plan(want, seen), list[Late](), _after_an_outage(host)
    waits = {item.want.tag.allocation_id: item.trouble for item in left.waits}
    wants = {item.tag.allocation_id: item for item in want.wants}
    for allocation in _loaded(wants):
        wanted = wants[allocation.id]
        if allocation.id not in waits and is_in(wanted, seen):
            if allocation.attached_at is None and allocation.trouble_at is None:
                late.append(Late("attach", max(0.0, (clock.now() - allocation.starts_at).total_seconds())))
            _record_attached(allocation, wanted.instance or "", f"agent:{host.name}")
        else:
            trouble, text = waits.get(allocation.id, Trouble.NO_NODE), ""
            _record_trouble(allocation, *errors.get(allocation.id, (trouble, text)), anew=anew)
    return late + record_gone(host, want, seen, free)


def record_gone(host: Host, want: Desired, seen: HostSeen, free: Mapping[str, datetime] | None) -> list[Late]:
    """Note the detachment of each GPU that was attached, is over, and was proven free, or goes on in the next booking.

    A device or a bare node that says of itself whose it is blocks that one only; one that does not say, blocks.
    """
    now, late = clock.now(), list[Late]()
    leaving = {ending.tag.allocation_id: ending.kill_at for ending in want.endings}
    query = on(host).where(*not_gone(now)).order_by(Allocation.id)
    for allocation in db.session.scalars(_for_writing(query)):
        pci = allocation.gpu.pci_address
        if free is not None and allocation.id in leaving and pci not in free:
            continue
        devices = [
            device
            for instance in seen.instances.values()
            for device in instance.devices
            if device.ours and device.name == device_name(pci) and (device.configured or device.node != Node.COPY)
        ]
        if all(device.tag is not None and device.tag.allocation_id != allocation.id for device in devices):
            allocation.detached_at = max((free or {}).get(pci, now), allocation.attached_at or now)
            due = allocation.released_at or allocation.ends_at
            if allocation.asked_at is not None:  # what was on it had the rules' time to end
                due = leaving.get(allocation.id, due)
            late.append(Late("detach", max(0.0, (allocation.detached_at - due).total_seconds())))
            audit.record(
                f"agent:{host.name}",
                "gpu.detached",
                f"booking:{allocation.booking_id}",
                key=f"detached:{allocation.id}",
                gpu=allocation.gpu_id,
            )
    db.session.flush()
    return late


def record_asked(allocation_ids: Iterable[int]) -> None:
    """Note when what holds these GPUs was first asked to end."""
    for allocation in _loaded(allocation_ids):
        allocation.asked_at = allocation.asked_at or clock.now()
    db.session.flush()


def unsettled(ago: timedelta) -> list[int]:
    """The ids of the hosts with bookings whose books are still open `ago` after their end."""
    due = (Booking.settled_at.is_(None), Booking.ends_at <= clock.now() - ago)
    return list(db.session.scalars(select(Booking.host_id).where(*due).distinct().order_by(Booking.host_id)))


def settle_ended(host: Host, limit: int = 100, ago: timedelta = timedelta(0)) -> int:
    """Close the books of the host's bookings that are over, for so long at least; once each. Returns how many.

    In a transaction of its own: it locks several accounts, in order, and then their bookings, as all who change both.
    """
    now = clock.now()
    due = (Booking.host_id == host.id, Booking.settled_at.is_(None), Booking.ends_at <= now - ago)
    first = select(Booking.id, Booking.account_id).where(*due).order_by(Booking.ends_at, Booking.id).limit(limit)
    found = db.session.execute(first).all()
    for account_id in sorted({row.account_id for row in found}):
        quota.lock(account_id)
    query = (
        select(Booking)
        .where(*due, Booking.id.in_([row.id for row in found]))
        .options(selectinload(Booking.allocations))
        .order_by(Booking.id)
    )
    ended = db.session.scalars(_for_writing(query)).all() if found else []
    for booking in ended:
        charged = charges.of(booking)
        quota.settle(booking, charged.seconds, actor=audit.SYSTEM, note=charged.note)
        booking.settled_at = now
        target, key = f"booking:{booking.id}", f"settled:{booking.id}"
        audit.record(audit.SYSTEM, "booking.settled", target, key=key, seconds=charged.seconds)
    db.session.flush()
    return len(ended)


def looked(host: Host, milliseconds: int, seen: HostSeen, began: datetime, trouble: str = "") -> None:
    """Note that a pass, which began then, could look at the host, how long it took, and how its machines are.
    `trouble`: why it could not be told who holds its GPUs."""
    _note_halfway(host, seen.instances.keys(), began)
    host.pass_at, host.pass_ms, host.trouble = clock.now(), milliseconds, trouble[:500]
    statuses = {(name, instance.owner): instance.status for name, instance in seen.instances.items()}
    instances.record_statuses(host.id, statuses, began)


def _note_halfway(host: Host, there: Collection[str], began: datetime) -> None:
    """Keep of a rebuild or a move that failed since the last look at the host began, and before this one did, that its
    machine's name is not `there` (see care.halfway): it may be days that nobody could look."""
    query = (
        select(Operation)
        .where(Operation.host_id == host.id, Operation.kind.in_(operations.UNNAMING))
        .where(Operation.state == OperationState.FAILED, Operation.finished_at <= began)
        .options(joinedload(Operation.instance))
    )
    if host.pass_at is not None:
        query = query.where(Operation.finished_at >= host.pass_at - timedelta(milliseconds=host.pass_ms or 0))
    for operation in db.session.scalars(query):
        if operation.instance is not None and operation.instance.name not in there:
            operations.remember(operation.id, halfway=True)


def could_not_look(host: Host, want: Desired, text: str) -> None:
    """Note that the host could not be looked at: nothing was done, and those who wait are told."""
    host.trouble = text[:500]
    for allocation in _loaded(item.tag.allocation_id for item in want.wants):
        if allocation.attached_at is None:
            _record_trouble(allocation, Trouble.UNREACHABLE, text)
    db.session.flush()


def _loaded(ids: Iterable[int]) -> Sequence[Allocation]:
    query = select(Allocation).where(Allocation.id.in_(list(ids))).order_by(Allocation.id)
    return db.session.scalars(_for_writing(query)).all()


def _for_writing(query: Select[T]) -> Select[T]:
    """The rows locked and as they are now: what this pass read at its beginning may have changed since."""
    row = query.column_descriptions[0]["entity"]
    return query.with_for_update(of=row).execution_options(populate_existing=True)


def _record_attached(allocation: Allocation, instance: str, actor: str) -> None:
    if allocation.attached_at is None:
        allocation.attached_at = clock.now()
        audit.record(
            actor,
            "gpu.attached",
            f"booking:{allocation.booking_id}",
            key=f"attached:{allocation.id}",
            gpu=allocation.gpu_id,
            instance=instance,
        )
    _record_trouble(allocation, Trouble.NONE, "")


def _after_an_outage(host: Host) -> bool:
    """Whether nobody looked at the host for longer than there is between two passes: no machine could take a GPU."""
    longest = PROMPT + timedelta(seconds=settings().tick)
    return host.pass_at is not None and clock.now() - host.pass_at > longest


def _record_trouble(allocation: Allocation, trouble: Trouble, text: str, *, anew: bool = False) -> None:
    """`anew`: where it waits for its owner's machine, that begins now, though it did before (see rules.noshow)."""
    goes_on = (allocation.trouble, allocation.trouble_text) == (trouble, text[:500])
    if trouble in OWN_TROUBLE and allocation.attached_at is None:
        allocation.ready_at = allocation.ready_at or clock.now()
        goes_on = allocation.trouble in OWN_TROUBLE and not anew  # stopped, paused or gone: one and the same wait
    allocation.trouble, allocation.trouble_text = trouble, text[:500]
    if not goes_on:
        allocation.trouble_at = clock.now() if trouble else None
