"""A machine's name, size and habits, and changing one's mind about deleting it."""

from __future__ import annotations

from flask import Blueprint, Response, flash, request, url_for
from wtforms import RadioField, SelectChoice, StringField

from app import queue
from app.errors import Conflict, DomainError, InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Instance, Template
from app.services import care, instances, moving, placing, policy
from app.web.forms import PageForm, RoomForm, at_most, required
from app.web.machine_form import WholeNumber
from app.web.numbers import whole
from app.web.render import go, render
from app.web.sessions import me

IMAGE = "image"  # as it is, which the machine was made from
bp = Blueprint("machine_care", __name__, url_prefix="/machines")


class NameForm(PageForm):
    """Another name."""

    name = StringField(_l("New name"), [required(), at_most(30)])


class SizeForm(RoomForm):
    """A machine's limits."""

    cpus = WholeNumber(_l("CPUs"), [required()])
    memory_gib = WholeNumber(_l("Memory (GiB)"), [required()])
    disk_gib = WholeNumber(_l("Disk (GiB)"), [required()])


class RebuildForm(PageForm):
    """What it is made anew from, a template's number or IMAGE, and the machine's name, typed."""

    template = RadioField(_l("Made from"), validate_choice=False)
    typed = StringField(_l("Type the machine's name to rebuild it"))

    def template_id(self) -> int | None:
        """The chosen template; 0: none that there is; None: the image, or nothing was said."""
        chosen = str(self.template.data or IMAGE)
        if chosen == IMAGE:
            return None
        return whole(chosen) or 0


@bp.get("/<name>/care")
def show(name: str) -> Response:
    """Everything about a machine that is changed rarely."""
    machine = instances.get(me(), name)
    return _page(machine, _size_of(machine))


@bp.post("/<name>/pause")
def pause(name: str) -> Response:
    """Let its programs stand still."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            care.freeze(me(), machine)
    except Conflict as error:
        return _refused(machine, error)
    return _asked(machine)


@bp.post("/<name>/size")
def resize(name: str) -> Response:
    """Set its limits, while it runs too."""
    machine, form = instances.get(me(), name), SizeForm()
    if form.validate():
        try:
            with transaction():
                care.resize(
                    me(), machine,
                    cpus=form.cpus.data or 0, memory_gib=form.memory_gib.data or 0, disk_gib=form.disk_gib.data or 0,
                    anyway=form.anyway.data,
                )  # fmt: skip
        except InvalidInput as error:
            form.refuse(error)
        except Conflict as error:
            return _refused(machine, error)
        except DomainError as error:
            form.against(error)
        else:
            return _asked(machine)
    return _page(instances.get(me(), name), form, status=422)


@bp.post("/<name>/autostart")
def autostart(name: str) -> Response:
    """Whether it is started after a reboot of its host."""
    machine, wanted = instances.get(me(), name), request.form.get("autostart") == "1"
    with transaction():
        care.set_autostart(me(), machine, wanted)
    if wanted:
        flash(_("After a reboot of its host, %(name)s is started again if it ran before.", name=name))
    else:
        flash(_("After a reboot of its host, %(name)s stays stopped.", name=name))
    return go(url_for("machine_care.show", name=name))


@bp.get("/<name>/rename")
def ask_rename(name: str) -> Response:
    """What another name means, and a field for it."""
    machine = instances.get(me(), name)
    return _name_page(machine, NameForm(formdata=None, name=machine.name))


@bp.post("/<name>/rename")
def rename(name: str) -> Response:
    """Give it another name."""
    machine, form = instances.get(me(), name), NameForm()
    if form.validate():
        try:
            with transaction():
                care.rename(me(), machine, form.name.data.strip())
        except InvalidInput as error:
            form.refuse(error)
        except DomainError as error:
            form.form_errors.append(str(error))
        else:
            queue.wake(machine.host.name)
            return go(url_for("machines.show", name=form.name.data.strip()))
    return _name_page(instances.get(me(), name), form, 422)


@bp.get("/<name>/rebuild")
def ask_rebuild(name: str) -> Response:
    """What is kept and what is lost, and a field to type the name into."""
    machine = instances.get(me(), name)
    return _rebuild_page(machine, RebuildForm(formdata=None))


@bp.post("/<name>/rebuild")
def rebuild(name: str) -> Response:
    """Make it anew from what was chosen, if its name was typed."""
    machine, form = instances.get(me(), name), RebuildForm()
    if (form.typed.data or "").strip() != machine.name:
        form.validate()
        form.refuse(InvalidInput(_("That is not its name. Type %(name)s.", name=machine.name), field="typed"))
        return _rebuild_page(machine, form, 422)
    try:
        with transaction():
            care.rebuild(me(), machine, form.template_id())
    except Conflict as error:
        return _refused(machine, error)
    except InvalidInput as error:
        form.validate()
        form.refuse(error)
        return _rebuild_page(instances.get(me(), name), form, 422)
    except DomainError as error:
        form.form_errors.append(str(error))
        return _rebuild_page(instances.get(me(), name), form, 422)
    return _asked(machine)


@bp.post("/<name>/keep")
def keep(name: str) -> Response:
    """Do not delete it after all."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            care.keep(me(), machine)
    except Conflict as error:
        return _refused(machine, error)
    flash(_("%(name)s is kept. It is stopped; start it when you need it.", name=name))
    return go(url_for("machines.show", name=name))


def _asked(machine: Instance) -> Response:
    """To the machine's page, which shows how far it is."""
    queue.wake(machine.host.name)
    return go(url_for("machines.show", name=machine.name))


def _refused(machine: Instance, error: Conflict) -> Response:
    flash(str(error), "error")
    fresh = instances.get(me(), machine.name)
    return _page(fresh, _size_of(fresh), status=409)


def _size_of(machine: Instance) -> SizeForm:
    return SizeForm(
        formdata=None, cpus=machine.cpus, memory_gib=max(1, machine.memory_mib // 1024), disk_gib=machine.disk_gib
    )


def _page(machine: Instance, form: SizeForm, status: int = 200) -> Response:
    return render(
        "machines/care.html", machine=machine, form=form, rules=policy.current(), errors_found=bool(form.errors),
        nowhere=moving.why_nowhere(machine.host), status=status,
        room=placing.seen(machine.host, machine.observed.get("pool", "")),
    )  # fmt: skip


def _rebuild_page(machine: Instance, form: RebuildForm, status: int = 200) -> Response:
    goes_on = care.goes_on(machine) is not None
    own, found = care.has_image(machine), care.renewals(machine)
    form.template.choices = [SelectChoice(IMAGE, machine.image)] if own else []
    form.template.choices += [SelectChoice(str(one.id), _source(machine, one)) for one in found]
    values = [choice.value for choice in form.template.choices]
    if form.template.data not in values:  # the likeliest, or the only one
        likely = own or len(values) == 1 or any(one.name == machine.made_from for one in found)
        form.template.data = values[0] if likely else None
    return render(
        "machines/rebuild.html", machine=machine, form=form, goes_on=goes_on, errors_found=bool(form.errors),
        status=status,
    )  # fmt: skip


def _source(machine: Instance, template: Template) -> str:
    if template.id == machine.template_id:
        return _("%(name)s, as now", name=template.name)
    if template.name == machine.made_from:
        return _("%(name)s, a newer one", name=template.name)
    return template.name


def _name_page(machine: Instance, form: NameForm, status: int = 200) -> Response:
    return render("machines/rename.html", machine=machine, form=form, errors_found=bool(form.errors), status=status)
