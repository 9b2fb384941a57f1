"""Booking pages: the form and its check, what became of a booking, and what was refused."""

from app.web.bookings import (  # noqa: F401 - their routes, and the banner
    book,
    change,
    ending,
    later,
    lists,
    sentence,
    series_form,
    series_page,
    show,
    usage,
)
from app.web.bookings.blueprint import bp

__all__ = ["bp"]
