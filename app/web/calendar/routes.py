"""Where the calendar is read, and asked what has changed."""

from __future__ import annotations

from flask import Response, request, url_for

from app import clock
from app.errors import NotFound
from app.services import bookings, spans
from app.web import times
from app.web.calendar import moves
from app.web.calendar.blueprint import bp, short
from app.web.calendar.page import page
from app.web.calendar.view import read
from app.web.numbers import whole
from app.web.render import go
from app.web.sessions import me

STALE = 60  # seconds: then the page is made anew though nobody booked, for the time has gone on


@bp.get("")
def index() -> Response:
    """A day, a week or a month; `day`, `week` or `month` is any day of it."""
    return page(read(), fragment="calendar/_calendar.html", moved=moves.of_address())


@bp.get("/live")
def live() -> Response:
    """What has changed since the page was made, as its htmx asks: nothing (204), or the part that shows it."""
    view = read()
    if request.headers.get("HX-Request") != "true":
        return go(view.url())
    mark, _dot, made = request.args.get("mark", "").partition(".")
    if clock.now().timestamp() - (whole(made, 11) or 0) < STALE and mark == spans.mark():
        return Response(status=204)
    return page(view, fragment="calendar/_grid.html")


@short.get("/b/<code:booking_id>")
def booking(booking_id: int) -> Response:
    """A booking's short address, as the bars have it: its page, or for others the list where it stands."""
    try:
        found = bookings.get(me(), booking_id)
    except NotFound:
        starts_at = spans.start_of(booking_id)
        if starts_at is None:
            raise
        week = starts_at.astimezone(times.viewer_zone()).date().isoformat()
        return go(url_for("calendar.index", week=week, view="list", _anchor=f"b{booking_id}"))
    return go(url_for("bookings.show", booking_id=found.id))
