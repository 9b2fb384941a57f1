"""The form that asks for a machine: where, from which image, how large, and for an admin also whose."""

from __future__ import annotations

from typing import Any

from flask import Response
from wtforms import IntegerField, SelectField, StringField
from wtforms.validators import ValidationError

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext
from app.models import Gpu, Host, Template, User
from app.services import accounts, admission, attachments, instances, inventory, placing, policy, templates
from app.web import places, room_words
from app.web.forms import RoomForm, at_most, required
from app.web.machine_words import silent_after
from app.web.numbers import whole
from app.web.render import render
from app.web.sessions import me


class WholeNumber(IntegerField):  # type: ignore[misc]
    """A whole number, with our words for what is none."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Read what was typed; a number that no machine could have is none."""
        text = valuelist[0].strip() if valuelist else ""
        self.data = whole(text)
        if self.data is None:
            raise ValueError(_("Give a whole number."))


class MachineForm(RoomForm):
    """What a person may choose. `place` is `anywhere:TEMPLATE`, `template:ID` or `host/image`, so that it needs no
    JavaScript. `no_hold`: the hosts among them that do not keep a machine to the size of its disk; `any_host`: whether
    there is a host at all."""

    any_host = True
    no_hold: tuple[str, ...] = ()

    name = StringField(_l("Name"), [required(), at_most(30)])
    place = SelectField(_l("Host and image"), validate_choice=False)
    cpus = WholeNumber(_l("CPUs"), [required()])
    memory_gib = WholeNumber(_l("Memory (GiB)"), [required()])
    disk_gib = WholeNumber(_l("Disk (GiB)"), [required()])

    def validate_place(self, field: SelectField) -> None:
        """One of those on offer."""
        if field.data not in {value for group in field.choices.values() for value, _text in group}:
            raise ValidationError(_("Choose one from the list."))

    def refuse(self, error: Any) -> None:
        """The service knows host and image apart; the page has one field for both."""
        if error.field in {"host", "image"}:
            error.field = "place"
        super().refuse(error)


class AdminForm(MachineForm):
    """An admin also says for whom."""

    owner = SelectField(_l("Owner"))


def blank(host: str = "", owner: str = "") -> MachineForm:
    """The form with its usual values; `host`: the one to offer first, `owner`: for an admin, whose it is to be."""
    whose = owner if owner and me().is_admin else me().username
    form = _class()(formdata=None, name=admission.free_name(whose), owner=whose, **admission.usual_size())
    return _with_choices(form, host)


def sent() -> MachineForm:
    """The form as it was sent."""
    return _with_choices(_class()())


def chosen(form: MachineForm) -> dict[str, Any]:
    """Where the machine is to be, and from what it is to be made."""
    place = str(form.place.data)
    if place.startswith(places.ANYWHERE):
        size = {"memory_gib": form.memory_gib.data or 0, "disk_gib": form.disk_gib.data or 0}
        wanted = place.removeprefix(places.ANYWHERE)
        template = placing.place(wanted, None if me().is_admin else me(), silent_after(), **size)
        return {"host": template.host, "template": template}
    if place.startswith(places.TEMPLATE):
        template = templates.get(int(place.removeprefix(places.TEMPLATE)))
        return {"host": template.host, "template": template}
    host_name, _slash, image = place.partition("/")
    return {"host": inventory.host(host_name), "image": image}


def owner(form: MachineForm) -> User:
    """Whose machine it is to be."""
    return accounts.get(form["owner"].data) if "owner" in form else me()


def page(form: MachineForm, *, first: bool = False, status: int = 200) -> Response:
    """The form's page. `first`: the person has no machine yet."""
    rules = policy.current()
    allowed = me().is_admin or rules.self_service
    return render(
        "machines/new.html",
        errors_found=bool(form.errors),
        status=status,
        form=form,
        rules=rules,
        places=form.groups if form.templates else [],
        first=first,
        allowed=allowed,
    )


def _class() -> type[MachineForm]:
    return AdminForm if me().is_admin else MachineForm


def _with_choices(form: MachineForm, first: str = "") -> MachineForm:
    taken = attachments.by_gpu()
    gpus: dict[int, list[Gpu]] = {}
    for gpu, _host in inventory.gpus():
        gpus.setdefault(gpu.host_id, []).append(gpu)
    hosts = sorted(inventory.hosts(enabled_only=True), key=lambda host: (host.name != first, host.name))
    offered = templates.offered(me())
    if offered:
        form.place.label.text = _("Template")
    rooms = placing.rooms(silent_after(), [host.id for host in hosts])
    about = {host.name: room_words.about(rooms[host.id], _gpus(gpus.get(host.id, []), taken)) for host in hosts}
    images = {host.name: _images(host, offered) for host in hosts}
    form.groups = places.groups(hosts, about, images, offered, anywhere=not first)
    form.place.choices = {
        group.about: [(card.value, card.text) for card in group.cards] + group.images for group in form.groups
    }
    form.templates = bool(offered)
    if form.place.data is None and form.groups:
        form.place.data = form.groups[0].values[0]
    form.any_host, shown = bool(hosts), {group.host for group in form.groups}
    form.no_hold = tuple(host.name for host in hosts if host.name in shown and not rooms[host.id].holds_disks)
    if "owner" in form:
        form["owner"].choices = [
            (user.username, f"{user.display_name} ({user.username})") for user in instances.possible_owners()
        ]
    return form


def _images(host: Host, offered: list[Template]) -> list[tuple[str, str]]:
    """The images that a machine there can be made from: for an admin, and where the host has no template."""
    if not me().is_admin and templates.has_any(host.id):
        return []
    here = any(one.host_id == host.id for one in offered)
    texts = {image["alias"]: _("%(image)s on %(host)s", image=_image(image), host=host.name) for image in host.images}
    return [
        (f"{host.name}/{alias}", _("image %(image)s", image=text) if here else text) for alias, text in texts.items()
    ]


def _gpus(gpus: list[Gpu], taken: dict[int, Any]) -> str:
    free, models = attachments.free_gpus(gpus, taken), ", ".join(sorted({gpu.model for gpu in gpus}))
    if not gpus:
        return _("no GPUs")
    return ngettext(
        "%(free)s of %(num)s GPU free now (%(models)s)",
        "%(free)s of %(num)s GPUs free now (%(models)s)",
        len(gpus),
        free=free,
        models=models,
    )


def _image(image: dict[str, str]) -> str:
    alias, description = image["alias"], image.get("description", "")
    return f"{alias} ({description})" if description else alias
