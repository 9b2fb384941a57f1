"""Joining the waiting list, one's places on it, offers, and who waits."""

from __future__ import annotations

import secrets

from flask import Response, flash, request, url_for

from app.errors import DomainError, InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.models import WaitState
from app.services import openings, policy
from app.services.rules import classes
from app.services.waits import joining, line, offers
from app.web.bookings import budget
from app.web.bookings.blueprint import slot
from app.web.errors import status_of
from app.web.forms import filled_in
from app.web.render import go, render
from app.web.security import admin_required, comes_back
from app.web.sessions import me
from app.web.waits import form as forms
from app.web.waits import words
from app.web.waits.blueprint import ID, bp, everybodys
from app.web.waits.form import WaitForm

KEY_LENGTH = 64


@bp.get("")
def index() -> Response:
    """One's own places and offers, and what became of the others."""
    return _index()


@bp.get("/new")
def new() -> Response:
    """The form, filled from a link, or with what was typed before."""
    return _form(_with_lists(forms.typed(request.args) if "end_time" in request.args else forms.of_link()))


@bp.post("")
@comes_back(lambda: filled_in("waits.new"))
def join() -> Response:
    """Stand at the end of the line. What is free at once is given at once."""
    form = _with_lists(forms.typed(request.form))
    wanted = forms.read(form, request.form.get("request_key", "")[:KEY_LENGTH] or secrets.token_urlsafe(16))
    if wanted is None:
        return _form(form, status=422)
    try:
        with transaction():
            joining.join(me(), wanted, slot())
    except InvalidInput as error:
        form.refuse(error)
        return _form(form, status=422)
    except DomainError as error:
        return _form(form, refused=error, status=status_of(error))
    flash(_("You are on the waiting list."))
    return go(url_for("waits.index"))


@bp.get(f"/{ID}/leave")
def ask_leave(wait_id: int) -> Response:
    """Are you sure?"""
    wait = line.get(me(), wait_id)
    offers.require_open(wait)
    shown = words.rows([wait])[0]
    offered = wait.state == WaitState.OFFERED
    goes_on = _("It goes to the next in line. It costs you nothing.")
    can_undo = _("You lose your place. For 10 minutes you can have it back.")
    return render(
        "confirm.html",
        title=_("Decline %(what)s?", what=shown.what) if offered else _("Leave the waiting list?"),
        lead=_("%(what)s, %(when)s.", what=shown.what, when=shown.when),
        facts=[goes_on if offered else can_undo],
        action=url_for("waits.leave", wait_id=wait.id),
        button=_("Decline") if offered else _("Leave the waiting list"),
        danger=True,
        back_url=url_for("waits.index"),
    )


@bp.post(f"/{ID}/leave")
def leave(wait_id: int) -> Response:
    """Give up a place, or decline an offer."""
    try:
        with transaction():
            wait = joining.leave(me(), wait_id)
    except DomainError as error:
        return _refused(wait_id, error)
    flash(_("Declined; it goes to the next in line.") if wait.booking_id else _("You left the waiting list."))
    return go(url_for("waits.index"))


@bp.post(f"/{ID}/back")
def come_back(wait_id: int) -> Response:
    """Undo that."""
    try:
        with transaction():
            joining.come_back(me(), wait_id)
    except DomainError as error:
        return _refused(wait_id, error)
    flash(_("You have your place again."))
    return go(url_for("waits.index"))


@bp.post(f"/{ID}/accept")
def accept(wait_id: int) -> Response:
    """Take an offer."""
    try:
        with transaction():
            wait = offers.accept(me(), wait_id)
    except DomainError as error:
        return _refused(wait_id, error)
    assert wait.booking_id is not None, "what was accepted is a booking"
    flash(_("It is yours."))
    return go(url_for("bookings.show", booking_id=wait.booking_id))


@everybodys.get("/everybody")
@admin_required
def everybody() -> Response:
    """Who waits, for what and for how long."""
    waits = line.everybody()
    gpus = openings.usable_gpus()
    found = [words.row(wait, waits, gpus) for wait in waits]
    return render("waits/everybody.html", rows=found, minutes=policy.current().offer_minutes)


def _index(refused: DomainError | None = None, status: int = 200) -> Response:
    found = words.rows(line.mine(me()))
    return render(
        "waits/index.html",
        offers=words.offered(found),
        waiting=[row for row in found if row.state == "in_line"],
        over=[row for row in found if row.state not in {"offered", "in_line"}],
        minutes=policy.current().offer_minutes,
        refused=refused,
        status=status,
    )


def _refused(wait_id: int, error: DomainError) -> Response:
    """One's places as they are now, with why it was not done; who has no such place is told just that."""
    line.get(me(), wait_id)
    return _index(error, status_of(error))


def _form(form: WaitForm, *, refused: DomainError | None = None, status: int = 200) -> Response:
    account_id = budget.payer(me(), form.account.data or "")
    ids = {str(number) for number in form.gpu.data or ()}
    return render(
        "waits/new.html",
        form=form,
        errors_found=bool(form.errors or form.form_errors),
        refused=refused,
        named=[gpu for gpu in openings.usable_gpus() if str(gpu.id) in ids],
        rules=classes.rules_for(account_id),
        left=budget.left(account_id),
        minutes=policy.current().offer_minutes,
        status=status,
    )


def _with_lists(form: WaitForm) -> WaitForm:
    gpus = openings.usable_gpus()
    models, hosts = sorted({gpu.model for gpu in gpus}), sorted({gpu.host.name for gpu in gpus})
    form.offer(models, hosts, budget.team_accounts())
    return form
