"""The database's side of a pass: who should have which GPU now, and what a look at the host showed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.base import GpuInfo, HostSeen, Node, Tag, device_name
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, Instance
from app.services import audit, instances, quota
from app.services.plan import Desired, Plan, Trouble, Want
from app.services.windows import Window


def desired(host: Host) -> Desired:
    """Who should have which GPU of the host now, and the next moment at which that changes."""
    now = clock.now()
    query = (
        select(Allocation)
        .join(Booking)
        .where(
            Booking.host_id == host.id,
            Allocation.released_at.is_(None),
            Allocation.starts_at <= now,
            Allocation.ends_at > now,
        )
        .options(joinedload(Allocation.gpu), joinedload(Allocation.booking).joinedload(Booking.instance))
    )
    allocations = list(db.session.scalars(query))
    machines = _default_machines(host.id, {allocation.booking.user_id for allocation in allocations})
    wants = tuple(_want(allocation, machines) for allocation in allocations)
    gpus = tuple(_info(gpu) for gpu in db.session.scalars(select(Gpu).where(Gpu.host_id == host.id)))
    return Desired(host.id, now, wants, gpus, _next_boundary(host.id, now))


def record(host: Host, want: Desired, before: Plan, seen: HostSeen, errors: dict[int, tuple[Trouble, str]]) -> None:
    """Write what a look at the host, made after acting, showed: `errors` by allocation id. Writes only what changed."""
    actor = f"agent:{host.name}"
    present = {
        device.tag.allocation_id: instance.name
        for instance in seen.instances.values()
        for device in instance.devices
        if device.ours and device.tag is not None and device.node != Node.ABSENT and instance.status == "running"
    }
    waits = {item.want.tag.allocation_id: item.trouble for item in before.waits}
    for allocation in _loaded(item.tag.allocation_id for item in want.wants):
        if allocation.id in present:
            _record_attached(allocation, present[allocation.id], actor)
        else:
            trouble, text = errors.get(allocation.id, (waits.get(allocation.id, Trouble.NO_NODE), ""))
            _record_trouble(allocation, trouble, text)
    record_gone(host, seen)
    settle_ended(host)


def record_gone(host: Host, seen: HostSeen) -> None:
    """Note the detachment of each GPU that was attached, is over, and is no longer seen anywhere on the host."""
    now = clock.now()
    still = {
        (instance.name, device.name)
        for instance in seen.instances.values()
        for device in instance.devices
        if device.ours
    }
    query = (
        select(Allocation)
        .join(Booking)
        .where(
            Booking.host_id == host.id,
            Allocation.attached_at.is_not(None),
            Allocation.detached_at.is_(None),
            or_(Allocation.ends_at <= now, Allocation.released_at.is_not(None)),
        )
        .options(joinedload(Allocation.gpu))
    )
    for allocation in db.session.scalars(query):
        name = device_name(allocation.gpu.pci_address)
        holders = [instance for instance, device in still if device == name]
        tags = {
            device.tag.allocation_id
            for holder in holders
            for device in seen.instances[holder].devices
            if device.name == name and device.tag is not None
        }
        if allocation.id not in tags:
            allocation.detached_at = now
            audit.record(
                f"agent:{host.name}",
                "gpu.detached",
                f"booking:{allocation.booking_id}",
                key=f"detached:{allocation.id}",
                gpu=allocation.gpu_id,
            )
    db.session.flush()


def settle_ended(host: Host, limit: int = 100) -> int:
    """Close the books of the host's bookings that are over; once each. Returns how many."""
    now = clock.now()
    query = (
        select(Booking)
        .where(Booking.host_id == host.id, Booking.settled_at.is_(None), Booking.ends_at <= now)
        .options(selectinload(Booking.allocations))
        .order_by(Booking.ends_at)
        .limit(limit)
        .with_for_update(of=Booking, skip_locked=True)
    )
    ended = list(db.session.scalars(query))
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
    query = select(Allocation).where(Allocation.id.in_(list(ids))).options(joinedload(Allocation.gpu))
    return db.session.scalars(query.with_for_update(of=Allocation)).all()


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
    return dict(db.session.execute(query).tuples().all())


def _next_boundary(host_id: int, now: datetime) -> datetime | None:
    soon = now + timedelta(days=1)
    live = (Booking.host_id == host_id, Booking.cancelled_at.is_(None))
    starts = select(func.min(Booking.starts_at)).where(*live, Booking.starts_at > now, Booking.starts_at < soon)
    ends = select(func.min(Booking.ends_at)).where(*live, Booking.settled_at.is_(None), Booking.ends_at > now)
    moments = [moment for query in (starts, ends) if (moment := db.session.scalar(query)) is not None]
    return min(moments, default=None)
