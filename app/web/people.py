"""Admins look after people: who waits, who is who, how many hours, who may not come in any more."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for
from werkzeug.datastructures import MultiDict

from app.errors import DomainError, InvalidInput
from app.extensions import lab_zone, transaction
from app.language import gettext as _
from app.models import Role, User, UserState
from app.services import accounts, admission, audit, people, policy, quota
from app.services.rules import classes
from app.services.windows import hours_text
from app.web import people_machines
from app.web.machine_words import silent_after
from app.web.numbers import ID_DIGITS, whole
from app.web.quota import context_of
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("people", __name__, url_prefix="/people")


@bp.get("")
@admin_required
def index() -> Response:
    """Who waits on top, then everybody, to search and to filter."""
    return list_page()


@bp.post("/<username>/approve")
@admin_required
def approve(username: str) -> Response:
    """Let somebody in with hours a month; the list says so and offers to undo it."""
    try:
        hours = hours_of(request.form)
        template = people_machines.chosen()
        with transaction():
            admitted = admission.approve(
                username, hours, actor=me(), zone=lab_zone(), template=template,
                silence=silent_after(), refused=request.form.get("seen") != UserState.PENDING,
            )  # fmt: skip
            if "class" in request.form:
                classes.assign(me(), accounts.account_of(username), class_id())
    except InvalidInput as error:
        return list_page(problem=error, problem_at=username)
    people_machines.asked(admitted)
    return go(url_for("people.index", approved=username, _anchor="done"))


@bp.post("/<username>/undo")
@admin_required
def undo(username: str) -> Response:
    """Take an approval back."""
    with transaction():
        person = accounts.undo_approval(username, actor=me().username, zone=lab_zone())
    people_machines.left(person)
    return go(url_for("people.index", undone=username, _anchor="done"))


@bp.get("/<username>/refuse")
@admin_required
def refuse_form(username: str) -> Response:
    """Ask for the reason."""
    return render("people/refuse.html", person=accounts.get(username), problem=None, reason="")


@bp.post("/<username>/refuse")
@admin_required
def refuse(username: str) -> Response:
    """Turn somebody down, with the reason that they will read."""
    reason = request.form.get("reason", "")
    try:
        with transaction():
            accounts.refuse(username, reason, actor=me().username)
    except InvalidInput as error:
        person = accounts.get(username)
        return render("people/refuse.html", status=422, errors_found=True, person=person, problem=error, reason=reason)
    return go(url_for("people.index", refused=username, _anchor="done"))


@bp.get("/<username>")
@admin_required
def show(username: str) -> Response:
    """One person: everything that can be done about them, their hours and their ledger."""
    return _person_page(username)


@bp.post("/<username>/monthly")
@admin_required
def monthly(username: str) -> Response:
    """Set how many hours a month somebody gets, from this month on."""
    return _change_hours(username, "monthly")


@bp.post("/<username>/grant")
@admin_required
def grant(username: str) -> Response:
    """Give hours once, or take some away."""
    return _change_hours(username, "grant")


@bp.post("/<username>/class")
@admin_required
def set_class(username: str) -> Response:
    """Put a person's account into another class."""
    with transaction():
        classes.assign(me(), accounts.account_of(username), class_id())
    return go(url_for("people.show", username=username, done="class", _anchor="done"))


def class_id() -> int:
    """The class that was chosen in the form that was sent; 0: none that there is."""
    return whole(request.form.get("class", ""), ID_DIGITS) or 0


def hours_of(form: MultiDict[str, str], name: str = "hours") -> float:
    """A number of hours as people type it: `100`, `2.5`, `2,5`, `-10`. Raises InvalidInput."""
    text = form.get(name, "").strip().replace(",", ".").replace("\N{MINUS SIGN}", "-")
    digits = text.removeprefix("-").removeprefix("+").replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise InvalidInput(_("Write a number of hours, such as 100 or 2.5."), field=name)
    return float(text)


def _change_hours(username: str, which: str) -> Response:
    try:
        hours = hours_of(request.form)
        with transaction():
            account = accounts.account_of(username)
            if which == "monthly":
                quota.set_monthly(account, hours, lab_zone(), actor=me().username)
            else:
                note = accounts.one_line(request.form.get("note", ""), "note", 200)
                quota.grant(account, hours, actor=me().username, note=note)
    except InvalidInput as error:
        return _person_page(username, problem=error, problem_at=which)
    return go(url_for("people.show", username=username, done=which, _anchor="done"))


def list_page(problem: DomainError | None = None, problem_at: str = "") -> Response:
    """The list; `problem` is said at the person `problem_at` ("": above all)."""
    text, state = request.args.get("q", ""), request.args.get("state", "")
    page = max(1, request.args.get("page", 1, type=int))
    wanted = UserState(state) if state in set(UserState) else None
    waiting = people.waiting()
    listing = people.search(lab_zone(), text, wanted, page)
    return render(
        "people/index.html",
        status=422 if problem else 200,
        errors_found=problem is not None,
        problem=problem,
        problem_at=problem_at,
        waiting=waiting,
        most=people.PAGE,
        default_hours=policy.current().default_hours,
        machine_from=people_machines.offer() if waiting else None,
        all_classes=classes.all_with_counts() if waiting else [],
        listing=listing,
        page=page,
        pages=max(1, -(-listing.total // people.PAGE)),
        text=text,
        state=state,
        states=list(UserState),
        done=_done(),
        undo_for=_undoable(),
        made=people_machines.made(request.args.get("approved", "")),
    )


def _done() -> str:
    """What has just been done, in one line; told by the address, so that reloading does no harm."""
    for key in ("approved", "undone", "refused"):
        if username := request.args.get(key):
            person = accounts.get(username)
            hours = hours_text(person.account.monthly) if person.account else "0"
            return {
                "approved": _("Approved %(name)s with %(hours)s h", name=person.display_name, hours=hours),
                "undone": _("%(name)s waits for approval again", name=person.display_name),
                "refused": _("Refused %(name)s", name=person.display_name),
            }[key]
    return ""


def _undoable() -> User | None:
    username = request.args.get("approved")
    person = accounts.get(username) if username else None
    return person if person is not None and accounts.can_undo_approval(person) else None


def _person_page(username: str, problem: DomainError | None = None, problem_at: str = "") -> Response:
    person = accounts.get(username)
    context = context_of(person.account) if person.account is not None else {}
    return render(
        "people/show.html",
        status=422 if problem else 200,
        errors_found=problem is not None,
        problem=problem,
        problem_at=problem_at,
        person=person,
        is_me=person.id == me().id,
        events=audit.recent(10, f"user:{person.username}"),
        done=request.args.get("done", ""),
        default_hours=policy.current().default_hours,
        machine_from=people_machines.offer(),
        all_classes=classes.all_with_counts(),
        refusal_reason=accounts.refusal_reason(person) if person.state == UserState.REFUSED else "",
        other_role=Role.USER if person.is_admin else Role.ADMIN,
        **context,
    )
