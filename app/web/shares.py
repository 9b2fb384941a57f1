"""For admins: directories of a host that people's machines get to see."""

from __future__ import annotations

import re

from flask import Blueprint, Response, flash, request, url_for
from wtforms import RadioField, StringField
from wtforms.validators import ValidationError

from app import queue
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Host, SharedDirectory, User
from app.services import accounts, inventory, shares
from app.services.shares import Terms
from app.web import share_words
from app.web.forms import PageForm, at_most, required
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("shares", __name__, url_prefix="/hosts/<host_name>/shares")

KINDS = {"read": (True, False), "common": (False, False), "own": (False, True)}


class ShareForm(PageForm):
    """What an admin says of a shared directory."""

    name = StringField(_l("Name"), [required(), at_most(63)])
    source = StringField(_l("Directory on the host"), [required(), at_most(200)])
    path = StringField(_l("Place in the machines"), [required(), at_most(200)])
    kind = RadioField(
        _l("What it is"),
        choices=[(name, share_words.KINDS[value]) for name, value in KINDS.items()],
        default="read",
    )
    people = StringField(_l("For whom"), [at_most(4000)])

    def validate_people(self, field: StringField) -> None:
        """Usernames that there are."""
        for name in _names(field.data):
            try:
                accounts.get(name)
            except NotFound:
                raise ValidationError(_("There is nobody called %(name)s.", name=name)) from None

    def refuse(self, error: InvalidInput) -> None:
        """The page has one field for what the service knows as two."""
        if error.field == "own":
            error.field = "kind"
        super().refuse(error)


@bp.get("")
@admin_required
def index(host_name: str) -> Response:
    """A host's shared directories, and what its agent found of them."""
    host = inventory.host(host_name)
    found, leaving = shares.of_host(host), shares.leaving(host)
    poll = url_for("shares.index", host_name=host.name) if leaving or share_words.waiting(found) else ""
    return render(
        "shares/index.html", fragment="shares/_cards.html", host=host, shares=found, leaving=leaving, words=share_words,
        poll=poll,
    )  # fmt: skip


@bp.get("/new")
@admin_required
def new(host_name: str) -> Response:
    """The form for one more."""
    return _form_page(inventory.host(host_name), ShareForm(formdata=None))


@bp.post("/new")
@admin_required
def create(host_name: str) -> Response:
    """Offer one more; its page shows what the host's agent finds."""
    host, form = inventory.host(host_name), ShareForm()
    if not form.validate():
        return _form_page(host, form)
    try:
        with transaction():
            made = shares.add(me().username, host, _terms(form))
    except InvalidInput as error:
        form.refuse(error)
        return _form_page(host, form)
    queue.wake(host.name)
    flash(_("%(name)s is added. Switch it on when the host's agent has looked at it.", name=made.name))
    return go(url_for("shares.index", host_name=host.name))


@bp.get("/<name>")
@admin_required
def edit(host_name: str, name: str) -> Response:
    """The form with what holds now."""
    host, share = _share(host_name, name)
    kind = next(kind for kind, value in KINDS.items() if value == (share.read_only, share.own))
    people = "" if share.for_everyone else " ".join(sorted(user.username for user in share.users))
    values = {"name": share.name, "source": share.source, "path": share.path, "kind": kind, "people": people}
    return _form_page(host, ShareForm(formdata=None, **values), share)


@bp.post("/<name>")
@admin_required
def change(host_name: str, name: str) -> Response:
    """Offer it otherwise."""
    (host, share), form = _share(host_name, name), ShareForm()
    if not form.validate():
        return _form_page(host, form, share)
    try:
        with transaction():
            shares.change(me().username, host, share, _terms(form))
    except InvalidInput as error:
        form.refuse(error)
        return _form_page(host, form, share)
    queue.wake(host.name)
    flash(_("Saved."))
    return go(url_for("shares.index", host_name=host.name))


@bp.post("/<name>/switch")
@admin_required
def switch(host_name: str, name: str) -> Response:
    """Put it into people's machines, or take it out."""
    host, share = _share(host_name, name)
    on = request.form.get("on") == "1"
    try:
        with transaction():
            shares.switch(me().username, host, share, on=on)
    except RuleRefused as error:
        flash(str(error), "error")
        return go(url_for("shares.index", host_name=host.name))
    queue.wake(host.name)
    flash(_("%(name)s is on.", name=name) if on else _("%(name)s is off.", name=name))
    return go(url_for("shares.index", host_name=host.name))


@bp.post("/<name>/look")
@admin_required
def look(host_name: str, name: str) -> Response:
    """Have the host's agent look at it anew."""
    host, share = _share(host_name, name)
    with transaction():
        shares.look_again(share)
    queue.wake(host.name)
    return go(url_for("shares.index", host_name=host.name))


@bp.get("/<name>/retire")
@admin_required
def ask_retire(host_name: str, name: str) -> Response:
    """What retiring it means."""
    host, share = _share(host_name, name)
    return render(
        "confirm.html",
        title=_("Retire %(name)s?", name=share.name),
        lead=_("It is taken out of all machines, without restarting them."),
        facts=[
            _("What lies in %(source)s stays on the host.", source=share.source),
            _("What a machine has open there, or mounted a second time, it keeps until it is restarted."),
        ],
        action=url_for("shares.retire", host_name=host.name, name=share.name),
        button=_("Retire %(name)s", name=share.name),
        back_url=url_for("shares.index", host_name=host.name),
        danger=True,
    )


@bp.post("/<name>/retire")
@admin_required
def retire(host_name: str, name: str) -> Response:
    """Take it out of all machines for good."""
    host, share = _share(host_name, name)
    with transaction():
        shares.retire(me().username, host, share)
    queue.wake(host.name)
    flash(_("%(name)s is retired.", name=name))
    return go(url_for("shares.index", host_name=host.name))


def _share(host_name: str, name: str) -> tuple[Host, SharedDirectory]:
    host = inventory.host(host_name)
    return host, shares.get(host, name)


def _names(text: str | None) -> list[str]:
    return [name for name in re.split(r"[\s,;]+", text or "") if name]


def _terms(form: ShareForm) -> Terms:
    read_only, own = KINDS[form.kind.data]
    people: tuple[User, ...] | None = tuple(accounts.get(name) for name in _names(form.people.data)) or None
    name, source, path = (field.data.strip() for field in (form.name, form.source, form.path))
    return Terms(name, source.rstrip("/"), path.rstrip("/"), read_only, own, people)


def _form_page(host: Host, form: ShareForm, share: SharedDirectory | None = None) -> Response:
    wrong = bool(form.errors)
    return render(
        "shares/form.html", status=422 if wrong else 200, errors_found=wrong, host=host, form=form, share=share
    )
