"""Find a slot: what is wished, several proposals with a button each, and what is free this minute."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, Response, request
from wtforms import SelectField, StringField

from app import clock
from app.errors import DomainError, InvalidInput
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services import openings, slots
from app.services.refusals import Offer
from app.services.rules import classes
from app.services.slots import Wish
from app.web import local_times, times
from app.web.bookings import budget, words
from app.web.bookings.blueprint import slot
from app.web.errors import status_of
from app.web.forms import PageForm
from app.web.numbers import whole
from app.web.render import render
from app.web.sessions import me
from app.web.times import moment_text

bp = Blueprint("find", __name__, url_prefix="/find")


class FindForm(PageForm):
    """All as typed; `_wish` makes sense of it."""

    count = StringField(_l("GPUs"), default="1")
    model = SelectField(_l("GPU model"), validate_choice=False)
    host = SelectField(_l("Host"), validate_choice=False)
    hours = StringField(_l("Duration"), default="4")
    after_date = StringField(_l("Not before"))
    before_date = StringField(_l("Over before"))
    near_date = StringField(_l("Closest to"))
    near_time = StringField(_l("at"))
    account = SelectField(_l("Account"), validate_choice=False)


@bp.get("")
def index() -> Response:
    """The form; with `find`, what could be booked. Changes nothing."""
    if "find" not in request.args:
        chosen = {name: request.args.get(name, "") for name in ("model", "host")}
        chosen["account"] = request.args.get("account", budget.usual_account())
        return _page(_with_lists(FindForm(formdata=None, **chosen)))
    form = _with_lists(FindForm(formdata=request.args))
    wish: Wish | None = None
    try:
        wish = _wish(form)
        found = slots.find(me(), wish, slot())
    except InvalidInput as error:
        form.refuse(error)
        return _page(form, status=422)
    except DomainError as error:
        return _page(form, refused=error, wish=wish if error.code == "quota" else None, status=status_of(error))
    return _page(
        form, found=found, wish=wish, offers=[_shown(offer, wish, place) for place, offer in enumerate(found.offers)]
    )


def _page(form: FindForm, *, status: int = 200, **more: Any) -> Response:
    now, not_now = _free_now(form) if "found" not in more else ([], None)
    rules = classes.rules_for(budget.payer(me(), _known(form.account)))
    return render(
        "find/index.html",
        form=form,
        errors_found=bool(form.errors or form.form_errors),
        free_now=[_shown_now(offer) for offer in now],
        not_now=not_now,
        rules=rules,
        status=status,
        **{"offers": [], "found": None, "refused": None, "wish": None} | more,
    )


def _free_now(form: FindForm) -> tuple[list[Offer], DomainError | None]:
    """What could be booked this minute, or why none of what is free."""
    try:
        return slots.free_now(me(), slot(), _known(form.model), _known(form.host), _known(form.account)), None
    except InvalidInput:  # there is none to book at all
        return [], None
    except DomainError as error:
        return [], error


def _wish(form: FindForm) -> Wish:
    zone = times.viewer_zone()
    count = whole((form.count.data or "").strip(), 3)
    if not count:
        raise InvalidInput(_("Give a whole number, such as 1."), field="count")
    seconds = local_times.parse_hours(form.hours.data or "", "hours")

    def day(name: str, since_midnight: timedelta = timedelta()) -> datetime | None:
        text = form[name].data or ""
        return local_times.moment(local_times.parse_date(text, name), since_midnight, zone, name) if text else None

    near_time = form.near_time.data or ""
    near = day("near_date", local_times.parse_time(near_time, "near_time") if near_time else timedelta(hours=9))
    if near is None and near_time:
        today = clock.now().astimezone(zone).date()
        near = local_times.moment(today, local_times.parse_time(near_time, "near_time"), zone, "near_time")
        near += timedelta(days=1) if near < clock.now() else timedelta()
    return Wish(
        count=int(count),
        seconds=seconds,
        model=_known(form.model),
        host=_known(form.host),
        not_before=day("after_date"),
        before=day("before_date"),
        near=near,
        account=form.account.data or "",
    )


def _shown(offer: Offer, wish: Wish, place: int) -> dict[str, Any]:
    """A proposal as bookings/_offers.html shows it: the first one says why it is the first."""
    lead = "" if place else _("Closest:") if wish.near else _("Earliest:")
    ask = replace(offer.ask, host=wish.host)
    what = words.what(len(offer.proposal.gpus), offer.proposal.gpus[0].host.name)
    return _offer(offer, ask, lead or _("Or:"), _("Book %(what)s", what=what))


def _shown_now(offer: Offer) -> dict[str, Any]:
    gpu = offer.proposal.gpus[0]
    until = moment_text(offer.proposal.window.ends_at, "EEE HH:mm")
    text = _("Book now, until %(end)s", end=until)
    return _offer(offer, offer.ask, f"{gpu.host.name}, {gpu.model.replace('NVIDIA ', '')}:", text)


def _offer(offer: Offer, ask: Any, lead: str, text: str) -> dict[str, Any]:
    sentence = f"{words.proposed(offer.proposal)} {words.price(offer.proposal)}"
    return {"lead": lead, "text": text, "sentence": sentence, "ask": ask, "proposal": offer.proposal}


def _with_lists(form: FindForm) -> FindForm:
    gpus = openings.usable_gpus()
    form.model.choices = [("", _("Any")), *((name, name) for name in sorted({gpu.model for gpu in gpus}))]
    form.host.choices = [("", _("Any")), *((name, name) for name in sorted({gpu.host.name for gpu in gpus}))]
    form.account.choices = [("", _("My own")), *budget.team_accounts()]
    return form


def _known(field: SelectField) -> str:
    """What was chosen, if it is in the list."""
    return field.data if field.data in {value for value, _text in field.choices} else ""
