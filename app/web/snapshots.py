"""A machine's snapshots: which there are, making one, by schedule too, putting the machine back, deleting one."""

from __future__ import annotations

from flask import Blueprint, Response, flash, url_for
from wtforms import SelectField

from app import queue
from app.errors import DomainError, InvalidInput, RuleRefused
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Instance, Schedule
from app.services import care, instances, operations, policy, snapshots
from app.web.forms import PageForm, required
from app.web.machine_form import WholeNumber
from app.web.render import go, render
from app.web.sessions import me

bp = Blueprint("snapshots", __name__, url_prefix="/machines/<name>/snapshots")

OFTEN = [(Schedule.NEVER, _l("Never")), (Schedule.DAILY, _l("Every day")), (Schedule.WEEKLY, _l("Every week"))]


class ScheduleForm(PageForm):
    """How often, and how many are kept."""

    schedule = SelectField(_l("Make one by itself"), choices=OFTEN, validate_choice=False)
    keep = WholeNumber(_l("Keep the newest"), [required()])


@bp.get("")
def index(name: str) -> Response:
    """Which there are."""
    return _page(instances.get(me(), name))


@bp.post("")
def take(name: str) -> Response:
    """Make one now."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            snapshots.take(me(), machine)
    except DomainError as error:
        return _refused(machine, error)
    return _asked(machine)


@bp.post("/schedule")
def schedule(name: str) -> Response:
    """Set how often one is made by itself."""
    machine, form = instances.get(me(), name), ScheduleForm()
    if form.validate():
        try:
            with transaction():
                snapshots.set_schedule(me(), machine, form.schedule.data or "", form.keep.data or 0)
        except InvalidInput as error:
            form.refuse(error)
        else:
            flash(_("The schedule is saved."))
            return go(url_for("snapshots.index", name=name))
    return _page(machine, form, 422)


@bp.get("/<snapshot>/<any(restore, remove):deed>")
def ask(name: str, snapshot: str, deed: str) -> Response:
    """What is lost by putting the machine back, or by deleting a snapshot."""
    machine = instances.get(me(), name)
    try:
        found = (snapshots.to_put_back if deed == "restore" else snapshots.find)(machine, snapshot)
    except RuleRefused as error:
        return _refused(machine, error)
    return render("machines/snapshot.html", machine=machine, snapshot=found, deed=deed)


@bp.post("/<snapshot>/<any(restore, remove):deed>")
def do(name: str, snapshot: str, deed: str) -> Response:
    """Put the machine back, or delete the snapshot."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            verb = snapshots.restore if deed == "restore" else snapshots.forget
            verb(me(), machine, snapshot)
    except DomainError as error:
        if error.code == "not_found":
            raise
        return _refused(machine, error)
    return _asked(machine)


def _asked(machine: Instance) -> Response:
    """To the machine's page, which shows how far it is."""
    queue.wake(machine.host.name)
    return go(url_for("machines.show", name=machine.name))


def _refused(machine: Instance, error: DomainError) -> Response:
    flash(str(error), "error")
    return _page(instances.get(me(), machine.name), status=409 if error.code == "conflict" else 422)


def _page(machine: Instance, form: ScheduleForm | None = None, status: int = 200) -> Response:
    newest = operations.last(machine.id)
    form = form or ScheduleForm(formdata=None, schedule=machine.schedule, keep=machine.keep)
    return render(
        "machines/snapshots.html",
        machine=machine,
        snapshots=snapshots.of(machine),
        known="snapshots" in machine.observed,
        only_newest=snapshots.only_newest(machine),
        form=form,
        most=policy.current().max_snapshots,
        busy=newest is not None and newest.state in operations.OPEN,
        there=machine.status in care.THERE and machine.delete_at is None,
        errors_found=bool(form.errors),
        status=status,
    )
