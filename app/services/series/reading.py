"""Series and their bookings, as pages and programs ask for them."""

from __future__ import annotations

from flask_babel import gettext as _
from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import joinedload, selectinload

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


def place_of(booking: Booking) -> tuple[int, int]:
    """Which of its series a booking is, and of how many: (3, 10)."""
    before = tuple_(Booking.starts_at, Booking.id) <= tuple_(booking.starts_at, booking.id)
    query = select(func.count().filter(before), func.count()).where(Booking.series_id == booking.series_id)
    row = db.session.execute(query).one()
    return int(row[0]), int(row[1])


def target(series: Series) -> str:
    """What the audit calls it."""
    return f"series:{series.id}"
