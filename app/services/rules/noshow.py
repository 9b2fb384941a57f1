"""Bookings whose owner did not come: no running machine of theirs took a GPU for so long that the rules end it.

For so long as Berth could have given it: where Berth itself was late, or away in between, their time to come begins
then. What it costs does not: that is for `fees`."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Integer, Select, and_, func, or_, select

from app import clock
from app.extensions import db
from app.models import Account, AccountClass, Allocation, Booking, Host, Idling, Phase
from app.services.rules import classes, fees
from app.services.rules.fees import OWN_TROUBLE, PROMPT


def ends_at(booking: Booking, now: datetime) -> datetime | None:
    """When a running booking ends by itself unless a machine takes its GPUs; None where no rule or nothing says so."""
    minutes = classes.rules_for(booking.account_id).noshow_minutes
    if minutes is None or booking.phase(now) != Phase.RUNNING or not is_one(booking):
        return None
    moment = max(map(awaited_from, booking.allocations)) + timedelta(minutes=minutes)
    if moment >= booking.ends_at:
        return None
    kept = db.session.scalar(select(func.max(Idling.kept_until)).where(Idling.booking_id == booking.id))
    moment = max(moment, kept or moment)  # they said that they come
    return moment if moment < booking.ends_at else None


def is_due(booking: Booking) -> bool:
    """Whether a booking ends now for want of a machine; its allocations must be loaded."""
    now = clock.now()
    moment = ends_at(booking, now)
    return moment is not None and moment <= now


def is_one(booking: Booking) -> bool:
    """Whether none of its GPUs was ever attached, for want of a running machine; its allocations must be loaded."""
    return all(one.attached_at is None and one.trouble in OWN_TROUBLE for one in booking.allocations)


def awaited_from(allocation: Allocation) -> datetime:
    """Since when it waits for nothing but its owner's machine, without an outage; `_query` says the same in SQL."""
    since, given = allocation.trouble_at, fees.given_from(allocation)
    return max(given, since) if since is not None and since - allocation.starts_at > PROMPT else given


def due(host: Host) -> int | None:
    """The host's first running booking that the rules end now, if any."""
    return db.session.scalar(_query(host, clock.now()))


def _query(host: Host, now: datetime) -> Select[int]:
    patience = func.make_interval(0, 0, 0, 0, 0, AccountClass.rules["noshow_minutes"].astext.cast(Integer))
    ready = func.greatest(func.coalesce(Allocation.ready_at, Allocation.ends_at), Allocation.trouble_at)
    given_late = and_(ready - Allocation.starts_at > PROMPT, ready + patience > now)
    moved = Allocation.starts_at + patience > now  # to another GPU, for what was left
    excused = select(Allocation.id).where(
        Allocation.booking_id == Booking.id,
        or_(Allocation.attached_at.is_not(None), Allocation.trouble.not_in(OWN_TROUBLE), given_late, moved),
    )
    kept = select(Idling.id).where(Idling.booking_id == Booking.id, Idling.kept_until > now)
    return (
        select(Booking.id)
        .join(Account, Account.id == Booking.account_id)
        .join(AccountClass, classes.IS_OF)
        .where(
            Booking.host_id == host.id,
            Booking.settled_at.is_(None),
            Booking.ends_at > now,
            Booking.starts_at + patience <= now,
            Booking.released_at.is_(None),
            ~excused.exists(),
            ~kept.exists(),
        )
        .order_by(Booking.id)
        .limit(1)
    )
