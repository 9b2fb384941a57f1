"""Series and their bookings, as pages and programs ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.errors import NotFound
from app.extensions import db
from app.language import gettext as _
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
    not started. `rest`: it is what maintenance left of the one of this number."""

    number: int
    count: int
    before: int | None
    after: int | None
    later: bool
    rest: bool = False


def place_of(booking: Booking) -> Place:
    """Where in its series a booking is."""
    query = select(Booking.id, Booking.rest_of_id, Booking.starts_at, Booking.cancelled_at)
    query = query.where(Booking.series_id == booking.series_id).order_by(Booking.starts_at, Booking.id)
    rows = list(db.session.execute(query))
    ids, whole = [row.id for row in rows], [row.id for row in rows if row.rest_of_id is None]
    at, now = ids.index(booking.id), clock.now()
    later = any(row.cancelled_at is None and row.starts_at > now for row in rows[at:])
    number = whole.index(_first_part({row.id: row.rest_of_id for row in rows}, booking.id)) + 1
    before, after = ids[at - 1] if at else None, ids[at + 1] if at + 1 < len(ids) else None
    return Place(number, len(whole), before, after, later=later, rest=booking.rest_of_id is not None)


def begun_at(series: Series) -> dict[int, datetime]:
    """By the id of each rest in a series, when the one began of which it is the rest; its day is that one's."""
    query = select(Booking.id, Booking.rest_of_id, Booking.starts_at).where(Booking.series_id == series.id)
    rows = db.session.execute(query).all()
    parts, starts = {row.id: row.rest_of_id for row in rows}, {row.id: row.starts_at for row in rows}
    return {number: starts[_first_part(parts, number)] for number, of in parts.items() if of is not None}


def _first_part(parts: dict[int, int | None], booking_id: int) -> int:
    """The one that was asked for; `parts`: by the id of each of a series, that of which it is the rest."""
    while (before := parts[booking_id]) is not None:
        booking_id = before
    return booking_id


def target(series: Series) -> str:
    """What the audit calls it."""
    return f"series:{series.id}"
