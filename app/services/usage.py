"""What bookings had of a span: reserved, attached and busy; nothing here lies in the future."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import joinedload

from app import clock
from app.extensions import db, lab_zone
from app.models import Allocation, Booking, User
from app.services.reports.numbers import Numbers
from app.services.reports.pieces import Key, Scope, numbers
from app.services.reports.spans import Span


@dataclass(frozen=True)
class BookingUsage:
    """One booking's part in a span."""

    booking: Booking
    gpu_ids: tuple[int, ...]
    numbers: Numbers

    @property
    def measured(self) -> bool:
        """Whether anybody looked at what its GPUs did."""
        return self.numbers.sampled > 0


def by_booking(start: datetime, end: datetime, user: User | None = None) -> list[BookingUsage]:
    """Everybody's or one person's bookings of what is past of the span, in order of start; cancelled ones used nothing.

    A minute counts where it begins; hours and minutes that are not kept any more are unknown, not idle."""
    span, scope = Span.of(start, end, lab_zone(), clock.now()), Scope(user_id=user.id if user else None)
    if span.until <= start:
        return []
    window = Allocation.starts_at, Allocation.booked_from
    query = select(Allocation.booking_id, Allocation.gpu_id, Allocation.instead_of_id, *window)
    query = query.where(*_within(start, span.until))
    if user is not None:
        query = query.join(Booking).where(Booking.user_id == user.id)
    gpus: dict[int, set[int]] = defaultdict(set)
    for booking_id, gpu_id, booked_id, since, booked_from in db.session.execute(query):
        if since < span.until:
            gpus[booking_id].add(gpu_id)
        if booked_from is not None and booked_from < span.until and since > start:
            gpus[booking_id].add(booked_id or gpu_id)
    found = numbers(span, Key.BOOKING, scope)
    bookings = (
        select(Booking)
        .where(Booking.id.in_(gpus))
        .options(joinedload(Booking.user), joinedload(Booking.host))
        .order_by(Booking.starts_at, Booking.id)
    )
    return [
        BookingUsage(one, tuple(sorted(gpus[one.id])), found.get((one.id, 0), Numbers()))
        for one in db.session.scalars(bookings)
    ]


def bookings_of(start: datetime, end: datetime, user_ids: Iterable[int]) -> dict[int, tuple[str, int]]:
    """These people's usernames, and how many bookings each had in the span."""
    query = (
        select(User.id, User.username, func.count(func.distinct(Allocation.booking_id)))
        .join(Booking, Booking.user_id == User.id)
        .join(Allocation)
        .where(*_within(start, end))
        .where(User.id.in_(list(user_ids)))
        .group_by(User.id)
    )
    return {number: (name, count) for number, name, count in db.session.execute(query)}


def _within(start: datetime, end: datetime) -> tuple[ColumnElement[bool], ...]:
    """Of an allocation: that it lies in a span, with what it lost before its GPU was replaced."""
    begun = or_(Allocation.starts_at < end, Allocation.booked_from < end)
    return Allocation.released_at.is_(None), begun, Allocation.ends_at > start
