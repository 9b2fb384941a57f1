"""What shuts people out or lets them run the lab: each on a page of its own that says what will happen."""

from __future__ import annotations

from flask import Response, flash, request, url_for
from wtforms import StringField

from app.errors import Conflict, InvalidInput
from app.extensions import limiter, transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Role, User, UserState
from app.services import accounts, lost_passwords
from app.web.forms import PageForm
from app.web.people import bp
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me


class TypedForm(PageForm):
    """The username, typed: for what would be bad to do to the wrong person."""

    typed = StringField(_l("Type the username to go on"))

    def names(self, person: User) -> bool:
        """Whether it is this person's; if not, the field says so."""
        if (self.typed.data or "").strip() == person.username:
            return True
        self.validate()
        self.refuse(
            InvalidInput(_("That is not the username. Type %(name)s.", name=person.username), field="typed")
        )  # fmt: skip
        return False


@bp.get("/<username>/suspend")
@admin_required
def suspend_form(username: str) -> Response:
    """What happens then, and a field to type the username into."""
    return _suspend_page(accounts.get(username), TypedForm(formdata=None))


def _suspend_page(person: User, form: TypedForm) -> Response:
    return render(
        "people/typed.html",
        status=422 if form.errors else 200,
        form=form,
        errors_found=bool(form.errors),
        title=_("Suspend %(name)s?", name=person.display_name),
        lead=_("%(name)s is signed out everywhere at once and cannot sign in again.", name=person.display_name),
        facts=[
            _("Their API tokens stop working."),
            _("Their machine, its data and their hours are kept."),
            _("Their bookings stay: cancel those that others should have."),
        ],
        action=url_for("people.suspend", username=person.username),
        button=_("Suspend %(name)s", name=person.display_name),
        back_url=url_for("people.show", username=person.username),
        danger=True,
    )


@bp.post("/<username>/suspend")
@admin_required
def suspend(username: str) -> Response:
    """Shut somebody out, if their username was typed."""
    person, form = accounts.get(username), TypedForm()
    if not form.names(person):
        return _suspend_page(person, form)
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
    """What happens then; to make an admin, a field to type the username into."""
    return _role_page(accounts.get(username), role, TypedForm(formdata=None))


def _role_page(person: User, role: str, form: TypedForm) -> Response:
    if role == Role.ADMIN:
        title, button = _("Make %(name)s an admin?"), _("Make %(name)s an admin")
        lead = _("Admins approve people, grant hours, change the rules and see everything.")
    else:
        title, button = _("Remove %(name)s as admin?"), _("Remove %(name)s as admin")
        lead = _("%(name)s keeps the account and the machine, and cannot manage the lab any more.")
    name = {"name": person.display_name}
    return render(
        "people/typed.html" if role == Role.ADMIN else "confirm.html",
        status=422 if form.errors else 200,
        form=form,
        errors_found=bool(form.errors),
        title=title % name,
        lead=lead % name,
        facts=[_("%(name)s has to sign in again.", **name)],
        action=url_for("people.role", username=person.username, role=role),
        button=button % name,
        back_url=url_for("people.show", username=person.username),
        danger=role == Role.ADMIN,
    )


@bp.post("/<username>/role/<any(user, admin):role>")
@admin_required
def role(username: str, role: str) -> Response:
    """Make somebody an admin, if their username was typed, or no longer one."""
    person, form = accounts.get(username), TypedForm()
    if role == Role.ADMIN and not form.names(person):
        return _role_page(person, role, form)
    with transaction():
        person = accounts.set_role(username, Role(role), actor=me().username)
    name = {"name": person.display_name}
    flash(_("%(name)s is an admin now", **name) if person.is_admin else _("%(name)s is no admin any more", **name))
    return go(url_for("people.show", username=username))


@bp.get("/<username>/password")
@admin_required
def password_form(username: str) -> Response:
    """Ask whether it is meant."""
    person = accounts.get(username)
    lost_passwords.check(person, me().username)
    return _password_page(person)


@bp.post("/<username>/password")
@admin_required
@limiter.limit("20 per hour")
def password(username: str) -> Response:
    """A new password for somebody who lost theirs, shown this once; sent again, the page sets no other one."""
    seen = request.form.get("seen", "")
    try:
        with transaction():
            text = lost_passwords.generate(accounts.get(username))
            person = lost_passwords.set_password(username, text, actor=me().username, seen=seen)
    except Conflict as error:
        return _password_page(accounts.get(username), error)
    return render("people/password.html", person=person, text=text)


def _password_page(person: User, problem: Conflict | None = None) -> Response:
    name = {"name": person.display_name}
    facts = [
        _("They are signed out everywhere at once, and their old password opens nothing any more."),
        _("Their machine and its password, SSH keys, API tokens and calendar addresses stay as they are."),
        _("Where Berth can reach them by message, they are told."),
    ]
    if person.state == UserState.DISABLED:
        facts.append(_("%(name)s stays suspended until you let them in again.", **name))
    return render(
        "people/new_password.html",
        status=409 if problem else 200,
        problem=problem,
        title=_("Set a new password for %(name)s?", **name),
        lead=_("For somebody who forgot theirs: Berth makes one and shows it to you once."),
        facts=facts,
        seen=lost_passwords.mark(person),
        action=url_for("people.password", username=person.username),
        button=_("Set a new password"),
        back_url=url_for("people.show", username=person.username),
    )
