"""Booking pages: the form and its check, what became of a booking, and what was refused."""

from app.web.bookings import book, change, ending, lists, sentence, show, usage  # noqa: F401 - their routes, and the banner
from app.web.bookings.blueprint import bp

__all__ = ["bp"]
