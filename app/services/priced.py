"""A change of a booking with what it costs: known before it is made, by making it and taking it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from app.extensions import db
from app.services import quota

T = TypeVar("T")


@dataclass(frozen=True)
class Price:
    """What a change costs, in GPU-seconds. `more`: for its hours, below 0 where it gives some back; `fee`: what its
    owner pays beside that for giving back so late."""

    more: int
    fee: int


def made(booking_id: int, change: Callable[[], T]) -> tuple[T, Price]:
    """Make a change: what it returns, and what it cost. Raises as it does.

    Whoever has to be asked first gives up the transaction."""
    held, charged = quota.held_for(booking_id), quota.charged_for(booking_id)
    done = change()
    return done, Price(quota.held_for(booking_id) - held, quota.charged_for(booking_id) - charged)


def preview(booking_id: int, change: Callable[[], object]) -> Price:
    """What a change would cost; nothing stays of it. Raises as it does."""
    attempt = db.session.begin_nested()
    try:
        return made(booking_id, change)[1]
    finally:
        attempt.rollback()
