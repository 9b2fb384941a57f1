"""The forms that ask for a template, one for each way to make it, and the one that changes it."""

from __future__ import annotations

import re
from typing import Any

from flask_wtf.file import FileField
from wtforms import (
    BooleanField,
    RadioField,
    SelectChoice,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import ValidationError
from wtforms.widgets import CheckboxInput, ListWidget

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Host, Template, TemplateKind
from app.services import instances, inventory
from app.services.recipes import EXTRAS, RECIPES
from app.services.template_rules import LONGEST_DESCRIPTION, Wish
from app.web.forms import PageForm, at_most, required

EVERYONE, CHOSEN = "everyone", "chosen"
_BETWEEN = re.compile(r"[\s,;]+")


class UseForm(PageForm):
    """What it is for, and who may use it."""

    description = StringField(_l("Description"), [at_most(LONGEST_DESCRIPTION)])
    audience = RadioField(
        _l("Who may use it"),
        choices=[SelectChoice(EVERYONE, _l("Everyone")), SelectChoice(CHOSEN, _l("Only these people:"))],
        default=EVERYONE,
    )
    users = StringField(_l("Usernames of those who may"), [at_most(5000)])
    picture = FileField(_l("Picture"))

    def use(self) -> dict[str, Any]:
        """The values as the services take them."""
        everyone = self.audience.data == EVERYONE
        users = () if everyone else tuple(_words(self.users.data))
        picture = self.picture.data.read() if self.picture.data else None
        return {
            "description": self.description.data or "",
            "for_everyone": everyone,
            "users": users,
            **({"picture": picture} if picture else {}),
        }


class ChangeForm(UseForm):
    """The same for one that is there."""

    no_picture = BooleanField(_l("Take its picture away"))

    def use(self) -> dict[str, Any]:
        """The values as the services take them."""
        found = super().use()
        return {"picture": b"", **found} if self.no_picture.data else found


class NewForm(UseForm):
    """What all ways have in common."""

    host = SelectField(_l("Host"))
    name = StringField(_l("Name"), [required(), at_most(30)])

    def choose(self, host: Host | None = None) -> None:
        """Offer the hosts that there are; with `host`, for a template of that one, only what is there."""
        if host is not None:
            del self.host
            return
        self.host.choices = [(host.name, host.name) for host in inventory.hosts()]

    def where(self) -> Host:
        """On which host."""
        return inventory.host(self.host.data)

    def wish(self) -> Wish:
        """What was asked for."""
        raise NotImplementedError


class RecipeForm(NewForm):
    """By a recipe of Berth's."""

    recipe = RadioField(
        _l("Recipe"),
        choices=[
            SelectChoice("base", _l("Base: SSH, sudo, Chinese and English")),
            SelectChoice(
                "desktop", _l("Desktop: base, and Xfce by remote desktop, a browser, Chinese fonts and pinyin")
            ),
        ],
        default="desktop",
    )
    extras = SelectMultipleField(
        _l("Add"),
        choices=[
            SelectChoice("miniconda", _l("Miniconda, for Python environments of everybody's own")),
            SelectChoice("cuda", _l("CUDA's compiler and libraries (some 8 GiB)")),
            SelectChoice("jupyter", _l("JupyterLab, notebooks in the browser")),
        ],
        widget=ListWidget(prefix_label=False),
        option_widget=CheckboxInput(),
    )
    start = StringField(_l("Image to start from"), [at_most(120)])
    mirror = StringField(_l("Package mirror"), [at_most(400)])
    packages = TextAreaField(_l("More packages"), [at_most(5000)])

    def wish(self) -> Wish:
        """What was asked for."""
        assert set(RECIPES) == {choice.value for choice in self.recipe.choices}
        assert set(EXTRAS) == {choice.value for choice in self.extras.choices}
        return Wish(
            (self.name.data or "").strip(),
            TemplateKind.RECIPE,
            self.recipe.data or "",
            start=(self.start.data or "").strip(),
            mirror=(self.mirror.data or "").strip(),
            packages=tuple(_words(self.packages.data)),
            extras=tuple(self.extras.data or ()),
            **self.use(),
        )


class ImageForm(NewForm):
    """From an image as it is."""

    image = StringField(_l("Image"), [required(), at_most(120)])
    desktop = BooleanField(_l("It has a remote desktop"))

    def wish(self) -> Wish:
        """What was asked for."""
        source = (self.image.data or "").strip()
        name = (self.name.data or "").strip()
        return Wish(name, TemplateKind.IMAGE, source, desktop=bool(self.desktop.data), **self.use())


class FileForm(NewForm):
    """From an image's file that lies on a host; `file` is `host/name`."""

    host = None
    file = SelectField(_l("File"), [required()], validate_choice=False)
    checksum = StringField(_l("SHA-256, if you know it"), [at_most(64)])
    desktop = BooleanField(_l("It has a remote desktop"))

    def choose(self, host: Host | None = None) -> None:
        """Offer the files that the hosts' agents have seen."""
        self.hosts = [host] if host else inventory.hosts()
        names = {host.name: host.image_files.get("names", []) for host in self.hosts}
        self.file.choices = {
            host: [(f"{host}/{name}", name) for name in found] for host, found in names.items() if found
        }
        if host and self.file.data not in {f"{host.name}/{name}" for name in names[host.name]}:
            self.file.choices = {"": [("", "")], **self.file.choices}  # no other stands in for one that is gone

    def where(self) -> Host:
        """On which host."""
        return inventory.host(str(self.file.data).partition("/")[0])

    def wish(self) -> Wish:
        """What was asked for."""
        name, checksum = (self.name.data or "").strip(), (self.checksum.data or "").strip()
        source = str(self.file.data).partition("/")[2]
        return Wish(name, TemplateKind.FILE, source, checksum=checksum, desktop=bool(self.desktop.data), **self.use())

    def validate_file(self, field: SelectField) -> None:
        """One of those on offer."""
        if field.data not in {value for group in field.choices.values() for value, _text in group}:
            raise ValidationError(_("Choose one from the list."))


class MachineForm(NewForm):
    """From a machine that somebody prepared; the host is the machine's."""

    host = None
    instance = SelectField(_l("Machine"), [required()])
    desktop = BooleanField(_l("It has a remote desktop"))

    def choose(self, host: Host | None = None) -> None:
        """Offer the machines that there are."""
        self.instance.choices = [
            (found.name, _("%(name)s on %(host)s, of %(owner)s", name=found.name, host=found.host.name,
                           owner=found.owner.display_name))
            for found in instances.everyones(host.id if host else None)
        ]  # fmt: skip
        if host and self.instance.data not in dict(self.instance.choices):
            self.instance.choices.insert(0, ("", ""))  # no other stands in for one that is gone

    def where(self) -> Host:
        """On which host."""
        return instances.get(None, self.instance.data).host

    def wish(self) -> Wish:
        """What was asked for."""
        name = (self.name.data or "").strip()
        source = self.instance.data or ""
        return Wish(name, TemplateKind.INSTANCE, source, desktop=bool(self.desktop.data), **self.use())


WAYS: dict[str, type[NewForm]] = {"recipe": RecipeForm, "image": ImageForm, "file": FileForm, "machine": MachineForm}


def way_of(template: Template) -> str:
    """The one of WAYS that it is made in."""
    return "machine" if template.kind == TemplateKind.INSTANCE else str(template.kind)


def changing(template: Template) -> ChangeForm:
    """The form with what holds now."""
    return ChangeForm(formdata=None, **_use(template))


def as_asked(template: Template) -> NewForm:
    """The form that asked for it, as it was filled in."""
    told, source = template.options, template.source
    given = {name: told.get(name, "") for name in ("start", "mirror", "checksum")}
    given |= {"packages": " ".join(told.get("packages", ())), "extras": list(told.get("extras", ()))}
    given |= _use(template) | {"name": template.name, "desktop": template.desktop}
    given |= {"recipe": source, "image": source, "instance": source, "file": f"{template.host.name}/{source}"}
    form = WAYS[way_of(template)](formdata=None, **given)
    form.choose(template.host)
    return form


def _use(template: Template) -> dict[str, str]:
    return {
        "description": template.description,
        "audience": EVERYONE if template.for_everyone else CHOSEN,
        "users": " ".join(sorted(user.username for user in template.users)),
    }


def _words(text: str | None) -> list[str]:
    return [word for word in _BETWEEN.split(text or "") if word]
