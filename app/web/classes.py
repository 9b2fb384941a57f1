"""Classes of accounts and their rules: listed, changed, tried against what was booked, and switched on."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import Response, flash, request, url_for

from app import clock
from app.errors import Conflict, InvalidInput
from app.extensions import lab_zone, transaction
from app.language import gettext as _
from app.models import AccountClass
from app.services import audit, inventory, policy, quota
from app.services.rules import classes, terms, trial
from app.services.windows import hours_text
from app.web import class_form, rule_words, trial_words
from app.web.bookings.blueprint import slot
from app.web.forms import filled_in
from app.web.policy import bp
from app.web.render import go, render
from app.web.security import admin_required, comes_back
from app.web.sessions import me

ID = "/classes/<int(min=1, max=9223372036854775807):class_id>"
SHOWN = 100  # refused bookings of a trial that are listed one by one
RECENT = timedelta(days=30)


@bp.get("/classes")
@admin_required
def class_list() -> Response:
    """Every class, and a form for another one."""
    return _list_page()


@bp.post("/classes")
@admin_required
def add_class() -> Response:
    """A new class; its rules are set on its page."""
    try:
        with transaction():
            found = classes.create(me(), request.form.get("name", ""))
            class_id = found.id
    except InvalidInput as error:
        return _list_page(error)
    return go(url_for("policy.show_class", class_id=class_id))


@bp.get(ID)
@admin_required
def show_class(class_id: int) -> Response:
    """The rules of a class to change; filled in from the address where one comes from a trial."""
    found = classes.get(class_id)
    typed = request.args if "max_hours" in request.args else class_form.of_values(found.rules)
    return _form_page(found, typed)


@bp.post(ID)
@admin_required
@comes_back(lambda: filled_in("policy.show_class"))
def change_class(class_id: int) -> Response:
    """Set its rules; they hold for what is booked from now on."""
    found = classes.get(class_id)
    try:
        values = class_form.read(request.form)
        with transaction():
            classes.change(me(), class_id, values, seen=request.form.get("seen", ""))
    except (InvalidInput, Conflict) as error:
        return _form_page(found, request.form, error)
    flash(_("Rules saved. They hold for what is booked from now on."))
    return go(url_for("policy.show_class", class_id=class_id))


@bp.get(f"{ID}/try")
@admin_required
def try_class(class_id: int) -> Response:
    """What rules would have refused of what was booked; nothing is changed."""
    found = classes.get(class_id)
    try:
        values = terms.checked(class_form.read(request.args))
    except InvalidInput as error:
        return _form_page(found, request.args, error)
    since, until = _span()
    rules = classes.with_values(values, policy.current())
    result = trial.run(found, rules, since, until, lab_zone(), slot=slot())
    return render(
        "policy/try.html",
        found=found,
        trial=result,
        sentence=_outcome(result),
        price=_price(result),
        afterwards=list(trial_words.sentences(result, rules)) if result.kept else [],
        since=since,
        until=until,
        recent="recent" in request.args,
        differences=_differences(terms.changes(found.rules, values)),
        fields=[(name, value) for name, value in request.args.items(multi=True) if name != "recent"],
        query=class_form.query(request.args),
        label=rule_words.label,
        shown=list(result.verdicts)[-SHOWN:][::-1],
        most=trial.MOST,
    )


@bp.post(f"{ID}/name")
@admin_required
def rename_class(class_id: int) -> Response:
    """Give it another name."""
    found = classes.get(class_id)
    try:
        with transaction():
            classes.rename(me(), class_id, request.form.get("name", ""))
    except InvalidInput as error:
        return _form_page(found, class_form.of_values(found.rules), error)
    flash(_("Class renamed."))
    return go(url_for("policy.show_class", class_id=class_id))


@bp.get(f"{ID}/remove")
@admin_required
def ask_remove_class(class_id: int) -> Response:
    """Are you sure?"""
    found = classes.get(class_id)
    count = next((number for one, number in classes.all_with_counts() if one.id == found.id), 0)
    return render(
        "confirm.html",
        title=_("Remove the class %(name)s?", name=found.name),
        lead=_(
            "Its accounts (%(count)s) book by the rules of %(name)s then.", count=count, name=classes.default().name
        ),
        facts=[_("What is booked already stays as it is.")],
        action=url_for("policy.remove_class", class_id=found.id),
        button=_("Remove class"),
        danger=True,
        back_url=url_for("policy.show_class", class_id=found.id),
    )


@bp.post(f"{ID}/remove")
@admin_required
def remove_class(class_id: int) -> Response:
    """Remove it."""
    with transaction():
        classes.delete(me(), class_id)
    flash(_("Class removed."))
    return go(url_for("policy.class_list"))


def _list_page(problem: InvalidInput | None = None) -> Response:
    rows = [(found, count, rule_words.own_rules(found.rules)) for found, count in classes.all_with_counts()]
    status = 422 if problem else 200
    return render("policy/classes.html", status=status, errors_found=problem is not None, rows=rows, problem=problem)


def _form_page(found: AccountClass, typed: Any, problem: InvalidInput | Conflict | None = None) -> Response:
    status = 200 if problem is None else 409 if isinstance(problem, Conflict) else 422
    events = audit.recent(20, classes.target(found))
    models = sorted({*inventory.models(), *found.rules.get("models", ()), *found.rules.get("weights", ())})
    hosts = sorted({*(host.name for host in inventory.hosts()), *found.rules.get("hosts", ())})
    return render(
        "policy/class.html",
        status=status,
        errors_found=problem is not None,
        found=found,
        problem=problem,
        wrong=getattr(problem, "field", ""),
        typed=typed,
        ticked=class_form.ticked(typed),
        fields=rule_words.FIELDS,
        groups=rule_words.GROUPS,
        bounds=terms.BOUNDS,
        weights=terms.WEIGHT_BOUNDS,
        models=models,
        model_choices=[(name, name) for name in models],
        host_choices=[(name, name) for name in hosts],
        weekdays=[(str(day), rule_words.weekday_name(day)) for day in range(7)],
        seen=classes.mark(found.rules),
        defaults=_defaults(),
        history=[(event, _done(event.details)) for event in events],
    )


def _defaults() -> dict[str, int]:
    """What holds where a field is left empty, if not nothing."""
    rules = classes.with_values({}, policy.current())
    names = ("max_hours", "horizon_days", "max_gpus", "month_day", "peak_from", "peak_to", "idle_minutes")
    return {name: getattr(rules, name) for name in names}


def _done(details: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What, before, after: of rules or of the name; nothing where the class was made."""
    if "before" in details:
        return [(_("Name of the class"), details["before"], details["name"])]
    return _differences(details.get("changed", {}))


def _differences(changed: dict[str, list[Any]]) -> list[tuple[str, str, str]]:
    """Rule, before, after; in the order of the form."""
    return [
        (rule_words.label(rule), rule_words.value_text(rule, before), rule_words.value_text(rule, after))
        for rule in rule_words.FIELDS
        if rule in changed
        for before, after in [changed[rule]]
    ]


def _span() -> tuple[datetime, datetime]:
    """Last month by the lab's calendar, or the last thirty days."""
    now = clock.now()
    if "recent" in request.args:
        return now - RECENT, now
    this_month = quota.month_start(now, lab_zone())
    return quota.month_start(this_month - timedelta(days=1), lab_zone()), this_month


def _outcome(result: trial.Trial) -> str:
    if not result.looked_at:
        return _("Nobody of this class booked anything then.")
    return _(
        "%(count)s of %(total)s bookings would have been refused.",
        count=len(result.verdicts),
        total=result.looked_at,
    )


def _price(result: trial.Trial) -> str:
    return _(
        "The others would have cost %(would)s GPU-hours; all of them together cost %(paid)s.",
        would=hours_text(result.would_pay),
        paid=hours_text(result.paid),
    )
