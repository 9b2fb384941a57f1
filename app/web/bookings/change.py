"""What one click does to a booking: its end moved, ended now, cancelled. What gives up time asks first."""

from __future__ import annotations

from datetime import datetime

from flask import Response, flash, request, url_for

from app import clock
from app.errors import DomainError, NotFound
from app.extensions import transaction
from app.language import gettext as _
from app.models import Booking
from app.services import bookings, changes
from app.services.edits import Edit
from app.services.idle import keeping
from app.services.rules import fees, tariff
from app.services.windows import Window, hours_text
from app.web.bookings import carried, costs, edit, show, words
from app.web.bookings.blueprint import ID, bp
from app.web.errors import status_of
from app.web.render import go, render
from app.web.sessions import me
from app.web.times import moment_text
from app.web.wakes import wake_if_due


@bp.post(f"/{ID}/extend")
def extend(booking_id: int) -> Response:
    """Move the end to the moment that a button names."""
    booking = bookings.get(me(), booking_id)
    try:
        end = carried.sent_moment(request.form.get("ends_at", ""), "ends_at")
        return edit.made(booking, Edit(Window(booking.starts_at, end)))
    except DomainError as error:
        return _refused(booking_id, error)


@bp.get(f"/{ID}/end")
def ask_end(booking_id: int) -> Response:
    """Are you sure?"""
    booking = bookings.get(me(), booking_id)
    now = clock.now()
    return render(
        "confirm.html",
        title=_("End %(what)s now?", what=words.what_of(booking)),
        lead=_("The GPUs are taken off the machine at once; what uses them there is ended."),
        facts=_given_back(booking, now),
        action=url_for("bookings.end", booking_id=booking.id),
        button=_("End booking"),
        danger=True,
        back_url=url_for("bookings.show", booking_id=booking.id),
    )


@bp.post(f"/{ID}/end")
def end(booking_id: int) -> Response:
    """Give back the rest of a running booking."""
    before = tariff.cost(bookings.get(me(), booking_id))
    try:
        with transaction():
            booking = changes.end_now(me(), booking_id)
    except DomainError as error:
        return _refused(booking_id, error)
    wake_if_due(booking)
    flash(_("Ended early: %(hours)s GPU-hours given back.", hours=hours_text(before - tariff.cost(booking))))
    return go(url_for("bookings.show", booking_id=booking.id))


@bp.get(f"/{ID}/cancel")
def ask_cancel(booking_id: int) -> Response:
    """Are you sure?"""
    booking = bookings.get(me(), booking_id)
    return render(
        "confirm.html",
        title=_("Cancel %(what)s?", what=words.what_of(booking)),
        lead=words.span(booking.starts_at, booking.ends_at),
        facts=_given_back(booking, booking.starts_at),
        action=url_for("bookings.cancel", booking_id=booking.id),
        button=_("Cancel booking"),
        danger=True,
        back_url=url_for("bookings.show", booking_id=booking.id),
    )


@bp.post(f"/{ID}/cancel")
def cancel(booking_id: int) -> Response:
    """Withdraw a booking that has not started."""
    try:
        with transaction():
            booking = changes.cancel(me(), booking_id)
    except NotFound:
        raise
    except DomainError as error:
        return _refused(booking_id, error)
    wake_if_due(booking)
    flash(_("Cancelled: %(hours)s GPU-hours given back.", hours=hours_text(tariff.cost(booking))))
    return go(url_for("bookings.show", booking_id=booking.id))


@bp.post(f"/{ID}/keep")
def keep(booking_id: int) -> Response:
    """Keep what is to be given back since its GPUs do nothing."""
    try:
        with transaction():
            until = keeping.keep(me(), booking_id)
    except DomainError as error:
        return _refused(booking_id, error)
    flash(_("Kept: nothing is given back before %(time)s.", time=moment_text(until)))
    return go(url_for("bookings.show", booking_id=booking_id))


def _given_back(booking: Booking, since: datetime) -> list[str]:
    """What giving the rest back returns, and what that costs where it is late."""
    facts = [costs.given_back(tariff.rest(booking, since))]
    fee = fees.late(booking, max(since, booking.starts_at), booking.ends_at, clock.now())
    if fee and booking.user_id == me().id:
        facts.append(costs.late(booking.account_id, fee))
    return facts


def _refused(booking_id: int, error: DomainError) -> Response:
    """The booking as it is now, with why it was not changed."""
    if isinstance(error, NotFound):
        raise error
    return show.page(bookings.get(me(), booking_id), refused=error, status=status_of(error))
