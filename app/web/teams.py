"""Teams: what their account may still book, who is in, and how much each may book of it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, request, url_for

from app.errors import Conflict, InvalidInput, NotAllowed
from app.extensions import lab_zone, transaction
from app.language import gettext as _
from app.models import Account
from app.services import people, policy, quota, teams
from app.services.rules import classes
from app.web.numbers import ID_DIGITS, whole
from app.web.people import hours_of
from app.web.quota import context_of
from app.web.render import go, render
from app.web.sessions import me

bp = Blueprint("teams", __name__, url_prefix="/teams")

ID = "/<int(min=1, max=9223372036854775807):account_id>"


@bp.get("")
def index() -> Response:
    """The teams one is in; for an admin all of them, and a form for another one."""
    return _list_page()


@bp.post("")
def create() -> Response:
    """A new team with its owner and hours."""
    try:
        hours = hours_of(request.form)
        with transaction():
            account = teams.create(me(), request.form.get("name", ""), request.form.get("owner", ""), hours)
            account_id = account.id
    except InvalidInput as error:
        return _list_page(error)
    return go(url_for("teams.show", account_id=account_id))


@bp.get(ID)
def show(account_id: int) -> Response:
    """One team."""
    return _page(teams.get(me(), account_id))


@bp.post(f"{ID}/members")
def add(account_id: int) -> Response:
    """Take somebody in."""
    account = teams.get(me(), account_id)
    try:
        with transaction():
            teams.add(me(), account, request.form.get("username", ""))
    except InvalidInput as error:
        return _page(account, error, "username")
    flash(_("%(name)s is in the team.", name=request.form["username"].strip()))
    return go(url_for("teams.show", account_id=account_id))


@bp.post(f"{ID}/members/<username>")
def limit(account_id: int, username: str) -> Response:
    """Set how much somebody may book, and whether they run the team."""
    account = teams.get(me(), account_id)
    text = request.form.get("hours", "").strip()
    try:
        hours = _whole(text) if text else None
        with transaction():
            teams.limit(me(), account, username, hours, owner="owner" in request.form)
    except (InvalidInput, Conflict) as error:
        return _page(account, error, username)
    flash(_("Changed for %(name)s.", name=username))
    return go(url_for("teams.show", account_id=account_id))


@bp.get(f"{ID}/members/<username>/remove")
def ask_remove(account_id: int, username: str) -> Response:
    """Are you sure?"""
    account = teams.get(me(), account_id)
    return render(
        "confirm.html",
        title=_("Take %(name)s out of %(team)s?", name=username, team=account.title),
        lead=_("They cannot book on its account any more."),
        facts=[_("What they have booked already stays as it is.")],
        action=url_for("teams.remove", account_id=account.id, username=username),
        button=_("Take out"),
        danger=True,
        back_url=url_for("teams.show", account_id=account.id),
    )


@bp.post(f"{ID}/members/<username>/remove")
def remove(account_id: int, username: str) -> Response:
    """Take somebody out."""
    account = teams.get(me(), account_id)
    try:
        with transaction():
            teams.remove(me(), account, username)
    except Conflict as error:
        return _page(account, error, username)
    flash(_("%(name)s is out of the team.", name=username))
    return go(url_for("teams.show", account_id=account_id))


@bp.post(f"{ID}/account")
def change(account_id: int) -> Response:
    """An admin sets the hours a month and the class."""
    account = teams.get(me(), account_id)
    if not me().is_admin:
        raise NotAllowed(_("Only admins can do this."))
    class_id = whole(request.form.get("class", ""), ID_DIGITS)
    try:
        hours = hours_of(request.form)
        with transaction():
            quota.set_monthly(account, hours, lab_zone(), actor=me().username)
            if class_id is not None:
                classes.assign(me(), account, class_id)
    except InvalidInput as error:
        return _page(account, error, "monthly")
    flash(_("Hours and class saved."))
    return go(url_for("teams.show", account_id=account_id))


def _whole(text: str) -> int:
    if (number := whole(text, 7)) is None:
        raise InvalidInput(_("Write a number of hours from 0 to %(max)s.", max=teams.MOST_HOURS), field="hours")
    return number


def _list_page(problem: InvalidInput | None = None) -> Response:
    found = teams.every() if me().is_admin else teams.of(me())
    return render(
        "teams/index.html",
        status=422 if problem else 200,
        errors_found=problem is not None,
        teams=found,
        problem=problem,
        default_hours=policy.current().default_hours,
    )


def _page(account: Account, problem: InvalidInput | Conflict | None = None, problem_at: str = "") -> Response:
    status = 200 if problem is None else 409 if isinstance(problem, Conflict) else 422
    context: dict[str, Any] = context_of(account)
    return render(
        "teams/show.html",
        status=status,
        errors_found=problem is not None,
        problem=problem,
        problem_at=problem_at,
        parts=teams.parts(account),
        runs=teams.runs(me(), account),
        all_classes=classes.all_with_counts() if me().is_admin else [],
        admins=people.admins(),
        **context,
    )
