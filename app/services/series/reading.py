"""Series and their bookings, as pages and programs ask for them."""

from __future__ import annotations

from dataclasses import dataclass

from flask_babel import gettext as _
from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.errors import NotFound
from app.extensions import db
from app.models import Allocation, Booking, Series, User
from app.services.series.patterns import Pattern


def get(user: User, series_id: int) -> Series:
    """One's own series; anybody's, for an admin. Its person is loaded. Raises NotFound."""
    found = db.session.scalar(select(Series).where(Series.id == series_id).options(joinedload(Series.user)))
    if found is None or (found.user_id != user.id and not user.is_admin):
        raise NotFound(_("There is no series %(id)s of yours.", id=series_id))
    return found


def mine(user: User, limit: int = 100) -> list[Series]:
    """A person's series, newest first."""
    query = select(Series).where(Series.user_id == user.id).options(joinedload(Series.user))
    return list(db.session.scalars(query.order_by(Series.id.desc()).limit(limit)))


def members(*series_ids: int) -> list[Booking]:
    """All bookings of these series in order of start, with all that is shown of them."""
    query = (
        select(Booking)
        .where(Booking.series_id.in_(series_ids))
        .options(
            selectinload(Booking.allocations).joinedload(Allocation.gpu),
            joinedload(Booking.host),
            joinedload(Booking.user),
        )
        .order_by(Booking.starts_at, Booking.id)
        .execution_options(populate_existing=True)
    )
    return list(db.session.scalars(query))


def pattern_of(series: Series) -> Pattern:
    """When it was to be."""
    days = tuple(series.weekdays)
    return Pattern(days, series.opens, series.closes, series.zone, series.first_day, series.until)


@dataclass(frozen=True)
class Place:
    """Where in its series a booking is: `number` of `count`, its neighbours' ids, and whether it or a later one has
    not started."""

    number: int
    count: int
    before: int | None
    after: int | None
    later: bool


def place_of(booking: Booking) -> Place:
    """Where in its series a booking is."""
    query = select(Booking.id, Booking.starts_at, Booking.cancelled_at).where(Booking.series_id == booking.series_id)
    rows = list(db.session.execute(query.order_by(Booking.starts_at, Booking.id)))
    ids = [row.id for row in rows]
    at, now = ids.index(booking.id), clock.now()
    later = any(row.cancelled_at is None and row.starts_at > now for row in rows[at:])
    return Place(at + 1, len(ids), ids[at - 1] if at else None, ids[at + 1] if at + 1 < len(ids) else None, later=later)


def target(series: Series) -> str:
    """What the audit calls it."""
    return f"series:{series.id}"
