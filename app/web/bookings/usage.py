"""What a booking's GPUs did: its three numbers, each explained down to the minute."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Response, request

from app import clock
from app.language import gettext as _
from app.models import Booking
from app.services import bookings
from app.services.periods import A_DAY, AN_HOUR
from app.services.reports import one
from app.web.bookings import words
from app.web.bookings.blueprint import ID, bp
from app.web.render import render
from app.web.reports import words as report_words
from app.web.sessions import me


@bp.get(f"/{ID}/usage")
def usage(booking_id: int) -> Response:
    """By the hour; with `hour`, that one's minutes too."""
    booking = bookings.get(me(), booking_id)
    hours = one.by_hour(booking)
    opened = _hour(hours)
    minutes = one.by_minute(booking, opened, opened + AN_HOUR) if opened else []
    return render(
        "bookings/usage.html",
        title=_("Usage: %(what)s", what=words.what_of(booking)),
        booking=booking,
        span=words.span(booking.starts_at, booking.ends_at),
        sentence=sentence(booking),
        hours=hours,
        curve=one.curve(_finest(booking) or hours),
        opened=opened,
        minutes=minutes,
        words=report_words,
    )


def sentence(booking: Booking) -> str:
    """Its numbers, up to now; "" before it begins."""
    if booking.starts_at >= clock.now() or booking.cancelled_at is not None:
        return ""
    found = one.whole(booking)
    hours, share = report_words.hours, report_words.share
    values = {"booked": hours(found.reserved), "attached": hours(found.attached), "busy": hours(found.busy)}
    values |= {"idle": hours(found.idle), "share": share(found.busy, found.reserved)}
    text = _("Booked %(booked)s GPU-hours, attached %(attached)s, busy %(busy)s (%(share)s), idle %(idle)s.", **values)
    if found.not_given > 180:
        text += " " + _("Not given %(hours)s, which costs nothing.", hours=hours(found.not_given))
    if found.no_data > 60 * len(booking.allocations):
        text += " " + _("No data for %(hours)s.", hours=hours(found.no_data))
    if found.energy:
        text += " " + _("Energy: %(kwh)s kWh.", kwh=f"{found.kwh:.2f}")
    if found.memory:
        text += " " + _("At most %(memory)s GiB of memory on one GPU.", memory=f"{found.memory / 1024:.1f}")
    return text


def _finest(booking: Booking) -> list[one.Slice]:
    """Its minutes, unless it is longer than a day: those of a month are not counted to draw a line."""
    short = booking.ends_at - booking.starts_at <= A_DAY
    return one.by_minute(booking, booking.starts_at, booking.ends_at) if short else []


def _hour(hours: list[one.Slice]) -> datetime | None:
    """The one that the address names, if it is one of these."""
    try:
        named = datetime.fromisoformat(request.args.get("hour", "")).replace(tzinfo=UTC)
    except ValueError:
        return None
    return named if any(each.at == named for each in hours) else None
