"""The form with which one joins: filled from a link or from what was typed, and read as what is wanted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask import request, url_for
from werkzeug.datastructures import MultiDict
from wtforms import RadioField, StringField

from app import clock
from app.errors import InvalidInput
from app.language import lazy_gettext as _l
from app.services.bookings import Ask
from app.services.slots import Wish
from app.services.waits.joining import Wanted
from app.services.windows import ceil_to_grid
from app.web import local_times
from app.web.bookings import carried
from app.web.bookings import form as forms
from app.web.bookings.blueprint import slot
from app.web.bookings.form import BookingForm
from app.web.waits.blueprint import EXACT, bp

AHEAD = timedelta(days=7)  # how long one waits if one does not say
BOOK, ASK = "book", "ask"


class WaitForm(BookingForm):
    """The booking form's fields, for how long within them, and what to do when it can be had."""

    hours = StringField(_l("For how long"))
    how = RadioField(
        _l("When it can be had"),
        choices=[(BOOK, _l("Book it for me")), (ASK, _l("Ask me first"))],
        default=BOOK,
        validate_choice=False,
    )


def of_link() -> WaitForm:
    """What a link asks for: the booking form's fields, and `hours`. Where it says nothing, four hours within a week."""
    args = request.args
    try:
        gpu_ids = carried.gpu_numbers(args.getlist("gpu")[:64])
    except InvalidInput:
        gpu_ids = ()
    week = ceil_to_grid(clock.now() + AHEAD, slot()).isoformat()
    ask = forms.of_link({**args.to_dict(), "end": args.get("end", week)}, gpu_ids)
    hours = args.get("hours", str(forms.USUAL_HOURS))[:16]
    return WaitForm(formdata=None, **forms.of_ask(ask).data | {"hours": "" if hours == EXACT else hours})


def typed(sent: MultiDict[str, str]) -> WaitForm:
    """What was sent."""
    return WaitForm(formdata=sent)


def read(form: WaitForm, request_key: str) -> Wanted | None:
    """What was typed; None if it cannot be meant, and then each field says why."""
    ask = forms.read(form)
    seconds = None
    if text := (form.hours.data or "").strip():
        try:
            seconds = local_times.parse_hours(text, "hours")
        except InvalidInput as error:
            form.refuse(error)
    if ask is None or form.errors:
        return None
    return Wanted(replace(ask, request_key=request_key), seconds, by_itself=form.how.data != ASK)


@bp.app_template_global()
def wait_url(ask: Ask) -> str:
    """The form, filled with a request that was refused: its time, or if it was to start now, as long within a week."""
    if ask.starts_at is not None and ask.starts_at > clock.now():
        return url_for("waits.new", **forms.as_values(ask, hours=EXACT))
    length = (ask.ends_at - (ask.starts_at or clock.now())).total_seconds()
    hours = f"{max(round(length / 900) / 4, 0.25):g}"
    values: dict[str, Any] = forms.as_values(ask, hours=hours)
    return url_for("waits.new", **{name: value for name, value in values.items() if name not in {"start", "end"}})


@bp.app_template_global()
def wait_url_of_wish(wish: Wish) -> str:
    """The form, filled with what was looked for and not found."""
    values: dict[str, Any] = {"count": wish.count, "model": wish.model, "host": wish.host, "account": wish.account}
    values |= {"hours": f"{wish.seconds / 3600:g}"}
    values |= {"start": wish.not_before.isoformat() if wish.not_before else ""}
    values |= {"end": wish.before.isoformat() if wish.before else ""}
    return url_for("waits.new", **{name: value for name, value in values.items() if value})
