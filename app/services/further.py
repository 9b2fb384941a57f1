"""Whether a booking that ends soon can go on, for those who are told of its end: by the same room as on its page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flask_babel import force_locale
from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db, settings
from app.models import Allocation, Booking, Phase
from app.services import bookings, room
from app.services.room import Why


@dataclass(frozen=True)
class Further:
    """`until`: to when it can be extended, as far as its page offers; None: not at all, for this reason. `at`: from
    when on that is in the way; `text`: a rule in words, by language. `rest`: where it goes on as another booking."""

    until: datetime | None = None
    why: str = ""
    at: datetime | None = None
    text: dict[str, str] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it lies in a notice."""
        moments = {name: moment.isoformat() for name, moment in (("until", self.until), ("at", self.at)) if moment}
        return {**moments, "why": self.why, "text": self.text, "rest": self.rest}


def of(booking: Booking, locales: Iterable[str]) -> Further | None:
    """Whether it can go on, now; None for one that cannot change any more. Its user must be loaded."""
    whole = bookings.get(booking.user, booking.id)
    if rest := _rest(whole):
        return Further(rest=rest)
    texts: dict[str, str] = {}
    found = None
    for locale in locales:
        with force_locale(locale):
            found = room.after(whole, settings().slot)
        if found is None:
            return None
        if found.latest is not None:
            return Further(found.latest)
        bar = found.steps[0].bar
        if bar is None or bar.why != Why.RULE:
            return Further(None, bar.why if bar else "", bar.at if bar else None)
        texts[locale] = bar.text
    return Further(None, Why.RULE, None, texts)


def by_id(booking_id: int, locales: Iterable[str]) -> Further | None:
    """The same of a booking by its number."""
    booking = db.session.get_one(Booking, booking_id, options=[joinedload(Booking.user)])
    return of(booking, locales)


def _rest(booking: Booking) -> dict[str, Any]:
    """The booking that begins where this one ends, on which GPUs of which host, where maintenance made one of its rest;
    {} where it did not."""
    if booking.phase(clock.now()) not in {Phase.UPCOMING, Phase.RUNNING}:
        return {}
    query = (
        select(Booking)
        .where(Booking.rest_of_id == booking.id, Booking.cancelled_at.is_(None), Booking.starts_at == booking.ends_at)
        .options(joinedload(Booking.host), selectinload(Booking.allocations).joinedload(Allocation.gpu))
    )
    rest = db.session.scalar(query.order_by(Booking.id).limit(1))
    if rest is None:
        return {}
    gpus = sorted(allocation.gpu.minor for allocation in rest.allocations)
    return {"booking": rest.id, "host": rest.host.name, "gpus": gpus}
