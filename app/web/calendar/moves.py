"""The end of one's own booking moved in the calendar, and moved back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Response, request
from flask_babel import gettext as _

from app import clock
from app.errors import DomainError
from app.extensions import transaction
from app.models import Booking, Phase
from app.services import bookings, changes
from app.services.windows import hours_text
from app.web.bookings import form as forms
from app.web.bookings import words
from app.web.bookings.blueprint import ID, slot
from app.web.calendar.blueprint import bp, compact
from app.web.calendar.page import page
from app.web.calendar.view import read
from app.web.errors import status_of
from app.web.render import go as go_to
from app.web.render import is_fragment
from app.web.sessions import me
from app.web.times import moment_text
from app.web.wakes import wake_if_due


@dataclass(frozen=True)
class Moved:
    """What was just done to a booking, and the end that undoes it; None once that is over."""

    booking: Booking
    text: str
    undo: datetime | None


@bp.post(f"/bookings/{ID}/end")
def move_end(booking_id: int) -> Response:
    """Move the end of a booking and show the calendar again, as the address asks for it."""
    view = read()
    before = bookings.get(me(), booking_id).ends_at
    try:
        ends_at = forms.sent_moment(request.form.get("ends_at", ""), "ends_at")
        with transaction():
            booking = changes.move_end(me(), booking_id, ends_at, slot())
    except DomainError as error:
        return page(
            view, fragment="calendar/_calendar.html", status=status_of(error), refused=error, refused_id=booking_id
        )
    wake_if_due(booking)
    url = view.url(moved=booking_id, before=compact(before), undone=request.form.get("undo", "")[:1])
    if is_fragment():
        return page(
            view, fragment="calendar/_calendar.html", moved=told(booking, before, undone="undo" in request.form)
        )
    return go_to(url)


def of_address() -> Moved | None:
    """What the address says was just done: told by it, so that reloading does no harm."""
    number = request.args.get("moved", "")
    if not (number.isascii() and number.isdigit() and len(number) < 18):
        return None
    try:
        booking = bookings.get(me(), int(number))
        before = forms.sent_moment(request.args.get("before", ""), "ends_at")
    except DomainError:
        return None
    return told(booking, before, undone=request.args.get("undone") == "1")


def told(booking: Booking, before: datetime, *, undone: bool) -> Moved:
    """In words: how the end was moved, and what gives the one before it back."""
    seconds = int((booking.ends_at - before).total_seconds())
    end, what = moment_text(booking.ends_at), words.what_of(booking)
    if undone:
        text = _("%(what)s: undone, it ends %(end)s.", what=what, end=end)
    elif seconds > 0:
        longer = words.length(seconds)
        text = _("%(what)s: extended by %(length)s, it ends %(end)s.", what=what, length=longer, end=end)
    elif seconds < 0:
        hours = hours_text(-seconds * len(booking.allocations))
        text = _(
            "%(what)s: shortened, it ends %(end)s, %(hours)s GPU-hours given back.", what=what, end=end, hours=hours
        )
    else:
        text = _("%(what)s: nothing changed, it ends %(end)s.", what=what, end=end)
    now = clock.now()
    can = not undone and seconds and before > now and booking.phase(now) in {Phase.UPCOMING, Phase.RUNNING}
    return Moved(booking, text, before.astimezone(UTC) if can else None)
