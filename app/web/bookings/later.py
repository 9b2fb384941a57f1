"""One of a series and all later ones: given back, or moved to other hours. Both are shown before they are done."""

from __future__ import annotations

from typing import Any

from flask import Response, flash, request, url_for
from wtforms import StringField

from app import clock
from app.errors import Conflict, DomainError, InvalidInput, NotFound
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext
from app.models import Booking, Series
from app.services import bookings
from app.services.rules import fees, tariff
from app.services.series import later, reading
from app.services.series.later import Move
from app.services.series.patterns import DAY
from app.services.windows import hours_text
from app.web import local_times
from app.web.bookings import carried, costs, repeat, series_page, show, words
from app.web.bookings.blueprint import ID, bp, slot
from app.web.errors import status_of
from app.web.forms import PageForm, filled_in
from app.web.render import go, render
from app.web.security import comes_back
from app.web.sessions import me
from app.web.wakes import wake_if_due


class HoursForm(PageForm):
    """Other hours of the same days."""

    start_time = StringField(_l("Start time"))
    end_time = StringField(_l("End time"))

    def refuse(self, error: InvalidInput) -> None:
        """The services speak of moments."""
        error.field = {"starts_at": "start_time", "ends_at": "end_time"}.get(error.field, error.field)
        super().refuse(error)


@bp.get(f"/{ID}/later/cancel")
def ask_cancel_later(booking_id: int) -> Response:
    """Are you sure?"""
    booking, series = _of(booking_id)
    found = later.upcoming(series, booking.starts_at)
    if not found:
        return show.page(booking, refused=_none_left(), status=422)
    facts = [words.span(one.starts_at, one.ends_at) for one in found]
    return render(
        "confirm.html",
        title=ngettext("Cancel %(num)s booking?", "Cancel %(num)s bookings?", len(found)),
        lead=_("This one and all later ones of the series that have not started:"),
        facts=[*facts, *_given_back(series, found)],
        action=url_for("bookings.cancel_later", booking_id=booking.id),
        button=ngettext("Cancel %(num)s booking", "Cancel %(num)s bookings", len(found)),
        danger=True,
        back_url=url_for("bookings.show", booking_id=booking.id),
    )


@bp.post(f"/{ID}/later/cancel")
def cancel_later(booking_id: int) -> Response:
    """Give them back."""
    booking, series = _of(booking_id)
    try:
        with transaction():
            gone = later.cancel(me(), series, booking.starts_at)
    except DomainError as error:
        return show.page(bookings.get(me(), booking_id), refused=error, status=status_of(error))
    wake_if_due(gone[0])
    hours = hours_text(sum(tariff.cost(one) for one in gone))
    flash(
        ngettext(
            "%(num)s booking cancelled: %(hours)s GPU-hours given back.",
            "%(num)s bookings cancelled: %(hours)s GPU-hours given back.",
            len(gone),
            hours=hours,
        )
    )
    return go(url_for("bookings.series", series_id=series.id))


@bp.get(f"/{ID}/later/change")
def ask_change_later(booking_id: int) -> Response:
    """The form for other hours; with `check`, what they would do to each. Changes nothing."""
    booking, series = _of(booking_id)
    if "start_time" in request.args:
        return _checked(booking, series, HoursForm(formdata=request.args))
    texts = (repeat.clock_text(seconds % DAY) for seconds in (series.opens, series.closes))
    return _page(booking, series, HoursForm(formdata=None, **dict(zip(("start_time", "end_time"), texts, strict=True))))


