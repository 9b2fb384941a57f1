"""Several requests at once: who was ticked and what each of them is to get, and what came of it for each."""

from __future__ import annotations

from flask import Response, request, url_for

from app import queue
from app.errors import InvalidInput
from app.extensions import lab_zone, transaction
from app.language import gettext as _
from app.language import ngettext
from app.models import User
from app.services import admission, people, policy
from app.services.rules import classes
from app.web import people_machines
from app.web.machine_words import silent_after
from app.web.people import bp, class_id, hours_of, list_page
from app.web.render import render
from app.web.security import admin_required
from app.web.sessions import me

# Not `/several/approve`: a person may be called so.


@bp.get("/approve/several")
@admin_required
def several() -> Response:
    """Ask with how many hours, and who it is that was ticked."""
    return _form_page(request.args.getlist("who"))


@bp.post("/approve/several")
@admin_required
def approve_several() -> Response:
    """Let them in, each for themselves; sent again, it finds nobody who waits. 409 if nobody did."""
    who = request.form.getlist("who")[: people.PAGE]
    try:
        hours = hours_of(request.form)
        template = people_machines.chosen()
        with transaction():
            answers = admission.approve_several(
                who, hours, actor=me(), zone=lab_zone(), template=template, silence=silent_after(),
                class_id=class_id() if "class" in request.form else None,
            )  # fmt: skip
    except InvalidInput as error:
        return _form_page(who, error)
    for name in sorted({one.admitted.host.name for one in answers if one.admitted and one.admitted.host}):
        queue.wake(name)
    let_in = sum(one.admitted is not None for one in answers)
    return render("people/several_done.html", status=200 if let_in else 409, answers=answers, let_in=let_in)


def _form_page(who: list[str], problem: InvalidInput | None = None) -> Response:
    chosen = [person for person in people.waiting() if person.username in who][: people.PAGE]
    if not chosen:
        return list_page(InvalidInput(_("Nobody who waits is chosen."), _("Tick the box at each name that you mean.")))
    title = ngettext("Approve %(num)s person", "Approve %(num)s people", len(chosen))
    return render(
        "people/several.html",
        status=422 if problem else 200,
        errors_found=problem is not None,
        problem=problem,
        title=title,
        lead=_("Each of them gets the same."),
        chosen=chosen,
        facts=[_about(person) for person in chosen],
        default_hours=policy.current().default_hours,
        machine_from=people_machines.offer(),
        all_classes=classes.all_with_counts(),
        action=url_for("people.approve_several"),
        button=title,
        back_url=url_for("people.index"),
    )


def _about(person: User) -> str:
    name = _("%(name)s (%(username)s)", name=person.display_name, username=person.username)
    return " · ".join(part for part in (name, person.email, person.reason) if part)
