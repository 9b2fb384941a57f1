"""Bookings whose owner did not come, ended."""

from __future__ import annotations

from sqlalchemy import select

from app.extensions import db
from app.models import Booking, Host, User
from app.services import audit, changes
from app.services.rules import noshow

NO_SHOW = "booking.no_show"


def end_next(host: Host) -> int | None:
    """End the host's first booking whose owner did not come, if the rules say so; its number.

    One at a time: each takes its account's lock and then its GPUs', and nobody may hold two accounts and GPUs."""
    booking_id = noshow.due(host)
    if booking_id is None:
        return None
    owner = db.session.scalars(select(User).join(Booking).where(Booking.id == booking_id)).one()
    ended = changes.reclaim(owner, booking_id, noshow.is_due, actor=audit.SYSTEM, action=NO_SHOW)
    return ended.id if ended else None
