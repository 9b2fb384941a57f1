"""A change of a booking with what it costs: known before it is made, by making it and taking it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.extensions import db
from app.models import Booking
from app.services import quota


@dataclass(frozen=True)
class Price:
    """What a change costs, in GPU-seconds. `more`: for its hours, below 0 where it gives some back; `fee`: what its
    owner pays beside that for giving back so late."""

    more: int
    fee: int


def made(booking_id: int, change: Callable[[], Booking]) -> tuple[Booking, Price]:
    """Make a change and say what it cost; who has to be asked first gives up the transaction. Raises as it does."""
    held, charged = quota.held_for(booking_id), quota.charged_for(booking_id)
    booking = change()
    return booking, Price(quota.held_for(booking_id) - held, quota.charged_for(booking_id) - charged)


def preview(booking_id: int, change: Callable[[], Booking]) -> Price:
    """What a change would cost; nothing stays of it. Raises as it does."""
    attempt = db.session.begin_nested()
    try:
        return made(booking_id, change)[1]
    finally:
        attempt.rollback()
