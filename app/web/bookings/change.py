"""What can be done with a booking: its end moved, ended now, cancelled. What gives up time asks first."""

from __future__ import annotations

from datetime import datetime

from flask import Response, flash, request, url_for
from flask_babel import gettext as _

from app import clock
from app.errors import DomainError, InvalidInput, NotFound
from app.extensions import transaction
from app.models import Booking, Phase
from app.services import bookings, changes, priced, starts
from app.services.idle import keeping
from app.services.priced import Price
from app.services.rules import fees, tariff
from app.services.windows import Window, hours_text
from app.web.bookings import costs, show, shown, words
from app.web.bookings import form as forms
from app.web.bookings.blueprint import ID, bp, slot
from app.web.bookings.times_form import TimesForm, asking, fee_named, fields, sent
from app.web.errors import status_of
from app.web.forms import filled_in
from app.web.render import go, render
from app.web.security import comes_back
from app.web.sessions import me
from app.web.times import moment_text
from app.web.wakes import wake_if_due


@bp.get(f"/{ID}/change")
def ask_change(booking_id: int) -> Response:
    """The form for another start and end; where its address fills it in, with what that costs late."""
    booking = bookings.get(me(), booking_id)
    form = TimesForm(formdata=request.args if "end_time" in request.args else None, **fields(_window(booking)))
    if "end_time" not in request.args:
        return _change_page(booking, form)
    try:
        window = form.window(booking, sent("agreed"))
        price = priced.preview(booking_id, lambda: starts.move(me(), booking_id, window, slot()))
    except DomainError:  # why is said once it is sent
        return _change_page(bookings.get(me(), booking_id), form)
    return _change_page(bookings.get(me(), booking_id), form, late=price if price.fee > 0 else None, asked=window)


@bp.post(f"/{ID}/change")
@comes_back(lambda: filled_in("bookings.ask_change"))
def change(booking_id: int) -> Response:
    """Move start and end to what was typed."""
    booking = bookings.get(me(), booking_id)
    form = TimesForm(formdata=request.form)
    try:
        return _moved(booking, form.window(booking, sent("agreed")))
    except InvalidInput as error:
        form.refuse(error)
        return _change_page(bookings.get(me(), booking_id), form, 422)
    except NotFound:
        raise
    except DomainError as error:
        return _change_page(bookings.get(me(), booking_id), form, status_of(error), refused=error)


@bp.post(f"/{ID}/extend")
def extend(booking_id: int) -> Response:
    """Move the end to the moment that a button names."""
    booking = bookings.get(me(), booking_id)
    try:
        return _moved(booking, Window(booking.starts_at, forms.sent_moment(request.form.get("ends_at", ""), "ends_at")))
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


def _moved(booking: Booking, window: Window) -> Response:
    """Move it; where that costs a fee, only if the form named it for just this time, and no less than it is now."""
    booking_id, before, agreed = booking.id, _window(booking), sent("agreed") == window
    with transaction() as session:
        booking, price = priced.made(
            booking_id, lambda: starts.move(me(), booking_id, window, slot(), seen=sent("seen"))
        )
        if price.fee > 0 and not (agreed and price.fee <= fee_named(booking)):
            session.rollback()
            return go(asking(booking_id, window))
    wake_if_due(booking)
    flash(_told(booking, before, price))
    return go(url_for("bookings.show", booking_id=booking.id))


def _window(booking: Booking) -> Window:
    return Window(booking.starts_at, booking.ends_at)


def _told(booking: Booking, before: Window, price: Price) -> str:
    told = _became(booking, before, hours_text(-price.more))
    return f"{told} {costs.late(booking.account_id, price.fee)}" if price.fee > 0 else told


def _became(booking: Booking, before: Window, hours: str) -> str:
    """`hours`: what was given back, where it became shorter."""
    seconds = int((booking.ends_at - before.ends_at).total_seconds())
    end = moment_text(booking.ends_at)
    if booking.starts_at != before.starts_at:
        return _("Moved: it starts %(start)s and ends %(end)s.", start=moment_text(booking.starts_at), end=end)
    if seconds > 0:
        return _("Extended by %(length)s: it ends %(end)s.", length=words.length(seconds), end=end)
    if seconds < 0:
        return _("Shortened: it ends %(end)s, %(hours)s GPU-hours given back.", end=end, hours=hours)
    return _("Nothing changed: it ends %(end)s.", end=end)


def _refused(booking_id: int, error: DomainError) -> Response:
    """The booking as it is now, with why it was not changed."""
    if isinstance(error, NotFound):
        raise error
    return show.page(bookings.get(me(), booking_id), refused=error, status=status_of(error))


def _change_page(
    booking: Booking,
    form: TimesForm,
    status: int = 200,
    refused: DomainError | None = None,
    late: Price | None = None,
    asked: Window | None = None,
) -> Response:
    """`late`: what the time that is `asked` for costs, where that is a fee too."""
    return render(
        "bookings/change.html",
        booking=booking,
        what=words.what_of(booking),
        span=words.span(booking.starts_at, booking.ends_at),
        upcoming=booking.phase(clock.now()) == Phase.UPCOMING,
        seen=shown.seen(booking) if refused else request.values.get("seen") or shown.seen(booking),
        form=form,
        errors_found=bool(form.errors),
        refused=refused,
        late=[costs.more(late.more), costs.late(booking.account_id, late.fee)] if late else [],
        agreed=shown.as_text(asked) if late and asked else "",
        fee=late.fee if late else 0,
        status=status,
    )
