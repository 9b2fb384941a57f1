"""The database's side of a pass: who should have which GPU now, and what a look at the host showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.base import GpuInfo, HostSeen, Node, Tag, device_name
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Host, Instance
from app.services import audit, endings, instances, policy, quota
from app.services.endings import End
from app.services.plan import Desired, Ending, Trouble, Want, is_in, plan
from app.services.windows import Window

T = TypeVar("T")
LOOK_AHEAD = timedelta(days=1)


def desired(host: Host) -> Desired:
    """Who should have which GPU of the host now, what has to be free, and the next moment at which that changes."""
    now, rules = clock.now(), policy.current()
    running, over = _running(host, now), _over(host, now)
    ends = _ends_of(running + over)
    machines = _default_machines(host.id, {allocation.booking.user_id for allocation in running + over})
    gpus = list(db.session.scalars(select(Gpu).where(Gpu.host_id == host.id)))
    followed = [a for a in running if ends[a.booking_id].grace.before and a.id in ends[a.booking_id].goes]
    soon = [a for a in followed if a.attached_at and not a.asked_at and _asked_at(a, ends) <= now]
    left = [a for a in over if a.id in ends[a.booking_id].goes]
    moments = [
        _next_boundary(host.id, now),
        *(_asked_at(a, ends) for a in followed),
        *(_killed_at(a, ends) for a in left),
    ]
    return Desired(
        host.id,
        now,
        tuple(_want(allocation, machines) for allocation in running),
        tuple(_info(gpu) for gpu in gpus),
        min((moment for moment in moments if moment is not None and moment > now), default=None),
        tuple(_ending(allocation, machines, ends) for allocation in left),
        tuple(_ending(allocation, machines, ends) for allocation in soon),
        frozenset(gpu.pci_address for gpu in gpus if gpu.state != GpuState.MAINTENANCE),
        frozenset(gpu.pci_address for gpu in gpus if gpu.state == GpuState.QUARANTINE),
        rules.grace_seconds,
        rules.force_stop,
    )


def _running(host: Host, now: datetime) -> list[Allocation]:
    """What somebody has now."""
    live = (Allocation.released_at.is_(None), Allocation.starts_at <= now, Allocation.ends_at > now)
    return list(db.session.scalars(_on(host).where(*live)))


def _over(host: Host, now: datetime) -> list[Allocation]:
    """What was attached, is over, and is not seen to be gone."""
    return list(db.session.scalars(_on(host).where(*_not_gone(now)).order_by(Allocation.id)))


def _on(host: Host) -> Select[Allocation]:
    return (
        select(Allocation)
        .join(Booking)
        .where(Booking.host_id == host.id)
        .options(
            joinedload(Allocation.gpu),
            joinedload(Allocation.booking).joinedload(Booking.instance),
        )
    )


def _ends_of(allocations: Sequence[Allocation]) -> dict[int, End]:
    """How the bookings of these end, by booking id."""
    ids = {allocation.booking_id for allocation in allocations}
    query = select(Booking).where(Booking.id.in_(ids)).options(selectinload(Booking.allocations))
    return endings.ends_of(db.session.scalars(query)) if ids else {}


def _not_gone(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Allocation.attached_at.is_not(None),
        Allocation.detached_at.is_(None),
        or_(Allocation.ends_at <= now, Allocation.released_at.is_not(None)),
    )


def _asked_at(allocation: Allocation, ends: Mapping[int, End]) -> datetime:
    return ends[allocation.booking_id].grace.asked_at(allocation.ends_at)


def _killed_at(allocation: Allocation, ends: Mapping[int, End]) -> datetime:
    return ends[allocation.booking_id].grace.killed_at(allocation.ends_at)


def _ending(allocation: Allocation, machines: dict[int, str], ends: Mapping[int, End]) -> Ending:
    want = _want(allocation, machines)
    return Ending(want.gpu, want.instance, want.tag, _killed_at(allocation, ends))


def record(
    host: Host,
    want: Desired,
    seen: HostSeen,
    errors: dict[int, tuple[Trouble, str]],
    free: Mapping[str, datetime] | None = None,
) -> None:
    """Write what a look at the host, made after acting, showed: `errors` by allocation id. Writes only what changed.

    `free`: by PCI address, when each GPU was proven free; None where LXD's word has to do."""
    left = plan(want, seen)
    waits = {item.want.tag.allocation_id: item.trouble for item in left.waits}
    wants = {item.tag.allocation_id: item for item in want.wants}
    for allocation in _loaded(wants):
        wanted = wants[allocation.id]
        if allocation.id not in waits and is_in(wanted, seen):
            _record_attached(allocation, wanted.instance or "", f"agent:{host.name}")
        else:
            trouble, text = waits.get(allocation.id, Trouble.NO_NODE), ""
            _record_trouble(allocation, *errors.get(allocation.id, (trouble, text)))
    record_gone(host, want, seen, free)


