"""The form for another start and end: what it shows, what it says, and the address at which it asks first."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from flask import request, url_for
from wtforms import StringField

from app.errors import InvalidInput
from app.language import lazy_gettext as _l
from app.models import Booking
from app.services.windows import Window
from app.web import local_times, times
from app.web.bookings import carried
from app.web.bookings.shown import as_text
from app.web.forms import PageForm
from app.web.numbers import whole

READING = 300  # seconds from when a fee is named to when it is agreed to


class TimesForm(PageForm):
    """Another start, while it has not begun, and another end."""

    start_date = StringField(_l("Start date"))
    start_time = StringField(_l("Start time"))
    end_date = StringField(_l("End date"))
    end_time = StringField(_l("End time"))

    def refuse(self, error: InvalidInput) -> None:
        """The services speak of moments."""
        error.field = {"starts_at": "start_time", "ends_at": "end_time", "gpus": "gpu"}.get(error.field, error.field)
        super().refuse(error)

    def window(self, booking: Booking, agreed: Window | None) -> Window:
        """What its fields say; where they say nothing new, what was agreed to or else is booked, to the second.
        Raises InvalidInput naming the field."""
        known = [Window(booking.starts_at, booking.ends_at)]
        if agreed:
            known.insert(0, agreed)
        start = booking.starts_at
        if self.start_time.data is not None:
            start = self._typed("start", [window.starts_at for window in known])
        return Window(start, self._typed("end", [window.ends_at for window in known]))

    def _typed(self, edge: str, known: list[datetime]) -> datetime:
        """What the fields of one edge say. One that is known may be in the second of two hours that read alike."""
        date, clock = self[f"{edge}_date"], self[f"{edge}_time"]
        day = local_times.parse_date(date.data or "", date.name)
        since_midnight = local_times.parse_time(clock.data or "", clock.name)
        zone, read = times.viewer_zone(), datetime.combine(day, time()) + since_midnight
        for moment in known:
            shown = moment.astimezone(zone).replace(tzinfo=None, microsecond=0)
            if read in {shown, shown.replace(second=0)}:
                return moment
        return local_times.moment(day, since_midnight, zone, clock.name)


def fields(window: Window) -> dict[str, Any]:
    """The form's fields for a window."""
    zone, values = times.viewer_zone(), dict[str, Any]()
    for edge, moment in (("start", window.starts_at), ("end", window.ends_at)):
        values[f"{edge}_date"] = local_times.date_text(moment, zone)
        values[f"{edge}_time"] = local_times.time_text(moment, zone)
    return values


def sent(name: str) -> Window | None:
    """A window from a hidden field or the address; None where there is none. Raises InvalidInput for nonsense."""
    found = [carried.sent_moment(text, "ends_at") for text in request.values.get(name, "").split()]
    return Window(found[0], found[1]) if len(found) == 2 else None


def fee_named(booking: Booking) -> int:
    """The fee that the form was sent with, in GPU-seconds, and what that may have grown by while it was read."""
    named = whole(request.form.get("fee", ""), 11) or 0
    return named + READING * len(booking.allocations)


def asking(booking_id: int, window: Window, **others: str | list[str]) -> str:
    """The form's address with this window, and other fields, filled in: there it says what that costs, and asks."""
    return url_for("bookings.ask_change", booking_id=booking_id, agreed=as_text(window), **fields(window), **others)  # type: ignore[arg-type]
