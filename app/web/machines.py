"""A person's machines: what they are doing, and asking their host to make, switch or delete them."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, flash, request, url_for
from wtforms import BooleanField, StringField

from app import queue
from app.errors import Conflict, DomainError, InvalidInput, NotFound
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Instance, InstanceStatus, Operation, OperationKind
from app.services import care, instances, lending, moving, pictures, policy, visits
from app.web import live, machine_form, machine_words, survey_words, ways
from app.web.forms import PageForm
from app.web.render import go, is_fragment, render
from app.web.sessions import me

bp = Blueprint("machines", __name__, url_prefix="/machines")

SWITCHES = {"start": OperationKind.START, "stop": OperationKind.STOP, "restart": OperationKind.RESTART}


class DeleteForm(PageForm):
    """The machine's name, typed. `at_once`: for admins, who need not wait."""

    typed = StringField(_l("Type the machine's name to delete it"))
    at_once = BooleanField(_l("Delete it at once"))


@bp.get("")
def index() -> Response:
    """My machines; the only one with all that its own page has; without one, the form for the first."""
    mine = instances.of_user(me())
    if is_fragment() and len(mine) < 2:  # there were more when it began to ask again
        return go(url_for("machines.index"))
    if not mine:
        return machine_form.page(machine_form.blank(), first=True)
    may_add = me().is_admin or (policy.current().self_service and len(mine) < policy.current().max_instances)
    if len(mine) == 1:
        return _page(instances.get(me(), mine[0].name), only=True, may_add=may_add)
    cards = machine_words.cards(mine)
    return render(
        "machines/index.html",
        fragment="machines/_cards.html",
        cards=cards,
        poll=url_for("machines.index") if any(card.busy for card in cards) else "",
        may_add=may_add,
    )


@bp.get("/new")
def new() -> Response:
    """The form for a machine; `?host=` chooses one, `?owner=` for an admin somebody else."""
    return machine_form.page(machine_form.blank(request.args.get("host", ""), request.args.get("owner", "")))


@bp.get("/new/picture/<int:template_id>")
def template_picture(template_id: int) -> Response:
    """A template's picture, for those who may use it."""
    answer = Response(pictures.of_template(me(), template_id), mimetype="image/png")
    answer.headers["Cache-Control"] = "private, max-age=300"
    return answer


@bp.post("/new")
def create() -> Response:
    """Ask for a machine; its host makes it."""
    form = machine_form.sent()
    if form.validate():
        try:
            with transaction():
                chosen = machine_form.chosen(form)
                instances.request_create(
                    me(),
                    machine_form.owner(form),
                    name=form.name.data.strip(),
                    **chosen,
                    cpus=form.cpus.data or 0,
                    memory_gib=form.memory_gib.data or 0,
                    disk_gib=form.disk_gib.data or 0,
                    anyway=form.anyway.data,
                )
        except InvalidInput as error:
            form.refuse(error)
        except DomainError as error:
            form.against(error)
        else:
            queue.wake(chosen["host"].name)
            return go(url_for("machines.show", name=form.name.data.strip()))
    return machine_form.page(form, status=422)


@bp.get("/<name>")
def show(name: str) -> Response:
    """One machine; asks for itself again every second while work on it is under way."""
    try:
        machine = instances.get(me(), name)
    except NotFound:
        if is_fragment():  # it was being deleted, and now it is
            flash(_("%(name)s is deleted.", name=name))
            return go(url_for("machines.index"))
        raise
    return _page(machine, only="only" in request.args)


@bp.get("/<name>/<any(stop, restart):what>")
def ask(name: str, what: str) -> Response:
    """Are you sure? Whatever runs inside is ended."""
    machine = instances.get(me(), name)
    card = machine_words.cards([machine])[0]
    return render("machines/switch.html", card=card, what=what)


@bp.post("/<name>/<any(start, stop, restart):what>")
def switch(name: str, what: str) -> Response:
    """Start, stop or restart a machine."""
    machine = instances.get(me(), name)
    return _request(machine, lambda: instances.request(me(), machine, SWITCHES[what]))


@bp.post("/<name>/libraries")
def libraries(name: str) -> Response:
    """Give it NVIDIA's libraries as its host's new machines have them."""
    machine = instances.get(me(), name)
    return _request(machine, lambda: lending.lend(me(), machine))


@bp.post("/<name>/retry")
def retry(name: str) -> Response:
    """Try once more what failed and left no machine: its creation, its rebuild, its move."""
    machine = instances.get(me(), name)
    return _request(machine, lambda: moving.retry(me(), machine))


@bp.get("/<name>/delete")
def ask_delete(name: str) -> Response:
    """What is lost, and a field to type the name into."""
    return _delete_page(instances.get(me(), name), DeleteForm(formdata=None))


@bp.post("/<name>/delete")
def delete(name: str) -> Response:
    """Stop a machine, and some days later delete it and all that is on it, if its name was typed."""
    machine, form = instances.get(me(), name), DeleteForm()
    if (form.typed.data or "").strip() != machine.name:
        error = InvalidInput(_("That is not its name. Type %(name)s.", name=machine.name), field="typed")
        form.validate()
        form.refuse(error)
        return _delete_page(machine, form, 422)
    try:
        with transaction():
            care.request_delete(me(), machine, at_once=form.at_once.data)
    except DomainError as error:
        form.form_errors.append(str(error))
        return _delete_page(machine, form, 422)
    queue.wake(machine.host.name)
    return go(url_for("machines.show", name=machine.name))


def _request(machine: Instance, ask: Callable[[], Operation]) -> Response:
    """Ask the machine's host for work; to its page, which shows how far it is."""
    try:
        with transaction():
            ask()
    except Conflict as error:
        flash(str(error), "error")
        return _page(instances.get(me(), machine.name), 409)
    queue.wake(machine.host.name)
    return go(url_for("machines.show", name=machine.name))


def _page(machine: Instance, status: int = 200, *, only: bool = False, may_add: bool = False) -> Response:
    """A machine's own page. `only`: as "My machine", where it is the only one; its name then stands in its card."""
    card = machine_words.cards([machine])[0]
    here = url_for("machines.show", name=machine.name, only=1 if only else None)
    if is_fragment() and not card.busy and card.finished:  # this answer ends the polling: say aloud how it went
        flash(card.finished, "error" if card.failed else "message")
    return render(
        "machines/show.html",
        fragment="machines/_live.html",
        status=status,
        cards=[card],
        alone=True,
        only=only,
        may_add=may_add,
        poll=here if card.busy else "",
        visits=[] if is_fragment() else visits.of(machine),
        deeds=survey_words.DEEDS,
        can_delete=not card.busy and machine.status != InstanceStatus.CREATING,
        **ways.context(machine),
        **({} if card.busy else live.of_machine(machine, card.gpus)),
    )


def _delete_page(machine: Instance, form: DeleteForm, status: int = 200) -> Response:
    return render(
        "machines/delete.html",
        machine=machine,
        form=form,
        days=policy.current().delete_days if machine.status in care.THERE else 0,
        errors_found=bool(form.errors),
        status=status,
    )
