"""Looks once a minute for bookings whose GPUs do nothing; their owners are told, and later the rest is given back."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError

from app import queue
from app.extensions import db, transaction
from app.services.idle import steps

log = logging.getLogger(__name__)


def tend() -> int:
    """One look; how many bookings were given back. Each in a transaction of its own: one that fails keeps no other
    one back, and is tried again with the next look."""
    with transaction():
        found = steps.look()
    ended = 0
    for booking_id in found:
        try:
            with transaction():
                booking = steps.act(booking_id)
        except DBAPIError as error:
            log.warning("the idle booking %d is left as it is for now: %s", booking_id, error)
            db.session.remove()
            continue
        if booking is not None:
            ended += 1
            queue.wake(booking.host.name)
    return ended
