"""What owners can say to a warning, and what the pages of their booking say of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select

from app import clock
from app.errors import Conflict, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Booking, Idling, Outcome, User
from app.services import audit, bookings, policy
from app.services.idle import sight
from app.services.words import when


def keep(user: User, booking_id: int) -> datetime:
    """Keep what is to be given back; until when it is left alone. Said twice, it counts once.

    Raises NotFound, Conflict where nothing is to be given back (any more), RuleRefused after too many times."""
    booking = bookings.get(user, booking_id, lock=True)
    opened, now = warning(booking), clock.now()
    if opened is None:
        if (until := kept_until(booking)) is not None and booking.ends_at > now:
            return until
        raise _nothing_to_keep(booking, now)
    if not sight.keeps_left(booking.id):
        raise RuleRefused(
            _("You have kept this booking as often as the lab's rules allow."),
            _("Use its GPUs, or end it: what is left of it is given back either way."),
            rule="keeps",
        )
    opened.outcome, opened.closed_at = Outcome.KEPT, now
    opened.kept_until = until = now + timedelta(minutes=policy.current().keep_minutes)
    db.session.flush()
    left = sight.keeps_left(booking.id)
    audit.record(user.username, "booking.kept", f"booking:{booking.id}", until=until.isoformat(), left=left)
    return until


def warning(booking: Booking) -> Idling | None:
    """What its owner was told and can still answer."""
    opened = sight.open_ones([booking]).get(booking.id)
    if opened is None or opened.trial or booking.released_at is not None or booking.ends_at <= clock.now():
        return None
    return opened


def kept_until(booking: Booking) -> datetime | None:
    """Until when it is left alone because its owner said so."""
    query = select(Idling.kept_until).where(Idling.booking_id == booking.id, Idling.kept_until > clock.now())
    return db.session.scalar(query.order_by(Idling.id.desc()).limit(1))


def reclaimed(booking: Booking) -> Idling | None:
    """Why it ended by itself, if that was for doing nothing."""
    return db.session.scalar(
        select(Idling).where(Idling.booking_id == booking.id, Idling.outcome == Outcome.RECLAIMED).limit(1)
    )


def _nothing_to_keep(booking: Booking, now: datetime) -> Conflict:
    if (gone := reclaimed(booking)) is not None and gone.closed_at is not None:
        return Conflict(
            _("Too late: what was left of this booking was given back at %(time)s.", time=when(gone.closed_at)),
            _("Make a new one."),
        )
    if booking.ends_at <= now:
        return Conflict(_("This booking is over; it cannot be kept any more."), _("Make a new one."))
    return Conflict(_("Nothing of this booking is to be given back now."), _("Look at it as it is now."))
