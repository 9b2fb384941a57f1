"""What was measured of running bookings, and what it says of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Consumer, Idling, Outcome, Policy, Reclaim, UsageMinute
from app.services import policy
from app.services.idle.busy import is_busy
from app.services.idle.judging import HOLE, MINUTE, Minute, Terms, Verdict, judge
from app.services.rules import classes, fees

KNOWN_MS = 30_000  # of a minute that must have been measured for it to be known
FURTHER = timedelta(hours=1)  # to look back beyond the longest time: a warning and its grace lie in it


def running(booking_ids: Iterable[int] | None = None) -> list[Booking]:
    """Bookings that run, were given all their GPUs or lack them by their owners' doing, and are not given back yet."""
    now = clock.now()
    query = (
        select(Booking)
        .where(Booking.settled_at.is_(None), Booking.released_at.is_(None))
        .where(Booking.starts_at <= now, Booking.ends_at > now)
        .options(joinedload(Booking.user), joinedload(Booking.host), selectinload(Booking.allocations))
        .order_by(Booking.id)
        .execution_options(populate_existing=True)
    )
    if booking_ids is not None:
        query = query.where(Booking.id.in_(list(booking_ids)))
    return [booking for booking in db.session.scalars(query) if not fees.not_given(booking)]


def verdicts(bookings: Sequence[Booking]) -> dict[int, Verdict]:
    """By booking id, what can be said of each. Its allocations must be loaded."""
    now, rules, answered = clock.now(), policy.current(), _answered(bookings)
    terms = {booking.id: terms_of(booking, rules, came=booking.id in answered) for booking in bookings}
    farthest = max((one.longest for one in terms.values()), default=timedelta()) + FURTHER
    measured = _measured(bookings, now - farthest, rules.idle_percent)
    found = {}
    for booking in bookings:
        verdict = judge(measured[booking.id], began(booking), now, terms[booking.id])
        if verdict.since is not None and verdict.since <= now - farthest + HOLE:  # it may have been so for longer
            verdict = replace(verdict, since=_last_busy(booking, verdict.since, rules.idle_percent))
        found[booking.id] = verdict
    return found


def began(booking: Booking) -> datetime:
    """Since when it could be used, or was last wanted for longer: nothing before that counts against it."""
    moments = [max(one.starts_at, one.attached_at or one.ready_at or one.starts_at) for one in booking.allocations]
    return max([*moments, *([booking.extended_at] if booking.extended_at else [])])


def terms_of(booking: Booking, lab: Policy, *, came: bool) -> Terms:
    """By its class, or the lab's. `came`: its owner extended or kept it, so that it is none to which nobody came."""
    rules = classes.rules_for(booking.account_id)
    minutes = rules.idle_minutes
    attached = any(one.attached_at for one in booking.allocations)
    sooner = rules.noshow_minutes if attached else None  # without a machine the host's agent ends it: services.noshows
    absent = 0 if came else min(sooner or minutes, minutes)
    return Terms(minutes, max(lab.idle_held_minutes, minutes) if lab.idle_held_minutes else 0, absent)


def _answered(bookings: Sequence[Booking]) -> set[int]:
    """Those of these bookings that their owners extended or kept."""
    mine = Idling.booking_id.in_([booking.id for booking in bookings])
    kept = set(db.session.scalars(select(Idling.booking_id).where(mine, Idling.outcome == Outcome.KEPT)))
    return kept | {one.id for one in bookings if one.extended_at and not _before_it_began(one)}


def _before_it_began(booking: Booking) -> bool:
    """Whether it was last wanted for longer when it had not begun: that says not that one came."""
    return booking.extended_at is not None and booking.extended_at < booking.starts_at


def open_ones(bookings: Sequence[Booking]) -> dict[int, Idling]:
    """By booking id, what is open of each."""
    mine = Idling.booking_id.in_([booking.id for booking in bookings])
    query = select(Idling).where(Idling.outcome == Outcome.OPEN, mine).execution_options(populate_existing=True)
    return {one.booking_id: one for one in db.session.scalars(query)}


