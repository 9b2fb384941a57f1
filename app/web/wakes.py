"""After the commit: tell a host's agent when something it must act on soon has changed."""

from __future__ import annotations

from datetime import timedelta

from app import clock, queue
from app.models import Booking

SOON = timedelta(minutes=2)  # an agent looks this far ahead by itself at every tick


def wake_if_due(booking: Booking) -> None:
    """Wake the agent of a booking that was made, moved or ended, if it starts soon or has. Its host must be loaded."""
    now = clock.now()
    if booking.starts_at <= now + SOON and booking.booked_until >= now:
        queue.wake(booking.host.name)
