"""What was given back for doing nothing, or would have been: for admins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Consumer, Idling, Outcome, UsageMinute
from app.services import policy

DAYS = 30
MOST = 200
SHOWN = (Outcome.RECLAIMED, Outcome.WOULD, Outcome.KEPT)


@dataclass(frozen=True)
class Found:
    """One of them. `busy_after`: seconds for which its GPUs were busy later, when nothing had been taken; None where
    that is not kept any more."""

    idling: Idling
    busy_after: int | None


@dataclass(frozen=True)
class Sums:
    """How many bookings, and GPU-seconds."""

    count: int = 0
    seconds: int = 0


def latest() -> list[Found]:
    """Those of the last DAYS days, newest first, MOST at most."""
    query = (
        select(Idling)
        .where(Idling.outcome.in_(SHOWN), Idling.closed_at > _since())
        .options(
            joinedload(Idling.booking).options(
                joinedload(Booking.user), joinedload(Booking.host), selectinload(Booking.allocations)
            )
        )
        .order_by(Idling.id.desc())
        .limit(MOST)
    )
    found = list(db.session.scalars(query))
    busy, kept = _busy_after([one.id for one in found]), policy.kept_from().minutes
    return [Found(one, busy.get(one.id, 0) if one.closed_at and one.closed_at >= kept else None) for one in found]


def sums() -> dict[Outcome, Sums]:
    """What came back in the last DAYS days, and what would have."""
    query = select(Idling.outcome, func.count(), func.sum(Idling.seconds)).where(Idling.closed_at > _since())
    rows = db.session.execute(query.group_by(Idling.outcome))
    found = {Outcome(outcome): Sums(count, int(seconds or 0)) for outcome, count, seconds in rows}
    return {outcome: found.get(outcome, Sums()) for outcome in Outcome}


def _since() -> datetime:
    return clock.now() - timedelta(days=DAYS)


def _busy_after(ids: Sequence[int]) -> dict[int, int]:
    query = (
        select(Idling.id, func.sum(UsageMinute.busy_ms))
        .join(Allocation, Allocation.booking_id == Idling.booking_id)
        .join(UsageMinute, (UsageMinute.gpu_id == Allocation.gpu_id) & (UsageMinute.minute >= Idling.closed_at))
        .join(Consumer, (Consumer.id == UsageMinute.consumer_id) & (Consumer.booking_id == Idling.booking_id))
        .where(Idling.id.in_(ids), Idling.outcome == Outcome.WOULD)
        .group_by(Idling.id)
    )
    return {number: int(busy) // 1000 for number, busy in db.session.execute(query)}