def left_alone(bookings: Sequence[Booking]) -> set[int]:
    """Those that their owners keep for now; in a trial also those that were found idle already, as if gone."""
    over: ColumnElement[bool] = Idling.kept_until > clock.now()
    if policy.current().reclaim == Reclaim.TRIAL:
        over = or_(over, Idling.outcome == Outcome.WOULD)
    mine = Idling.booking_id.in_([booking.id for booking in bookings])
    return set(db.session.scalars(select(Idling.booking_id).where(mine, over)))


def keeps_left(booking_id: int) -> int:
    """How often its owner may still say "keep"."""
    query = select(func.count()).where(Idling.booking_id == booking_id, Idling.outcome == Outcome.KEPT)
    return max(0, policy.current().keeps - (db.session.scalar(query) or 0))


def _measured(bookings: Sequence[Booking], since: datetime, percent: int) -> dict[int, list[Minute]]:
    """The minutes that are known, oldest first. A minute of a GPU is known by whoever had it measured; busy is only
    what a booking's own programs did."""
    wanted = {booking.id: len(booking.allocations) for booking in bookings}
    each = (
        minutes_of(wanted, percent)
        .where(UsageMinute.minute >= since, UsageMinute.minute <= clock.now() - MINUTE)
        .subquery()
    )
    gpus = func.count().filter(each.c.known)
    any_busy = func.bool_or(each.c.busy)
    query = (
        select(each.c.booking_id, each.c.minute, any_busy, func.max(each.c.memory), gpus, func.min(each.c.sampled_ms))
        .group_by(each.c.booking_id, each.c.minute)
        .order_by(each.c.booking_id, each.c.minute)
    )
    found: dict[int, list[Minute]] = defaultdict(list)
    for booking_id, minute, was_busy, memory, known, sampled_ms in db.session.execute(query):
        if was_busy or known >= wanted[booking_id]:
            so_far = min(MINUTE, timedelta(milliseconds=sampled_ms))
            found[booking_id].append(Minute(minute, was_busy, memory, so_far))
    return found


def minutes_of(
    booking_ids: Iterable[int], percent: int | ScalarSelect[int]
) -> Select[int, datetime, int, bool, bool, int]:
    """What is on record of each minute of each GPU of these bookings: how much of it was measured, whether that is
    enough to know it, whether its booking's own programs were busy, and the memory that they held, in MiB."""
    own = Consumer.booking_id == Allocation.booking_id
    busy = func.coalesce(func.sum(UsageMinute.busy_ms).filter(own), 0)
    sampled = func.coalesce(func.sum(UsageMinute.sampled_ms).filter(own), 0)
    return (
        select(
            Allocation.booking_id,
            UsageMinute.minute,
            func.sum(UsageMinute.sampled_ms).label("sampled_ms"),
            (func.sum(UsageMinute.sampled_ms) >= KNOWN_MS).label("known"),
            is_busy(busy, sampled, percent).label("busy"),
            func.coalesce(func.max(UsageMinute.memory_mib).filter(own), 0).label("memory"),
        )
        .join(UsageMinute, UsageMinute.gpu_id == Allocation.gpu_id)
        .join(Consumer, Consumer.id == UsageMinute.consumer_id)
        .where(Allocation.booking_id.in_(booking_ids), UsageMinute.minute >= Allocation.starts_at)
        .group_by(Allocation.booking_id, UsageMinute.minute, UsageMinute.gpu_id)
    )


def _last_busy(booking: Booking, idle_at: datetime, percent: int) -> datetime:
    """Since when nothing was done, however long ago; `idle_at`: it was so then already."""
    query = (
        select(func.max(UsageMinute.minute))
        .join(Consumer)
        .where(
            Consumer.booking_id == booking.id,
            UsageMinute.minute < idle_at,
            is_busy(UsageMinute.busy_ms, UsageMinute.sampled_ms, percent),
        )
    )
    last = db.session.scalar(query)
    return max(began(booking), last + MINUTE) if last is not None else began(booking)