@bp.post(f"/{ID}/later/change")
@comes_back(lambda: filled_in("bookings.ask_change_later", "only"))
def change_later(booking_id: int) -> Response:
    """Move those that were shown to fit, all of them or none."""
    booking, series = _of(booking_id)
    form = HoursForm(formdata=request.form)
    try:
        only = carried.gpu_numbers(request.form.get("only", "").split(",")[:1000])
        hours = _hours(series, form)
        with transaction():
            made, moves = later.move(me(), series, booking.starts_at, hours, slot(), only)
    except NotFound:
        raise
    except Conflict as error:
        return _checked(*_of(booking_id), form, error)
    except InvalidInput as error:
        form.refuse(error)
        return _page(*_of(booking_id), form, status=422)
    except DomainError as error:
        return show.page(bookings.get(me(), booking_id), refused=error, status=status_of(error))
    wake_if_due(reading.members(made.id)[0])
    changed, fee = sum(one.changed for one in moves), sum(one.fee for one in moves)
    told = ngettext("%(num)s booking changed.", "%(num)s bookings changed.", changed)
    flash(f"{told} {costs.late(made.account_id, fee)}" if fee else told)
    return go(url_for("bookings.series", series_id=made.id))


def _of(booking_id: int) -> tuple[Booking, Series]:
    """A booking and its series. Raises NotFound for one that is none of a series."""
    booking = bookings.get(me(), booking_id)
    if booking.series_id is None:
        raise NotFound(_("There is no booking %(id)s of a series of yours.", id=booking_id))
    return booking, reading.get(me(), booking.series_id)


def _none_left() -> DomainError:
    return DomainError(_("Nothing of this series is to come from there on."), _("See what became of it."))


def _given_back(series: Series, found: list[Booking]) -> list[str]:
    """What giving them back returns, and what that costs where it is late."""
    facts = [costs.given_back(sum(tariff.cost(one) for one in found))]
    now = clock.now()
    fee = sum(fees.late(one, one.starts_at, one.ends_at, now) for one in found)
    if fee and series.user_id == me().id:
        facts.append(costs.late(series.account_id, fee))
    return facts


def _hours(series: Series, form: HoursForm) -> tuple[int, int]:
    """What was typed, in seconds since midnight. Raises InvalidInput naming the field."""
    start = local_times.parse_time(form.start_time.data or "", "start_time")
    end = local_times.parse_time(form.end_time.data or "", "end_time")
    opens = int(start.total_seconds()) % DAY
    return opens, repeat.closes_after(opens, end, reading.pattern_of(series))


def _checked(booking: Booking, series: Series, form: HoursForm, changed: Conflict | None = None) -> Response:
    try:
        moves = later.preview(me(), series, booking.starts_at, _hours(series, form), slot())
    except InvalidInput as error:
        form.refuse(error)
        return _page(booking, series, form, status=422)
    except DomainError as error:
        return show.page(bookings.get(me(), booking.id), refused=error, status=status_of(error))
    fits = [move for move in moves if move.refused is None]
    context: dict[str, Any] = {
        "changed": changed,
        "rows": [_row(move) for move in moves],
        "lead": _("%(fits)s of %(count)s fit", fits=len(fits), count=len(moves))
        if len(fits) < len(moves)
        else ngettext("It fits", "All %(num)s fit", len(moves)),
        "price": _price(series, fits),
        "role": "refused" if changed or not fits else "in-use" if len(fits) == len(moves) else "attention",
        "only": ",".join(str(move.booking_id) for move in fits),
        "button": ngettext("Change this one", "Change all %(num)s", len(moves))
        if len(fits) == len(moves)
        else ngettext("Change the one that fits", "Change the %(num)s that fit", len(fits)),
    }
    return _page(*_of(booking.id), form, checked=context, status=409 if changed or not fits else 200)


def _row(move: Move) -> dict[str, str]:
    return {
        "before": words.span(move.before.starts_at, move.before.ends_at),
        "span": words.span(move.after.starts_at, move.after.ends_at),
        "reason": str(move.refused or ""),
    }


def _price(series: Series, moves: list[Move]) -> str:
    more, fee = costs.more(sum(move.more for move in moves)), sum(move.fee for move in moves)
    return f"{more} {costs.late(series.account_id, fee)}" if fee else more


def _page(booking: Booking, series: Series, form: HoursForm, *, status: int = 200, **context: Any) -> Response:
    return render(
        "bookings/change_later.html",
        booking=booking,
        series=series,
        title_text=series_page.title(series),
        form=form,
        zone=series.zone,
        errors_found=bool(form.errors),
        status=status,
        **context,
    )
