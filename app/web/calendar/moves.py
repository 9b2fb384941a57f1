"""Start or end of one's own booking moved in the calendar, and moved back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flask import Response, request

from app import clock
from app.errors import DomainError
from app.extensions import transaction
from app.language import lazy_gettext as _l
from app.models import Booking, Phase
from app.services import bookings, changes, priced, starts
from app.services.rules import tariff
from app.services.windows import LONGEST, Window, hours_text
from app.web.bookings import carried, words
from app.web.bookings.blueprint import ID, slot
from app.web.bookings.times_form import asking
from app.web.calendar.blueprint import bp, compact
from app.web.calendar.page import page
from app.web.calendar.view import read
from app.web.errors import status_of
from app.web.numbers import ID_DIGITS, whole
from app.web.render import go as go_to
from app.web.render import is_fragment
from app.web.sessions import me
from app.web.times import moment_text
from app.web.wakes import wake_if_due

MOVE = {"start": starts.move_start, "end": changes.move_end}
# By the edge that was moved: what the booking became by it.
TOLD = {
    "start": {
        "longer": _l("%(what)s: %(length)s earlier, it starts %(moment)s."),
        "shorter": _l("%(what)s: later, it starts %(moment)s, %(hours)s GPU-hours given back."),
        "same": _l("%(what)s: nothing changed, it starts %(moment)s."),
        "undone": _l("%(what)s: undone, it starts %(moment)s."),
    },
    "end": {
        "longer": _l("%(what)s: extended by %(length)s, it ends %(moment)s."),
        "shorter": _l("%(what)s: shortened, it ends %(moment)s, %(hours)s GPU-hours given back."),
        "same": _l("%(what)s: nothing changed, it ends %(moment)s."),
        "undone": _l("%(what)s: undone, it ends %(moment)s."),
    },
}


@dataclass(frozen=True)
class Moved:
    """What was just done to a booking, and what undoes it: the moment that this edge had; None once that is over."""

    booking: Booking
    text: str
    edge: str
    undo: datetime | None

    @property
    def now(self) -> datetime:
        """The moment that the edge has now."""
        return _edge_of(self.booking, self.edge)


@bp.post(f"/bookings/{ID}/<any(start, end):edge>")
def move(booking_id: int, edge: str) -> Response:
    """Move the start or the end of a booking and show the calendar again, as the address asks for it."""
    view = read()
    was = bookings.get(me(), booking_id)
    window, before = Window(was.starts_at, was.ends_at), _edge_of(was, edge)
    try:
        moment = carried.sent_moment(request.form.get("at", ""), "at")
        seen = carried.sent_moment(request.form["seen"], "at") if "seen" in request.form else None
        with transaction() as session:
            booking, price = priced.made(booking_id, lambda: MOVE[edge](me(), booking_id, moment, slot(), seen=seen))
            if price.fee > 0:  # what costs that asks first, also where it takes back what was done just now
                session.rollback()
                return go_to(asking(booking_id, replace(window, **{f"{edge}s_at": moment})))
    except DomainError as error:
        return page(
            view, fragment="calendar/_calendar.html", status=status_of(error), refused=error, refused_id=booking_id
        )
    wake_if_due(booking)
    url = view.url(moved=booking_id, edge=edge, before=compact(before), undone=request.form.get("undo", "")[:1])
    if is_fragment():
        return page(
            view, fragment="calendar/_calendar.html", moved=told(booking, edge, before, undone="undo" in request.form)
        )
    return go_to(url)


def of_address() -> Moved | None:
    """What the address says was just done: told by it, so that reloading does no harm."""
    number, edge = whole(request.args.get("moved", ""), ID_DIGITS), request.args.get("edge", "end")
    if number is None or edge not in MOVE:
        return None
    try:
        booking = bookings.get(me(), number)
        before = carried.sent_moment(request.args.get("before", ""), "at")
    except DomainError:
        return None
    if abs(before - _edge_of(booking, edge)) > LONGEST:
        return None
    return told(booking, edge, before, undone=request.args.get("undone") == "1")


def told(booking: Booking, edge: str, before: datetime, *, undone: bool) -> Moved:
    """In words: how the edge was moved, and what gives the moment before it back."""
    after = _edge_of(booking, edge)
    longer = int((after - before).total_seconds()) * (1 if edge == "end" else -1)
    change = "undone" if undone else "longer" if longer > 0 else "shorter" if longer < 0 else "same"
    now = clock.now()
    phases = {Phase.UPCOMING} if edge == "start" else {Phase.UPCOMING, Phase.RUNNING}
    can = not undone and longer and before > now and booking.phase(now) in phases
    text = _text(booking, edge, change, before)
    return Moved(booking, text, edge, before.astimezone(UTC) if can else None)


def _edge_of(booking: Booking, edge: str) -> datetime:
    return booking.starts_at if edge == "start" else booking.ends_at


def _text(booking: Booking, edge: str, change: str, before: datetime) -> str:
    window = Window(booking.starts_at, booking.ends_at)
    was = replace(window, **{f"{edge}s_at": before})
    return str(TOLD[edge][change]) % {
        "what": words.what_of(booking),
        "moment": moment_text(_edge_of(booking, edge)),
        "length": words.length(abs(window.seconds - was.seconds)),
        "hours": hours_text(tariff.of(booking).cost(was) - tariff.cost(booking)),
    }
