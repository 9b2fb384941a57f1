"""A series as a page, and what a booking's own page says of the series it is one of."""

from __future__ import annotations

from typing import Any

from flask import Response

from app import clock
from app.language import gettext as _
from app.models import Booking, Phase, Series
from app.services.rules import tariff
from app.services.series import reading
from app.web.bookings import repeat, shown
from app.web.bookings.blueprint import bp
from app.web.render import render
from app.web.sessions import me

NUMBER = "<int(min=1, max=9223372036854775807):series_id>"


@bp.get(f"/series/{NUMBER}")
def series(series_id: int) -> Response:
    """All bookings of a series, of one's own (or anybody's, for an admin)."""
    found = reading.get(me(), series_id)
    bookings, now = reading.members(found.id), clock.now()
    upcoming = [booking for booking in bookings if booking.phase(now) == Phase.UPCOMING]
    kept = [booking for booking in bookings if booking.phase(now) != Phase.CANCELLED]
    whole = [booking for booking in kept if booking.rest_of_id is None]  # with its rest it is one
    return render(
        "bookings/series.html",
        series=found,
        title_text=title(found),
        rows=[shown.row(booking, now) for booking in bookings],
        count=len(whole),
        cost=sum(tariff.cost(booking) for booking in kept),
        first=upcoming[0] if upcoming else None,
        left=len(upcoming),
    )


def title(found: Series) -> str:
    """What it is: `every weekday 20:00–08:00 until Tue 17 Nov`."""
    return repeat.text(reading.pattern_of(found))


def place_of(booking: Booking) -> dict[str, Any] | None:
    """What the page of one of a series says of the others; None for a booking by itself."""
    if booking.series_id is None:
        return None
    found, place = reading.get(me(), booking.series_id), reading.place_of(booking)
    facts = {"number": place.number, "count": place.count, "series": title(found)}
    text = _("%(number)s of %(count)s: %(series)s", **facts)
    if place.rest:
        text = _("The rest of %(number)s of %(count)s: %(series)s", **facts)
    return {"text": text, "place": place, "series_id": found.id}
