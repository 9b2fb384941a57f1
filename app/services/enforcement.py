"""What a pass goes by: who should have which GPU of a host now, what has to be free, and when that changes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.base import GpuInfo, HostSeen, Tag
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Host, Instance
from app.services import endings, policy
from app.services.endings import End
from app.services.plan import Desired, Ending, Want

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


def marked(want: Desired, seen: HostSeen) -> Desired:
    """The same where an instance that does not bear its owner's mark is nobody's machine, whatever it is called. Where
    LXD was never heard its name has to do."""
    if not seen.looked:
        return want
    others = {(item.instance, item.owner) for item in want.wants if item.owner and item.instance in seen.instances}
    others -= {(name, instance.owner) for name, instance in seen.instances.items()}
    wants = (replace(one, instance=None) if (one.instance, one.owner) in others else one for one in want.wants)
    return replace(want, wants=tuple(wants))


def _running(host: Host, now: datetime) -> list[Allocation]:
    """What somebody has now. By the bookings that are not settled: they are few, whatever is stored."""
    live = (Allocation.released_at.is_(None), Allocation.starts_at <= now, Allocation.ends_at > now)
    return list(db.session.scalars(on(host).where(*live, Booking.settled_at.is_(None), Booking.ends_at > now)))


def _over(host: Host, now: datetime) -> list[Allocation]:
    """What was attached, is over, and is not seen to be gone."""
    return list(db.session.scalars(on(host).where(*not_gone(now)).order_by(Allocation.id)))


def on(host: Host) -> Select[Allocation]:
    """The host's allocations, with GPU, booking and the machine that it names."""
    return (
        select(Allocation)
        .join(Booking)
        .where(Booking.host_id == host.id)
        .options(
            joinedload(Allocation.gpu),
            joinedload(Allocation.booking).joinedload(Booking.instance).joinedload(Instance.owner),
            joinedload(Allocation.booking).joinedload(Booking.user),
        )
    )


def _ends_of(allocations: Sequence[Allocation]) -> dict[int, End]:
    """How the bookings of these end, by booking id."""
    ids = {allocation.booking_id for allocation in allocations}
    query = select(Booking).where(Booking.id.in_(ids)).options(selectinload(Booking.allocations))
    return endings.ends_of(db.session.scalars(query)) if ids else {}


def not_gone(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """The condition for allocations that were attached, are over, and are not seen to be gone."""
    return (
        Allocation.attached_at.is_not(None),
        Allocation.detached_at.is_(None),
        or_(Allocation.ends_at <= now, Allocation.released_at.is_not(None)),
    )


def due(allocations: Sequence[Allocation]) -> dict[int, datetime]:
    """By id, when each that was attached should be free: at its end or, where something on it was asked to end, once
    that has had the time for it that the rules give."""
    ends = _ends_of([one for one in allocations if one.asked_at])
    return {
        one.id: _killed_at(one, ends) if one.asked_at else min(one.released_at or one.ends_at, one.ends_at)
        for one in allocations
    }


def _asked_at(allocation: Allocation, ends: Mapping[int, End]) -> datetime:
    return ends[allocation.booking_id].grace.asked_at(allocation.ends_at)


def _killed_at(allocation: Allocation, ends: Mapping[int, End]) -> datetime:
    return ends[allocation.booking_id].grace.killed_at(allocation.ends_at)


def _ending(allocation: Allocation, machines: dict[int, str], ends: Mapping[int, End]) -> Ending:
    want = _want(allocation, machines)
    return Ending(want.gpu, want.instance, want.tag, _killed_at(allocation, ends))


def _want(allocation: Allocation, machines: dict[int, str]) -> Want:
    booking = allocation.booking
    chosen = booking.named
    name = chosen.name if chosen else machines.get(booking.user_id)
    owner = (chosen.owner if chosen else booking.user).username
    tag = Tag(booking.id, allocation.id, int(allocation.ends_at.timestamp()))
    return Want(_info(allocation.gpu), name, tag, owner if name else "")


def _info(gpu: Gpu) -> GpuInfo:
    return GpuInfo(gpu.pci_address, gpu.model, gpu.minor, gpu.uuid)


def _default_machines(host_id: int, user_ids: set[int]) -> dict[int, str]:
    """Each person's oldest machine on the host: where their GPUs go unless the booking names another."""
    query = (
        select(Instance.owner_id, Instance.name)
        .where(Instance.host_id == host_id, Instance.owner_id.in_(user_ids), Instance.takes_gpus)
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