def record_gone(host: Host, want: Desired, seen: HostSeen, free: Mapping[str, datetime] | None) -> None:
    """Note the detachment of each GPU that was attached, is over, and was proven free, or goes on in the next booking.

    A device or a bare node that says of itself whose it is blocks that one only; one that does not say, blocks.
    """
    now = clock.now()
    leaving = {ending.tag.allocation_id for ending in want.endings}
    query = _on(host).where(*_not_gone(now)).order_by(Allocation.id)
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
            audit.record(
                f"agent:{host.name}",
                "gpu.detached",
                f"booking:{allocation.booking_id}",
                key=f"detached:{allocation.id}",
                gpu=allocation.gpu_id,
            )
    db.session.flush()


def record_asked(allocation_ids: Iterable[int]) -> None:
    """Note when what holds these GPUs was first asked to end."""
    for allocation in _loaded(allocation_ids):
        allocation.asked_at = allocation.asked_at or clock.now()
    db.session.flush()


def settle_ended(host: Host, limit: int = 100) -> int:
    """Close the books of the host's bookings that are over; once each. Returns how many.

    In a transaction of its own: it locks several accounts, in order, and then their bookings, as all who change both.
    """
    now = clock.now()
    due = (Booking.host_id == host.id, Booking.settled_at.is_(None), Booking.ends_at <= now)
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
        used = len(booking.allocations) * Window(booking.starts_at, booking.ends_at).seconds
        quota.settle(booking, used, actor=audit.SYSTEM)
        booking.settled_at = now
        audit.record(
            audit.SYSTEM, "booking.settled", f"booking:{booking.id}", key=f"settled:{booking.id}", seconds=used
        )
    db.session.flush()
    return len(ended)


def looked(host: Host, milliseconds: int, seen: HostSeen) -> None:
    """Note that a pass could look at the host, how long it took, and how its machines are."""
    host.pass_at, host.pass_ms, host.trouble = clock.now(), milliseconds, ""
    instances.record_statuses(host.id, {name: instance.status for name, instance in seen.instances.items()})


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


def _record_trouble(allocation: Allocation, trouble: Trouble, text: str) -> None:
    if (allocation.trouble, allocation.trouble_text) != (trouble, text[:500]):
        allocation.trouble, allocation.trouble_text = trouble, text[:500]
        allocation.trouble_at = clock.now() if trouble else None


def _want(allocation: Allocation, machines: dict[int, str]) -> Want:
    booking = allocation.booking
    chosen = booking.instance.name if booking.instance and booking.instance.deleted_at is None else None
    tag = Tag(booking.id, allocation.id, int(allocation.ends_at.timestamp()))
    return Want(_info(allocation.gpu), chosen or machines.get(booking.user_id), tag)


def _info(gpu: Gpu) -> GpuInfo:
    return GpuInfo(gpu.pci_address, gpu.model, gpu.minor, gpu.uuid)


def _default_machines(host_id: int, user_ids: set[int]) -> dict[int, str]:
    """Each person's oldest machine on the host: where their GPUs go unless the booking names another."""
    query = (
        select(Instance.owner_id, Instance.name)
        .where(Instance.host_id == host_id, Instance.owner_id.in_(user_ids), Instance.deleted_at.is_(None))
        .order_by(Instance.id.desc())
    )
    return {owner_id: name for owner_id, name in db.session.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def _next_boundary(host_id: int, now: datetime) -> datetime | None:
    soon = now + LOOK_AHEAD
    live = (Booking.host_id == host_id, Booking.settled_at.is_(None))  # as a cancelled one never is
    starts = select(func.min(Booking.starts_at)).where(*live, Booking.starts_at > now, Booking.starts_at < soon)
    ends = select(func.min(Booking.ends_at)).where(*live, Booking.ends_at > now)
    moments = [moment for query in (starts, ends) if (moment := db.session.scalar(query)) is not None]
    return min(moments, default=None)
