"""The one place where a booking is held against the rules of its account, with the account's row locked."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select

from app.errors import RuleRefused
from app.extensions import db, lab_zone
from app.language import gettext as _
from app.models import Allocation, Booking, TeamMember
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
    try:
        standing = standing_of(account_id, asked, rules, ignore_booking=ignore_booking)
    except RuleRefused as error:
        return error
    return next(check.broken(asked, standing, rules, lab_zone()), None)


def standing_of(account_id: int, asked: Asked, rules: Rules, *, ignore_booking: int | None = None) -> Standing:
    """What a request is held against. Raises RuleRefused for whoever is in the account's team no more."""
    cap = _cap(account_id, asked.member_id) if asked.member_id is not None else None
    if not rules.looks_at_others and cap is None:
        return Standing()
    since = min(asked.window.starts_at, asked.now) - LONGEST_PERIOD
    return Standing(claims_of(account_id, since, ignore_booking=ignore_booking), cap)


def _cap(account_id: int, user_id: int) -> int | None:
    query = select(TeamMember).where(TeamMember.account_id == account_id, TeamMember.user_id == user_id)
    place = db.session.scalar(query)
    if place is None:
        raise RuleRefused(_("You are not in this team any more."), _("Book on your own account."), rule="team")
    return place.cap_hours


def claims_of(account_id: int, since: datetime, *, ignore_booking: int | None = None) -> list[Claim]:
    """What an account has booked that ends after a moment, without what was cancelled; in order of start."""
    query = (
        select(Booking.id, Booking.user_id, Booking.unasked, Booking.starts_at, Booking.ends_at, func.count())
        .join(Allocation, Allocation.booking_id == Booking.id)
        .where(Booking.account_id == account_id, Booking.cancelled_at.is_(None), Booking.ends_at > since)
        .group_by(Booking.id)
        .order_by(Booking.starts_at, Booking.id)
    )
    return [
        Claim(Window(starts_at, ends_at), count, number, user_id, unasked)
        for number, user_id, unasked, starts_at, ends_at, count in db.session.execute(query)
        if number != ignore_booking
    ]
