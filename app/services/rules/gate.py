"""The one place where a booking is held against the rules of its account, with the account's row locked."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select

from app.errors import RuleRefused
from app.extensions import db, lab_zone
from app.models import Allocation, Booking
from app.services.rules import check
from app.services.rules.check import Asked, Standing
from app.services.rules.limits import Claim
from app.services.rules.terms import Rules
from app.services.windows import Window

LONGEST_PERIOD = timedelta(days=32)


def require(account_id: int, asked: Asked, rules: Rules, *, ignore_booking: int | None = None) -> None:
    """Raise the first rule that the request breaks."""
    if (refusal := first(account_id, asked, rules, ignore_booking=ignore_booking)) is not None:
        raise refusal


def first(account_id: int, asked: Asked, rules: Rules, *, ignore_booking: int | None = None) -> RuleRefused | None:
    """The first rule that the request breaks, if any. What is booked is read only where a rule asks for it."""
    standing = Standing()
    if rules.looks_at_others:
        since = min(asked.window.starts_at, asked.now) - LONGEST_PERIOD
        standing = Standing(claims_of(account_id, since, ignore_booking=ignore_booking))
    return next(check.broken(asked, standing, rules, lab_zone()), None)


def claims_of(account_id: int, since: datetime, *, ignore_booking: int | None = None) -> list[Claim]:
    """What an account has booked that ends after a moment, without what was cancelled; in order of start."""
    query = (
        select(Booking.id, Booking.starts_at, Booking.ends_at, func.count())
        .join(Allocation, Allocation.booking_id == Booking.id)
        .where(Booking.account_id == account_id, Booking.cancelled_at.is_(None), Booking.ends_at > since)
        .group_by(Booking.id)
        .order_by(Booking.starts_at, Booking.id)
    )
    return [
        Claim(Window(starts_at, ends_at), count, number)
        for number, starts_at, ends_at, count in db.session.execute(query)
        if number != ignore_booking
    ]
