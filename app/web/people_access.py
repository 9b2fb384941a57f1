"""What shuts people out or lets them run the lab: each on a page of its own that says what will happen."""

from __future__ import annotations

from flask import Response, flash, url_for
from flask_babel import gettext as _

from app.extensions import transaction
from app.models import Role
from app.services import accounts
from app.web.people import bp
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me


@bp.get("/<username>/suspend")
@admin_required
def suspend_form(username: str) -> Response:
    """Ask whether it is meant."""
    person = accounts.get(username)
    return render(
        "confirm.html",
        title=_("Suspend %(name)s?", name=person.display_name),
        lead=_("%(name)s is signed out everywhere at once and cannot sign in again.", name=person.display_name),
        facts=[
            _("Their API tokens stop working."),
            _("Their machine, its data and their hours are kept."),
            _("Their bookings stay: cancel those that others should have."),
        ],
        action=url_for("people.suspend", username=username),
        button=_("Suspend %(name)s", name=person.display_name),
        back_url=url_for("people.show", username=username),
        danger=True,
    )


@bp.post("/<username>/suspend")
@admin_required
def suspend(username: str) -> Response:
    """Shut somebody out."""
    with transaction():
        person = accounts.suspend(username, actor=me().username)
    flash(_("Suspended %(name)s", name=person.display_name))
    return go(url_for("people.show", username=username))


@bp.post("/<username>/restore")
@admin_required
def restore(username: str) -> Response:
    """Let somebody in again."""
    with transaction():
        person = accounts.restore(username, actor=me().username)
    flash(_("%(name)s can sign in again", name=person.display_name))
    return go(url_for("people.show", username=username))


@bp.get("/<username>/role/<any(user, admin):role>")
@admin_required
def role_form(username: str, role: str) -> Response:
    """Ask whether it is meant."""
    person = accounts.get(username)
    if role == Role.ADMIN:
        title, button = _("Make %(name)s an admin?"), _("Make %(name)s an admin")
        lead = _("Admins approve people, grant hours, change the rules and see everything.")
    else:
        title, button = _("Remove %(name)s as admin?"), _("Remove %(name)s as admin")
        lead = _("%(name)s keeps the account and the machine, and cannot manage the lab any more.")
    name = {"name": person.display_name}
    return render(
        "confirm.html",
        title=title % name,
        lead=lead % name,
        facts=[_("%(name)s has to sign in again.", **name)],
        action=url_for("people.role", username=username, role=role),
        button=button % name,
        back_url=url_for("people.show", username=username),
        danger=role == Role.ADMIN,
    )


@bp.post("/<username>/role/<any(user, admin):role>")
@admin_required
def role(username: str, role: str) -> Response:
    """Make somebody an admin, or no longer one."""
    with transaction():
        person = accounts.set_role(username, Role(role), actor=me().username)
    name = {"name": person.display_name}
    flash(_("%(name)s is an admin now", **name) if person.is_admin else _("%(name)s is no admin any more", **name))
    return go(url_for("people.show", username=username))
