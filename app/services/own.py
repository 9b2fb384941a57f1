"""A person's own bookings as their pages list them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, User

PAGE = 20


def current(user: User, limit: int = 200) -> list[Booking]:
    """What runs or is to come, in order of start."""
    query = (
        select(Booking)
        .where(Booking.user_id == user.id, Booking.cancelled_at.is_(None), Booking.ends_at > clock.now())
        .options(selectinload(Booking.allocations).joinedload(Allocation.gpu), joinedload(Booking.host))
        .order_by(Booking.starts_at, Booking.id)
        .limit(limit)
    )
    return list(db.session.scalars(query))


def past(user: User, before: int | None = None) -> tuple[list[Booking], int | None]:
    """What is over or was cancelled, newest start first: a page of it, and where the next one begins."""
    now = clock.now()
    query = (
        select(Booking)
        .where(Booking.user_id == user.id, or_(Booking.cancelled_at.is_not(None), Booking.ends_at <= now))
        .options(selectinload(Booking.allocations), joinedload(Booking.host))
        .order_by(Booking.starts_at.desc(), Booking.id.desc())
        .limit(PAGE + 1)
    )
    last = db.session.get(Booking, before) if before is not None else None
    if last is not None and last.user_id == user.id:
        query = query.where(
            or_(Booking.starts_at < last.starts_at, and_(Booking.starts_at == last.starts_at, Booking.id < last.id))
        )
    found: Sequence[Booking] = db.session.scalars(query).all()
    more = found[PAGE - 1].id if len(found) > PAGE else None
    return list(found[:PAGE]), more
