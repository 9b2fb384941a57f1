"""What can be done with a booking: its end moved, ended now, cancelled. What gives up time asks first."""

from __future__ import annotations

from datetime import datetime

from flask import Response, flash, request, url_for
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from wtforms import StringField

from app import clock
from app.errors import DomainError, InvalidInput, NotFound
from app.extensions import transaction
from app.models import Booking, Phase
from app.services import bookings, changes, starts
from app.services.idle import keeping
from app.services.rules import classes, fees, tariff
from app.services.windows import Window, hours_text
from app.web import local_times, times
from app.web.bookings import form as forms
from app.web.bookings import show, shown, words
from app.web.bookings.blueprint import ID, bp, slot
from app.web.errors import status_of
from app.web.forms import PageForm
from app.web.render import go, render
from app.web.security import comes_back
from app.web.sessions import me
from app.web.times import moment_text
from app.web.wakes import wake_if_due


class TimesForm(PageForm):
    """Another start, while it has not begun, and another end."""

    start_date = StringField(_l("Start date"))
    start_time = StringField(_l("Start time"))
    end_date = StringField(_l("End date"))
    end_time = StringField(_l("End time"))

    def refuse(self, error: InvalidInput) -> None:
        """The services speak of moments."""
        error.field = {"starts_at": "start_time", "ends_at": "end_time"}.get(error.field, error.field)
        super().refuse(error)


@bp.get(f"/{ID}/change")
def ask_change(booking_id: int) -> Response:
    """The form for another start and end."""
    booking = bookings.get(me(), booking_id)
    zone, values = times.viewer_zone(), {}
    for edge, moment in (("start", booking.starts_at), ("end", booking.ends_at)):
        values[f"{edge}_date"] = local_times.date_text(moment, zone)
        values[f"{edge}_time"] = local_times.time_text(moment, zone)
    return _change_page(booking, TimesForm(formdata=request.args if "end_time" in request.args else None, **values))


def _again() -> str:
    """The form with what was typed, where whoever sent it was signed out meanwhile."""
    typed = {name: value for name, value in request.form.items() if name != "csrf_token"}
    return url_for("bookings.ask_change", **{**typed, **(request.view_args or {})})


@bp.post(f"/{ID}/change")
@comes_back(_again)
def change(booking_id: int) -> Response:
    """Move start and end to what was typed."""
    booking = bookings.get(me(), booking_id)
    form = TimesForm(formdata=request.form)
    try:
        start = booking.starts_at if form.start_time.data is None else _typed(form, "start", booking.starts_at)
        return _moved(booking, Window(start, _typed(form, "end", booking.ends_at)))
    except InvalidInput as error:
        form.refuse(error)
        return _change_page(bookings.get(me(), booking_id), form, 422)
    except NotFound:
        raise
    except DomainError as error:
        return _change_page(bookings.get(me(), booking_id), form, status_of(error), refused=error)


def _typed(form: TimesForm, edge: str, moment: datetime) -> datetime:
    """What the fields of one edge say; seconds that no field shows stay as they are."""
    date, time = form[f"{edge}_date"], form[f"{edge}_time"]
    day = local_times.parse_date(date.data or "", date.name)
    since_midnight = local_times.parse_time(time.data or "", time.name)
    typed = local_times.moment(day, since_midnight, times.viewer_zone(), time.name)
    return moment if typed == moment.replace(second=0, microsecond=0) else typed


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
    facts = [_("%(hours)s GPU-hours are given back.", hours=hours_text(tariff.rest(booking, since)))]
    fee = fees.late(booking, max(since, booking.starts_at), booking.ends_at, clock.now())
    if fee and booking.user_id == me().id:
        rules = classes.rules_for(booking.account_id)
        late = _(
            "%(hours)s GPU-hours are charged: %(percent)s%% of what is given back less than %(limit)s hours ahead.",
            hours=hours_text(fee),
            percent=rules.late_percent,
            limit=rules.late_hours,
        )
        facts.append(late)
    return facts


def _moved(booking: Booking, window: Window) -> Response:
    before, cost = Window(booking.starts_at, booking.ends_at), tariff.cost(booking)
    with transaction():
        booking = starts.move(me(), booking.id, window, slot(), seen=_seen())
    wake_if_due(booking)
    flash(_told(booking, before, cost))
    return go(url_for("bookings.show", booking_id=booking.id))


def _seen() -> Window | None:
    """Start and end as the form's page showed them; None where it does not say."""
    found = [forms.sent_moment(text, "ends_at") for text in request.form.get("seen", "").split()]
    return Window(found[0], found[1]) if len(found) == 2 else None


def _told(booking: Booking, before: Window, cost: int) -> str:
    seconds = int((booking.ends_at - before.ends_at).total_seconds())
    end = moment_text(booking.ends_at)
    if booking.starts_at != before.starts_at:
        return _("Moved: it starts %(start)s and ends %(end)s.", start=moment_text(booking.starts_at), end=end)
    if seconds > 0:
        return _("Extended by %(length)s: it ends %(end)s.", length=words.length(seconds), end=end)
    if seconds < 0:
        hours = hours_text(cost - tariff.cost(booking))
        return _("Shortened: it ends %(end)s, %(hours)s GPU-hours given back.", end=end, hours=hours)
    return _("Nothing changed: it ends %(end)s.", end=end)


def _refused(booking_id: int, error: DomainError) -> Response:
    """The booking as it is now, with why it was not changed."""
    if isinstance(error, NotFound):
        raise error
    return show.page(bookings.get(me(), booking_id), refused=error, status=status_of(error))


def _change_page(booking: Booking, form: TimesForm, status: int = 200, refused: DomainError | None = None) -> Response:
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
        status=status,
    )
