"""What the end of a running booking means: which GPUs go, how long what uses them has to end, and who comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BindParameter, ColumnElement, ScalarSelect, bindparam, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, User
from app.models.base import UtcDateTime
from app.services import policy

SOON = timedelta(minutes=15)
Moment = datetime | BindParameter[datetime]


@dataclass(frozen=True)
class Grace:
    """How long what uses the GPUs has to end, and whether that lies `before` the end, since somebody comes next."""

    seconds: int
    before: bool = False

    def asked_at(self, ends_at: datetime) -> datetime:
        """When it is asked to end."""
        return ends_at - timedelta(seconds=self.seconds) if self.before else ends_at

    def killed_at(self, ends_at: datetime) -> datetime:
        """When what is still there is killed."""
        return self.asked_at(ends_at) + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class End:
    """How a booking ends: `goes`, the allocations whose GPU is taken away. The others go on in the next booking."""

    grace: Grace
    goes: frozenset[int]


@dataclass(frozen=True)
class Soon:
    """A booking of somebody's that ends soon, for the banner: `gpus` of it are taken away. `more`: further ones."""

    booking_id: int
    host: str
    ends_at: datetime
    gpus: int
    more: int = 0


def ends_of(bookings: Iterable[Booking]) -> dict[int, End]:
    """By booking id, how each of them ends; their allocations must be loaded."""
    wanted = {booking.id: booking for booking in bookings}
    seconds = policy.current().grace_seconds
    ours = {allocation.id: booking for booking in wanted.values() for allocation in booking.allocations}
    followed, kept = set(), set()
    for allocation_id, starts_at, user_id, instance_id in _followers(list(ours), seconds):
        booking = ours[allocation_id]
        if user_id != booking.user_id:
            followed.add(booking.id)
        elif starts_at == booking.ends_at and instance_id == booking.instance_id:
            kept.add(allocation_id)
    return {
        number: End(
            Grace(seconds, before=number in followed and seconds > 0),
            frozenset(allocation.id for allocation in booking.allocations if allocation.id not in kept),
        )
        for number, booking in wanted.items()
    }


def next_end(user_id: InstrumentedAttribute[int]) -> ScalarSelect[datetime]:
    """When the first running booking of a person ends, if soon; a part of a query that has the person's id, and is
    given `now` and `soon`."""
    own = (Booking.user_id == user_id, Booking.settled_at.is_(None))  # few are not: there is an index of those
    running = _ends_soon(bindparam("now", type_=UtcDateTime()), bindparam("soon", type_=UtcDateTime()))
    return select(func.min(Booking.ends_at)).where(*own, *running).scalar_subquery()


def soonest(user: User) -> Soon | None:
    """The person's running booking that ends first, if it does so soon and GPUs go with it. One query."""
    now = clock.now()
    after, next_booking = aliased(Allocation), aliased(Booking)
    kept = exists().where(  # in a booking of one's own, in the same machine: nothing is taken away
        after.gpu_id == Allocation.gpu_id,
        after.starts_at == Allocation.ends_at,
        after.released_at.is_(None),
        next_booking.id == after.booking_id,
        next_booking.user_id == Booking.user_id,
        next_booking.instance_id.is_not_distinct_from(Booking.instance_id),
    )
    query = (
        select(Booking.id, Host.name, Booking.ends_at, func.count())
        .join(Host)
        .join(Allocation, Allocation.booking_id == Booking.id)
        .where(Booking.user_id == user.id, Booking.cancelled_at.is_(None), *_ends_soon(now, now + SOON), ~kept)
        .group_by(Booking.id, Host.name)
        .order_by(Booking.ends_at, Booking.id)
    )
    found = db.session.execute(query).all()
    return Soon(*found[0], more=len(found) - 1) if found else None


def booked_instead(booking: Booking) -> list[tuple[Gpu, Gpu]]:
    """GPUs that were given in place of others: what was booked, what was given. No query where there are none."""
    given = {a.instead_of_id: a.gpu for a in booking.allocations if a.instead_of_id is not None}
    if not given:
        return []
    booked = db.session.scalars(select(Gpu).where(Gpu.id.in_(given)).order_by(Gpu.minor))
    return [(gpu, given[gpu.id]) for gpu in booked]


def _ends_soon(now: Moment, soon: Moment) -> tuple[ColumnElement[bool], ...]:
    return Booking.starts_at <= now, Booking.ends_at > now, Booking.ends_at <= soon


def _followers(allocation_ids: Sequence[int], seconds: int) -> list[tuple[int, datetime, int, int | None]]:
    """Who has the GPU of which allocation less than so many seconds after it, or at once: start, owner, instance."""
    after, booking = aliased(Allocation), aliased(Booking)
    gap = after.starts_at - Allocation.ends_at
    query = (
        select(Allocation.id, after.starts_at, booking.user_id, booking.instance_id)
        .join(after, after.gpu_id == Allocation.gpu_id)
        .join(booking, booking.id == after.booking_id)
        .where(
            Allocation.id.in_(allocation_ids),
            after.released_at.is_(None),
            after.starts_at >= Allocation.ends_at,
            after.ends_at > Allocation.ends_at,  # as the index by GPU has it
            gap < timedelta(seconds=max(seconds, 1)),
        )
    )
    return [(number, start, owner, machine) for number, start, owner, machine in db.session.execute(query)]
