"""The waiting list, looked after: after each change that may have freed something, and at every tick.

Each step is a transaction of its own, since nobody may hold the accounts of two people. What one caller leaves undone,
since there is too much of it or it dies, the next tick does.
"""

from __future__ import annotations

from datetime import timedelta

from app import clock, queue
from app.extensions import settings, transaction
from app.models import Booking
from app.services.waits import line, offers, serving

AT_ONCE = 20  # bookings that one call makes at most
SOON = timedelta(minutes=2)  # an agent looks this far ahead by itself at every tick


def tend() -> list[Booking]:
    """Close what is over, then serve the line in its order; what was booked or offered."""
    with transaction():
        if not line.anybody():
            return []
        over = line.due()
    for wait_id in over:
        with transaction():
            offers.lapse(wait_id)
    made: list[Booking] = []
    while len(made) < AT_ONCE:
        with transaction():
            booking = serving.serve_next(settings().slot)
        if booking is None:
            break
        made.append(booking)
        if booking.starts_at <= clock.now() + SOON:
            queue.wake(booking.host.name)
    return made
