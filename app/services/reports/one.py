"""What was measured of one booking, by the hour and by the minute: what its three numbers are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import TextClause, text

from app import clock
from app.extensions import db, lab_zone
from app.models import Booking
from app.services.periods import A_DAY, AN_HOUR, midnight
from app.services.reports.numbers import Numbers, total
from app.services.reports.pieces import Key, Scope, numbers
from app.services.reports.spans import Span
from app.services.rules import fees

A_MINUTE = timedelta(minutes=1)
POINTS = 240  # of the curve at most
_HOURS = text("""
SELECT hour, sum(sampled_ms), sum(busy_ms), sum(energy_j), max(memory_mib)
FROM usage_hours JOIN consumers AS c ON c.id = consumer_id
WHERE hour >= :start AND hour < :end AND c.booking_id = :booking GROUP BY hour ORDER BY hour""")
_MINUTES = text("""
SELECT minute, sum(sampled_ms), sum(busy_ms), sum(energy_j), max(memory_mib)
FROM usage_minutes JOIN consumers AS c ON c.id = consumer_id
WHERE gpu_id = ANY(:gpus) AND minute >= :start AND minute < :end AND c.booking_id = :booking
GROUP BY minute ORDER BY minute""")


@dataclass(frozen=True)
class Slice:
    """An hour or a minute of a booking. Reserved and attached as its GPUs' windows have it, the rest as measured."""

    at: datetime
    numbers: Numbers


def whole(booking: Booking) -> Numbers:
    """Its numbers up to now, as every report has them: from whole days, which are kept when minutes are not."""
    zone = lab_zone()
    first, last = (moment.astimezone(zone).date() for moment in (booking.starts_at, booking.ends_at))
    span = Span.of(midnight(first, zone), midnight(last + A_DAY, zone), zone, clock.now())
    return total(numbers(span, Key.NOTHING, Scope(booking_id=booking.id)).values())


def by_hour(booking: Booking) -> list[Slice]:
    """Each hour (UTC's) that it has had of; its allocations must be loaded."""
    start = _floor(booking.starts_at, AN_HOUR)
    end = min(booking.ends_at, clock.now())
    found = _measured(_HOURS, {"start": start, "end": end, "booking": booking.id})
    return list(_slices(booking, start, end, AN_HOUR, found))


def by_minute(booking: Booking, start: datetime, end: datetime) -> list[Slice]:
    """Each minute of a span, none if they are not kept any more."""
    start, end = max(_floor(booking.starts_at, A_MINUTE), start), min(booking.ends_at, clock.now(), end)
    gpus = [one.gpu_id for one in booking.allocations]
    found = _measured(_MINUTES, {"start": start, "end": end, "booking": booking.id, "gpus": gpus})
    return list(_slices(booking, start, end, A_MINUTE, found)) if found else []


def curve(slices: Sequence[Slice]) -> list[float | None]:
    """How busy it was in up to POINTS equal parts of its time, 0 to 1; None where nobody looked."""
    size = max(1, -(-len(slices) // POINTS))
    parts = [total(one.numbers for one in slices[at : at + size]) for at in range(0, len(slices), size)]
    return [min(one.busy / one.sampled, 1.0) if one.sampled > 0 else None for one in parts]


def _measured(query: TextClause, values: dict[str, object]) -> dict[datetime, Numbers]:
    rows = db.session.execute(query, values)
    return {
        at: Numbers(sampled=sampled / 1000, busy=busy / 1000, energy=int(energy), memory=memory)
        for at, sampled, busy, energy, memory in rows
    }


def _slices(
    booking: Booking, start: datetime, end: datetime, step: timedelta, found: dict[datetime, Numbers]
) -> Iterator[Slice]:
    at, untaken = start, fees.untaken(booking)
    while at < end:
        had = Numbers()
        for one in booking.allocations:
            since = one.booked_from or one.starts_at
            reserved = _shared(at, min(at + step, end), since, one.ends_at)
            until = min(one.detached_at or one.ends_at, one.ends_at)
            attached = (
                _shared(at, min(at + step, end), max(one.attached_at, one.starts_at), until) if one.attached_at else 0
            )
            given = one.ends_at if untaken else fees.given_from(one)
            late = _shared(at, min(at + step, end), since, given)
            had += Numbers(reserved=reserved, attached=attached, not_given=late)
        yield Slice(at, had + found.get(at, Numbers()))
        at += step


def _shared(start: datetime, end: datetime, since: datetime, until: datetime) -> float:
    return max(0.0, (min(end, until) - max(start, since)).total_seconds())


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment.replace(minute=moment.minute if step == A_MINUTE else 0, second=0, microsecond=0)
