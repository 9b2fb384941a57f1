"""Two bookings whose GPUs one program holds: it ends with the first, unless both end together."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select

from app import clock
from app.extensions import db
from app.models import Booking, Phase
from app.services import changes, quota
from app.services.rules import classes, gate, tariff


def longest(booking: Booking, others: Iterable[int]) -> Booking | None:
    """Of these bookings, the owner's one that runs on longest after this one ends."""
    now = clock.now()
    query = (
        select(Booking)
        .where(
            Booking.id.in_(list(others)),
            Booking.user_id == booking.user_id,
            Booking.cancelled_at.is_(None),
            Booking.starts_at <= now,
            Booking.ends_at > booking.ends_at,
        )
        .order_by(Booking.ends_at.desc(), Booking.id)
        .limit(1)
    )
    return db.session.scalar(query)


def can_go_on(booking: Booking, end: datetime) -> bool:
    """Whether the calendar, the rules and the quota let a running booking end so much later."""
    now = clock.now()
    if booking.phase(now) != Phase.RUNNING:
        return False
    rules = classes.rules_for(booking.account_id)
    if end > changes.longest_extension(booking, rules, now):
        return False
    if tariff.of(booking).between(booking.starts_at, booking.ends_at, end) > max(quota.free(booking.account_id), 0):
        return False
    return gate.first(booking.account_id, changes.longer(booking, end, now), rules, ignore_booking=booking.id) is None
