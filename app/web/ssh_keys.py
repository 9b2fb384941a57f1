"""One's own SSH keys, under Settings: they are written into one's machines by the hosts' agents."""

from __future__ import annotations

from flask import Blueprint, Response, flash, request, url_for
from wtforms import StringField, TextAreaField
from wtforms.validators import Optional

from app import queue
from app.errors import InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import User
from app.services import instances, ssh_keys
from app.web.forms import PageForm, at_most, required
from app.web.render import go, render
from app.web.sessions import me

bp = Blueprint("ssh_keys", __name__, url_prefix="/settings/keys")


class KeyForm(PageForm):
    """A public key and what to call it."""

    key = TextAreaField(_l("Public key"), [required(), at_most(ssh_keys.LONGEST)])
    name = StringField(_l("Name"), [Optional(), at_most(ssh_keys.NAME_LENGTH)])


@bp.get("")
def index() -> Response:
    """The keys, and a form for one more."""
    return _page(KeyForm(formdata=None))


@bp.post("")
def add() -> Response:
    """Add a key. From a machine's page one goes back there."""
    form = KeyForm()
    if form.validate():
        try:
            with transaction():
                ssh_keys.add(me().username, me(), form.key.data, form.name.data or "")
        except InvalidInput as error:
            form.refuse(error)
        else:
            wake_for(me())
            flash(_("Key added. Your machines that run have it within seconds."))
            return go(_back())
    return _page(form, 422)


@bp.get("/<int:key_id>/remove")
def remove_form(key_id: int) -> Response:
    """Ask whether it is meant."""
    key = ssh_keys.get(me(), key_id)
    return render(
        "confirm.html",
        title=_("Remove the key %(name)s?", name=key.name),
        lead=_("It is taken out of your machines. Whoever is signed in with it now stays so until they leave."),
        facts=[key.fingerprint],
        action=url_for("ssh_keys.remove", key_id=key_id),
        button=_("Remove key"),
        back_url=url_for("ssh_keys.index"),
        danger=True,
    )


@bp.post("/<int:key_id>/remove")
def remove(key_id: int) -> Response:
    """Take a key away."""
    with transaction():
        key = ssh_keys.remove(me().username, me(), key_id)
    wake_for(me())
    flash(_("Key %(name)s removed.", name=key.name))
    return go(url_for("ssh_keys.index"))


def wake_for(user: User) -> None:
    """The agents of all hosts where this person has a machine."""
    for name in ssh_keys.hosts_of(user.id):
        queue.wake(name)


def _back() -> str:
    name = request.form.get("machine", "")
    if instances.NAME.fullmatch(name):
        return url_for("machines.show", name=name)
    return url_for("ssh_keys.index")


def _page(form: KeyForm, status: int = 200) -> Response:
    return render(
        "settings/keys.html", status=status, form=form, errors_found=bool(form.errors), keys=ssh_keys.of_user(me().id)
    )
