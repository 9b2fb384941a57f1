"""What one is told and by which ways, under Settings."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, flash, request, url_for
from wtforms import StringField
from wtforms.validators import Optional

from app.errors import DomainError, InvalidInput
from app.extensions import limiter, settings, transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services import channels, notices
from app.services.notices import MAIL
from app.web import post_words
from app.web.forms import PageForm, at_most, required
from app.web.render import go, render
from app.web.security import keeps_out
from app.web.sessions import me

bp = Blueprint("notices", __name__, url_prefix="/settings/notices")


class ServiceForm(PageForm):
    """A service's address, a secret, and what to call it."""

    address = StringField(_l("Address of the service"), [required(), at_most(channels.ADDRESS_LENGTH)])
    name = StringField(_l("Name"), [Optional(), at_most(channels.NAME_LENGTH)])


@bp.get("")
def index() -> Response:
    """What one chose, one's services, and the last messages."""
    return _page(ServiceForm(formdata=None))


@bp.post("")
def choose() -> Response:
    """Set what one is told."""
    with transaction():
        notices.choose(me(), {event: request.form.getlist(event.value) for event in notices.offered(me())})
    flash(_("Saved."))
    return go(url_for("notices.index"))


@bp.post("/services")
@keeps_out("address")
@limiter.limit("20 per hour")
def add() -> Response:
    """Add a service."""
    form = ServiceForm()
    if form.validate():
        try:
            with transaction():
                channel = channels.add(
                    me(),
                    form.name.data or "",
                    form.address.data,
                    allowed=settings().notify,
                    secret_key=current_app.config["SECRET_KEY"],
                )
        except InvalidInput as error:
            form.refuse(error)
        else:
            flash(_("%(name)s added. Send a test to see whether it works.", name=channel.name))
            return go(url_for("notices.index"))
    return _page(form, 422)


@bp.post("/test")
@limiter.limit("20 per hour")
def send_test() -> Response:
    """Send a test by one way."""
    try:
        with transaction():
            channels.test(me(), request.form.get("way", ""), mail=bool(settings().smtp))
    except InvalidInput as error:
        flash(str(error), "error")
    else:
        flash(_("A test is on its way. Below it says in a moment whether it went out."))
    return go(url_for("notices.index", _anchor="last"))


@bp.get("/services/<int(max=9223372036854775807):channel_id>/remove")
def remove_form(channel_id: int) -> Response:
    """Ask whether it is meant."""
    channel = channels.get(me(), channel_id)
    return render(
        "confirm.html",
        title=_("Remove %(name)s?", name=channel.name),
        lead=_("You are told nothing there any more, and what waits to go there is dropped."),
        action=url_for("notices.remove", channel_id=channel.id),
        button=_("Remove service"),
        back_url=url_for("notices.index"),
        danger=True,
    )


@bp.post("/services/<int(max=9223372036854775807):channel_id>/remove")
def remove(channel_id: int) -> Response:
    """Forget a service."""
    with transaction():
        channel = channels.remove(me(), channel_id)
    flash(_("%(name)s removed.", name=channel.name))
    return go(url_for("notices.index"))


def _page(form: ServiceForm, status: int = 200, error: DomainError | None = None) -> Response:
    mine = notices.channels_of(me())
    return render(
        "settings/notices.html",
        status=status,
        form=form,
        errors_found=status != 200,
        error=error,
        postal=bool(settings().smtp),
        channels=mine,
        ways=[(MAIL, _("E-mail")), *((str(channel.id), channel.name) for channel in mine)],
        chosen=notices.chosen(me()),
        events=[(event, *post_words.EVENTS[event]) for event in notices.offered(me())],
        latest=notices.latest(me()),
        names={channel.id: channel.name for channel in mine},
        words=post_words,
        minutes=round(notices.GATHER.total_seconds() / 60),
    )
