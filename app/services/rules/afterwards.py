"""What rules would have meant for bookings after they were made: to which nobody would have come in time, and what
giving back late would have cost. From what is on record; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Select, func, select
from sqlalchemy.orm import joinedload, selectinload

from app.extensions import db
from app.models import Allocation, AuditEvent, Booking, LedgerEntry, User
from app.services.noshows import NO_SHOW
from app.services.rules import fees, noshow, tariff
from app.services.rules.terms import Rules
from app.services.windows import Window

GIVEN_BACK = ("booking.cancelled", "booking.released", "booking.moved")


@dataclass(frozen=True)
class Ended:
    """How many bookings would have ended by themselves, and the GPU-seconds of time that would have come free.

    `did`: so many did; `unknown`: so many of these would have ended later, and nobody knows what would have come."""

    count: int = 0
    seconds: int = 0
    did: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Ending:
    """A booking until `until`, as it was asked for where it ended by itself at `ended_at`, else as it was. `due`: when
    the rule ends it; None if it does not."""

    gpus: int
    until: datetime
    ended_at: datetime | None
    due: datetime | None


def summed(endings: Iterable[Ending]) -> Ended:
    """What they come to. Pure."""
    count = seconds = did = unknown = 0
    for one in endings:
        did += one.ended_at is not None
        if one.due is None:
            continue
        if one.ended_at is not None and one.due > one.ended_at:
            unknown += 1
        elif one.due < one.until:
            count += 1
            seconds += one.gpus * int((one.until - one.due).total_seconds())
    return Ended(count, seconds, did, unknown)


def no_shows(booking_ids: Sequence[int], rules: Rules) -> Ended:
    """Of these bookings, those to which nobody would have come in time."""
    was = _ended_so(booking_ids)
    return summed(_no_show(booking, rules, was=booking.id in was) for booking in _bookings(booking_ids))


def _no_show(booking: Booking, rules: Rules, *, was: bool) -> Ending:
    until, ended_at = (booking.booked_until, booking.ends_at) if was else (booking.ends_at, None)
    due = None
    if rules.noshow_minutes is not None:
        moment = max(map(noshow.awaited_from, booking.allocations)) + timedelta(minutes=rules.noshow_minutes)
        came = min((one.attached_at for one in booking.allocations if one.attached_at), default=None)
        nobody = moment < came if came is not None else noshow.is_one(booking)
        due = moment if nobody else None
    return Ending(len(booking.allocations), until, ended_at, due)


@dataclass(frozen=True)
class Late:
    """GPU-seconds that giving back late would have cost, for how many bookings; `did`: what it did cost."""

    seconds: int = 0
    bookings: int = 0
    did: int = 0


def late(booking_ids: Sequence[int], rules: Rules, zone: ZoneInfo) -> Late:
    """What it would have cost that owners cancelled, shortened or ended these bookings when they did.

    Without those that were put at another time: what was given back of these is not on record as such."""
    found = {booking.id: booking for booking in _bookings(booking_ids, cancelled=True)}
    undecided = fees.undecided(booking_ids)
    seconds, whose = 0, set[int]()
    for event in db.session.scalars(_by_owners(booking_ids)):
        booking = found[_number(event.target)]
        for given_back, at in _parts(booking, event):
            price = tariff.price(rules, [one.gpu.model for one in booking.allocations], zone)
            fee = fees.amount(rules, price, booking.starts_at, given_back, at)
            open_until = max(undecided.get(booking.id, ()), default=at)
            if fee and open_until <= at and not fees.spared_anyway(booking, at):
                seconds += fee
                whose.add(booking.id)
    paid = select(func.coalesce(-func.sum(LedgerEntry.amount), 0)).where(
        LedgerEntry.booking_id.in_(booking_ids), LedgerEntry.key.startswith("fee:")
    )
    return Late(seconds, len(whose), int(db.session.scalar(paid) or 0))


def _parts(booking: Booking, event: AuditEvent) -> Iterator[tuple[Window, datetime]]:
    """What was given back, and when."""
    if event.action == "booking.cancelled" and booking.cancelled_at is not None:
        yield Window(booking.starts_at, booking.ends_at), booking.cancelled_at
    elif event.action == "booking.released" and booking.released_at is not None:
        yield Window(booking.ends_at, booking.booked_until), booking.released_at
    elif event.action == "booking.moved" and "before_start" not in event.details and "began" not in event.details:
        before, end = (datetime.fromisoformat(event.details[name]) for name in ("before", "ends_at"))
        if end < before:
            yield Window(end, before), event.created_at


def _by_owners(booking_ids: Sequence[int]) -> Select[AuditEvent]:
    """What owners gave back of bookings of theirs: nobody pays for what an admin does."""
    targets = [f"booking:{number}" for number in booking_ids]
    return (
        select(AuditEvent)
        .join(Booking, AuditEvent.target == func.concat("booking:", Booking.id))
        .join(User, (User.id == Booking.user_id) & (User.username == AuditEvent.actor))
        .where(Booking.id.in_(booking_ids), AuditEvent.target.in_(targets), AuditEvent.action.in_(GIVEN_BACK))
        .order_by(AuditEvent.id)
    )


def _ended_so(booking_ids: Sequence[int]) -> set[int]:
    """Those that ended since nobody came."""
    targets = [f"booking:{number}" for number in booking_ids]
    query = select(AuditEvent.target).where(AuditEvent.target.in_(targets), AuditEvent.action == NO_SHOW)
    return {_number(target) for target in db.session.scalars(query)}


def _number(target: str) -> int:
    return int(target.partition(":")[2])


def _bookings(booking_ids: Sequence[int], *, cancelled: bool = False) -> list[Booking]:
    query = (
        select(Booking)
        .where(Booking.id.in_(booking_ids))
        .options(selectinload(Booking.allocations).joinedload(Allocation.gpu), joinedload(Booking.user))
        .order_by(Booking.id)
    )
    if not cancelled:
        query = query.where(Booking.cancelled_at.is_(None))
    return list(db.session.scalars(query))
