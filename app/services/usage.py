"""What was booked and what was seen attached, in GPU-seconds within a span; nothing here lies in the future.

Whether a GPU was at work as well is not measured yet, so `busy` is None everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, User


@dataclass(frozen=True)
class BookingUsage:
    """One booking's GPU-seconds within a span."""

    booking: Booking
    gpu_ids: tuple[int, ...]
    reserved: int
    attached: int
    busy: int | None = None


@dataclass(frozen=True)
class PersonUsage:
    """One person's GPU-seconds within a span, over all their bookings in it."""

    username: str
    name: str
    bookings: int
    reserved: int
    attached: int


def by_booking(start: datetime, end: datetime, user: User | None = None) -> list[BookingUsage]:
    """Everybody's or one person's bookings of the span, in order of start; cancelled ones used nothing."""
    query = (
        select(Allocation)
        .join(Booking)
        .where(
            Allocation.released_at.is_(None),
            Allocation.starts_at < end,
            Allocation.ends_at > start,
        )
        .options(
            joinedload(Allocation.booking).joinedload(Booking.user),
            joinedload(Allocation.booking).joinedload(Booking.host),
        )
        .order_by(Booking.starts_at, Booking.id, Allocation.gpu_id)
    )
    if user is not None:
        query = query.where(Booking.user_id == user.id)
    grouped: dict[int, list[Allocation]] = defaultdict(list)
    for allocation in db.session.scalars(query):
        grouped[allocation.booking_id].append(allocation)
    now = clock.now()
    return [_of_booking(allocations, start, min(end, now)) for allocations in grouped.values()]


def by_person(start: datetime, end: datetime) -> list[PersonUsage]:
    """Who booked and used how much in the span, most first."""
    grouped: dict[int, list[BookingUsage]] = defaultdict(list)
    for one in by_booking(start, end):
        grouped[one.booking.user_id].append(one)
    people = [_of_person(own) for own in grouped.values()]
    return sorted(people, key=lambda person: (-person.reserved, person.username))


def _of_booking(allocations: list[Allocation], start: datetime, end: datetime) -> BookingUsage:
    return BookingUsage(
        booking=allocations[0].booking,
        gpu_ids=tuple(allocation.gpu_id for allocation in allocations),
        reserved=sum(_shared(start, end, one.starts_at, one.ends_at) for one in allocations),
        attached=sum(
            _shared(start, end, one.attached_at, one.detached_at or end) for one in allocations if one.attached_at
        ),
    )


def _of_person(own: Iterable[BookingUsage]) -> PersonUsage:
    usages = list(own)
    user = usages[0].booking.user
    return PersonUsage(
        username=user.username,
        name=user.display_name,
        bookings=len(usages),
        reserved=sum(one.reserved for one in usages),
        attached=sum(one.attached for one in usages),
    )


def _shared(start: datetime, end: datetime, since: datetime, until: datetime) -> int:
    """Whole seconds that two spans share."""
    return max(0, round((min(end, until) - max(start, since)).total_seconds()))
