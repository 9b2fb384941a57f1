"""The booking form with days to repeat on: each booking shown first, then all of them booked, or those that fit."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from flask import Response, flash, request, url_for

from app.errors import Conflict, DomainError, InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.language import ngettext
from app.services.claims import Ask
from app.services.series import making
from app.services.series.making import Outcome
from app.services.series.trial import Plan, Wish
from app.services.windows import hours_text
from app.services.words import gpu_list
from app.web.bookings import carried, form_page, repeat, words
from app.web.bookings import form as forms
from app.web.bookings.blueprint import bp, slot
from app.web.bookings.form import BookingForm
from app.web.errors import status_of
from app.web.forms import filled_in
from app.web.render import go
from app.web.security import comes_back
from app.web.sessions import me
from app.web.wakes import wake_if_due

KEY_LENGTH = 64


def checked(form: BookingForm, ask: Ask | None) -> Response:
    """Each booking and whether it fits; nothing is booked."""
    if ask is not None and "hours" in request.args:  # the end that a button chose is what its form sends
        filled = form_page.with_lists(forms.of_ask(ask))
        filled.repeat.data, filled.until.data = form.repeat.data, form.until.data
        form = filled
    wish = _wish(form, ask)
    return _shown(form, wish) if wish else form_page.page(form, status=422)


def _again() -> str:
    """The same days looked at anew, where whoever sent them was signed out meanwhile."""
    return filled_in("bookings.new", "plan", check=1)


@bp.post("/series")
@comes_back(_again)
def create_series() -> Response:
    """Book what was shown, all of it or nothing; else say what has changed."""
    form = form_page.with_lists(forms.typed(request.form))
    key = request.form.get("request_key", "")[:KEY_LENGTH] or secrets.token_urlsafe(16)
    wish = _wish(form, forms.read(form))
    if wish is None:
        return form_page.page(form, status=422)
    try:
        plan = _plan()
        with transaction():
            made = making.create(me(), replace(wish, ask=replace(wish.ask, request_key=key)), slot(), plan=plan)
    except InvalidInput as error:
        form.refuse(error)
        return form_page.page(form, status=422)
    except Conflict as error:
        return _shown(form, wish, error)
    wake_if_due(made.bookings[0])
    flash(ngettext("%(num)s booking made.", "%(num)s bookings made.", len(made.bookings)))
    return go(url_for("bookings.series", series_id=made.series.id))


def row(one: Any) -> dict[str, Any]:
    """One booking of a table: when, whether it fits, what it gets and costs."""
    error: DomainError | None = one.refused
    return {
        "span": words.span(one.window.starts_at, one.window.ends_at),
        "reason": str(error) if error else "",
        "gpus": _("%(host)s, %(gpus)s", host=one.gpus[0].host.name, gpus=gpu_list(one.gpus)) if one.gpus else "",
        "cost": one.cost,
    }


def _wish(form: BookingForm, ask: Ask | None) -> Wish | None:
    """What was typed; None if it cannot be meant, and then each field says why."""
    for part in (repeat.days, repeat.last_day):
        try:
            part(form)
        except InvalidInput as error:
            form.refuse(error)
    if ask is None or form.errors:
        return None
    try:
        return Wish(repeat.pattern(form, ask), ask)
    except InvalidInput as error:
        form.refuse(error)
        return None


def _shown(form: BookingForm, wish: Wish, changed: Conflict | None = None) -> Response:
    try:
        outcome = making.preview(me(), wish, slot())
    except InvalidInput as error:
        form.refuse(error)
        return form_page.page(form, status=422)
    except DomainError as error:  # nobody could book it, whenever it were
        return form_page.page(form, refused=error, status=status_of(error))
    fitting = outcome.fitting
    series = {
        "title": _("Not booked") if changed or not fitting else _title(outcome),
        "changed": changed,
        "lead": _lead(wish, outcome),
        "price": _price(outcome) if fitting else "",
        "rows": [row(one) for one in outcome.occurrences],
        "role": "refused"
        if changed or not fitting
        else "in-use"
        if len(fitting) == len(outcome.occurrences)
        else "attention",
        "button": _button(outcome),
        "plan": [_planned(one) for one in fitting],
        "no_machine": outcome.no_machine,
    }
    status = 409 if changed or not fitting else 200
    return form_page.page(form, series=series, status=status)


def _title(outcome: Outcome) -> str:
    count, fits = len(outcome.occurrences), len(outcome.fitting)
    if count == fits:
        return ngettext("It fits", "All %(num)s fit", count)
    return _("%(fits)s of %(count)s fit", fits=fits, count=count)


def _lead(wish: Wish, outcome: Outcome) -> str:
    gpus = {one.gpus for one in outcome.fitting}
    count = len(set(wish.ask.gpu_ids)) or wish.ask.count
    what = ngettext("%(num)s GPU", "%(num)s GPUs", count)
    if len(gpus) == 1:
        same = next(iter(gpus))
        what = _("%(host)s, %(gpus)s", host=same[0].host.name, gpus=gpu_list(same))
    return _("%(what)s, %(pattern)s.", what=what, pattern=repeat.text(wish.pattern))


def _price(outcome: Outcome) -> str:
    return _(
        "Costs %(cost)s GPU-hours; %(after)s of %(before)s left after.",
        cost=hours_text(outcome.cost),
        after=hours_text(outcome.free - outcome.cost),
        before=hours_text(outcome.free),
    )


def _button(outcome: Outcome) -> str:
    count, fits = len(outcome.occurrences), len(outcome.fitting)
    if count == fits:
        return ngettext("Book this one", "Book all %(num)s", count)
    return ngettext("Book the one that fits", "Book the %(num)s that fit", fits)


def _planned(one: Any) -> str:
    return f"{one.window.starts_at.isoformat()} {','.join(str(gpu.id) for gpu in one.gpus)}"


def _plan() -> Plan:
    """What the page showed, as its button sends it. Raises InvalidInput if somebody changed it to nonsense."""
    plan = {}
    for text in request.form.getlist("plan")[:1000]:
        moment, _space, ids = text.partition(" ")
        plan[carried.sent_moment(moment, "start_time")] = carried.gpu_numbers(ids.split(",")[:64])
    if not plan:
        raise InvalidInput(_("This form is no longer valid."), _("Check the booking again."), field="until")
    return plan
