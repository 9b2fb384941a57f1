"""What bookings that are over would have been given back for doing nothing, if the rule were another one.

By the minutes that are still kept of them, in stretches of the same kind, so that a month fits into one answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Interval, Subquery, case, func, literal, or_, select
from sqlalchemy.orm import selectinload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Idling, Outcome, Policy, UsageMinute
from app.services import policy
from app.services.idle import sight
from app.services.idle.judging import HELD_MIB, HOLE, MINUTE, Terms
from app.services.rules import fees
from app.services.rules.afterwards import Ended, Ending, summed
from app.services.rules.terms import Rules

T = TypeVar("T")


@dataclass(frozen=True)
class Stretch:
    """Known minutes without a hole in which it was the same all the time, from the minute `first` to the minute `last`.

    `extended`: its owner had wanted it for longer by then."""

    first: datetime
    last: datetime
    minutes: int
    busy: bool
    held: bool
    extended: bool = False


@dataclass(frozen=True)
class Looked:
    """What would have been given back, of the bookings of which there are minutes; there are none of `unmeasured`."""

    ended: Ended
    unmeasured: int = 0


def look(booking_ids: Sequence[int], rules: Rules) -> Looked:
    """Hold the rules of a class against bookings that ran; as if no owner had said "keep"."""
    over = Booking.cancelled_at.is_(None), Booking.ends_at <= clock.now()
    query = select(Booking).where(Booking.id.in_(booking_ids), *over)
    found = list(db.session.scalars(query.options(selectinload(Booking.allocations)).order_by(Booking.id)))
    given = [one for one in found if not fees.not_given(one) and any(gpu.attached_at for gpu in one.allocations)]
    stretches, lab = _stretches([booking.id for booking in given]), policy.current()
    mine = Idling.booking_id.in_([booking.id for booking in given])
    was = set(db.session.scalars(select(Idling.booking_id).where(mine, Idling.outcome == Outcome.RECLAIMED)))
    measured = [booking for booking in given if booking.id in stretches]
    endings = (_ending(booking, stretches[booking.id], rules, lab, was) for booking in measured)
    return Looked(summed(endings), len(given) - len(measured))


def due(stretches: Sequence[Stretch], began: datetime, terms: Terms, grace: int) -> datetime | None:
    """When a booking is given back that did this, was to be used since `began` and is given `grace` minutes after its
    owner was told; None for never. Pure; the same as `judging.judge` says minute by minute."""
    total = free = 0  # minutes in which nothing was done, and those since memory was last held
    used, before = False, None
    for one in stretches:
        if before is None or one.busy or one.extended != before.extended or one.first - before.last > HOLE + MINUTE:
            total = free = 0
        used, before = used or one.busy or one.held, one
        if one.busy:
            continue
        came = used or one.extended or stretches[0].first - began >= HOLE + MINUTE
        needed = terms.minutes if came or not terms.absent else terms.absent
        ways = [] if one.held else [needed + grace - free]
        ways += [terms.held + grace - total] if terms.held else []
        if ways and min(ways) <= one.minutes:
            return one.first + MINUTE * max(min(ways), 0)
        total, free = total + one.minutes, 0 if one.held else free + one.minutes
    return None


def _ending(booking: Booking, stretches: Sequence[Stretch], rules: Rules, lab: Policy, was: Collection[int]) -> Ending:
    minutes, attached = rules.idle_minutes, any(one.attached_at for one in booking.allocations)
    sooner = rules.noshow_minutes if attached else None
    held = max(lab.idle_held_minutes, minutes) if lab.idle_held_minutes else 0
    terms = Terms(minutes, held, min(sooner or minutes, minutes))
    began = max(max(one.starts_at, one.attached_at or one.ready_at or one.starts_at) for one in booking.allocations)
    moment = due(stretches, began, terms, lab.idle_grace)
    gpus, ended = len(booking.allocations), booking.ends_at
    if booking.id not in was:
        return Ending(gpus, ended, None, moment)
    return Ending(gpus, booking.booked_until, ended, moment or booking.booked_until)


def _stretches(booking_ids: Sequence[int]) -> dict[int, list[Stretch]]:
    minutes = _minutes(booking_ids)

    def before(column: ColumnElement[T]) -> ColumnElement[T]:
        return func.lag(column).over(partition_by=minutes.c.booking_id, order_by=minutes.c.minute)

    kinds = (minutes.c.busy, minutes.c.held, minutes.c.extended)
    hole = literal(HOLE + MINUTE, Interval())
    anew = or_(*(kind != before(kind) for kind in kinds), minutes.c.minute - before(minutes.c.minute) > hole)
    marked = select(minutes, case((anew, 1), else_=0).label("anew")).subquery()
    number = func.sum(marked.c.anew).over(partition_by=marked.c.booking_id, order_by=marked.c.minute)
    told = select(marked, number.label("number")).subquery()
    key = (told.c.booking_id, told.c.number)
    kinds = (told.c.busy, told.c.held, told.c.extended)
    query = select(
        told.c.booking_id, func.min(told.c.minute), func.max(told.c.minute), func.count(), *map(func.bool_or, kinds)
    )
    found: dict[int, list[Stretch]] = defaultdict(list)
    for booking_id, *values in db.session.execute(query.group_by(*key).order_by(*key)):
        found[booking_id].append(Stretch(*values))
    return found


def _minutes(booking_ids: Sequence[int]) -> Subquery:
    """The known minutes of each booking until its end: in which any of its GPUs was busy, or all are known."""
    since = func.coalesce(Allocation.attached_at, Allocation.ready_at, Allocation.starts_at)
    minutes = sight.minutes_of(booking_ids, policy.current().idle_percent)
    each = minutes.where(UsageMinute.minute >= since, UsageMinute.minute < Allocation.ends_at).subquery()
    counted = select(Allocation.booking_id, func.count().label("gpus")).group_by(Allocation.booking_id)
    gpus = counted.where(Allocation.booking_id.in_(booking_ids)).subquery()
    busy = func.bool_or(each.c.busy)
    came = Booking.extended_at >= Booking.starts_at  # as `sight` has it: before it began that says not that one came
    return (
        select(
            each.c.booking_id,
            each.c.minute,
            busy.label("busy"),
            (func.max(each.c.memory) >= HELD_MIB).label("held"),
            func.coalesce((each.c.minute >= Booking.extended_at) & came, False).label("extended"),
        )
        .join(gpus, gpus.c.booking_id == each.c.booking_id)
        .join(Booking, Booking.id == each.c.booking_id)
        .group_by(each.c.booking_id, each.c.minute, gpus.c.gpus, Booking.id)
        .having(or_(busy, func.count().filter(each.c.known) >= gpus.c.gpus))
        .subquery()
    )
