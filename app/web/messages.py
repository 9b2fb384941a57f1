"""For admins: messages to people that could not be sent."""

from __future__ import annotations

from flask import Blueprint, Response, flash, url_for

from app.extensions import transaction
from app.language import gettext as _
from app.services import outbox
from app.web import post_words
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("messages", __name__, url_prefix="/messages")

NUMBER = "<int(max=9223372036854775807):notice_id>"


@bp.get("")
@admin_required
def index() -> Response:
    """What was given up, newest first."""
    found = outbox.given_up()
    return render("messages/index.html", notices=found, total=outbox.count_given_up(), words=post_words)


@bp.post(f"/{NUMBER}/again")
@admin_required
def again(notice_id: int) -> Response:
    """Try once more."""
    with transaction():
        outbox.again(me().username, notice_id)
    flash(_("It is tried again now."))
    return go(url_for("messages.index"))


@bp.post(f"/{NUMBER}/drop")
@admin_required
def drop(notice_id: int) -> Response:
    """Forget it."""
    with transaction():
        outbox.drop(me().username, notice_id)
    flash(_("Dropped."))
    return go(url_for("messages.index"))
