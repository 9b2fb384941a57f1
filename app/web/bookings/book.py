"""The booking form, its check, and booking."""

from __future__ import annotations

import secrets
from dataclasses import replace

from flask import Response, request, url_for

from app import clock
from app.errors import DomainError, InvalidInput
from app.extensions import transaction
from app.services import bookings, openings, quota, refusals
from app.services.bookings import Ask
from app.services.rules import classes
from app.web.bookings import budget, carried, form_page, repeat, series_form
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


@bp.get("/new")
def new() -> Response:
    """The form, filled from a link; with `check`, whether it would be booked. Changes nothing."""
    if "start_date" in request.args:
        form = form_page.with_lists(forms.typed(request.args))
        if "check" not in request.args and "hours" not in request.args:
            return form_page.page(form)
        ask = forms.read(form, request.args.get("hours", ""))
        if repeat.wanted(form):
            return series_form.checked(form, ask)
        if ask is None:
            return form_page.page(form, status=422)
    else:
        form, ask = _from_link()
        if "check" not in request.args:
            return form_page.page(form)
    return _checked(form, ask)


def _again() -> str:
    """The form with what was sent, where whoever sent it was signed out meanwhile."""
    if "ends_at" not in request.form:
        return filled_in("bookings.new")
    try:
        return url_for("bookings.new", check=1, **forms.as_values(_sent()))
    except InvalidInput:
        return url_for("bookings.new")


@bp.post("")
@comes_back(_again)
def create() -> Response:
    """Book what was checked, or say why not and what would work."""
    if "ends_at" in request.form:
        asked = _sent()
        form = form_page.with_lists(forms.of_ask(asked))
    else:
        form = form_page.with_lists(forms.typed(request.form))
        read = forms.read(form)
        if read is None:
            return form_page.page(form, status=422)
        asked = replace(read, request_key=_key())
    try:
        with transaction():
            booking = bookings.create(me(), _as_shown(asked), slot())
    except InvalidInput as error:
        form.refuse(error)
        return form_page.page(form, status=422)
    except DomainError as error:
        return _refused(form, asked, error, keep=True)
    wake_if_due(booking)
    return go(url_for("bookings.show", booking_id=booking.id))


def _from_link() -> tuple[BookingForm, Ask]:
    try:
        ask = forms.of_link(request.args, carried.gpu_numbers(request.args.getlist("gpu")[:64]))
    except InvalidInput:
        ask = forms.of_link(request.args, ())
    if ask.gpu_ids and "end" not in request.args:  # from a free place in the calendar: not beyond it
        start = ask.starts_at or clock.now()
        ask = forms.capped(ask, (openings.free_until(ask.gpu_ids, start, ask.ends_at) - start).total_seconds())
    if "now" in request.args:  # "Get a GPU now": as long as the rules and the quota allow, up to what is usual
        count = len(ask.gpu_ids) or ask.count
        account_id = budget.payer(me(), ask.account)
        free = quota.free(account_id) // count if account_id else 0
        ask = forms.capped(ask, min(classes.rules_for(account_id).max_hours * 3600, free or slot()))
    return form_page.with_lists(forms.of_ask(ask)), ask


def _checked(form: BookingForm, ask: Ask) -> Response:
    try:
        proposal = bookings.propose(me(), ask, slot())
    except InvalidInput as error:
        form.refuse(error)
        return form_page.page(form, status=422)
    except DomainError as error:
        return _refused(form, ask, error, keep=False)
    # What the sentence says is what "Book" books: the GPUs by name, the end to the second.
    found = replace(ask, ends_at=proposal.window.ends_at)
    if "hours" in request.args:
        form = form_page.with_lists(forms.of_ask(found))
    return form_page.page(form, proposal=proposal, ask=found)


def _refused(form: BookingForm, ask: Ask, error: DomainError, *, keep: bool) -> Response:
    """Not a typing mistake: a panel that says why, and what would work. `keep`: it is listed in My bookings."""
    if keep:
        with transaction():
            refusals.store(me(), ask, error)
        offers = refusals.offers(me(), ask, slot())[1]
    else:
        offers = refusals.instead(me(), ask, error, slot())
    return form_page.page(form, refused=error, offers=offers, ask=ask, status=status_of(error))


def _sent() -> Ask:
    """A request as the buttons "Book" send it: moments and ids, nothing to be guessed."""
    values = request.form
    return Ask(
        starts_at=carried.sent_moment(values["starts_at"], "start_time") if values.get("starts_at") else None,
        ends_at=carried.sent_moment(values["ends_at"], "end_time"),
        gpu_ids=_numbers("chosen"),
        count=carried.count_of(values),
        model=values.get("model", "")[:120],
        host=values.get("host", "")[:63],
        note=values.get("note", "").strip(),
        account=values.get("account", "")[:64],
        request_key=_key(),
    )


def _as_shown(asked: Ask) -> Ask:
    """The request with the very GPUs that the page named."""
    take = _numbers("take")
    return replace(asked, gpu_ids=take) if take else asked


def _numbers(name: str) -> tuple[int, ...]:
    """GPU ids in one hidden field: `12,13`."""
    text = request.form.get(name, "")
    return carried.gpu_numbers(text.split(",")[:64]) if text else ()


def _key() -> str:
    """What makes a form that is sent twice book once."""
    return request.form.get("request_key", "")[:KEY_LENGTH] or secrets.token_urlsafe(16)


def book_again(ask: Ask) -> str:
    """The form with the same request, from now on."""
    start = ask.starts_at or clock.now()
    length = ask.ends_at - start
    return url_for("bookings.new", **forms.as_values(replace(ask, starts_at=None, ends_at=clock.now() + length)))
