"""The forms that ask for a template, one for each way to make it, and the one that changes it."""

from __future__ import annotations

import re
from typing import Any

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from wtforms import BooleanField, RadioField, SelectChoice, SelectField, StringField, TextAreaField

from app.models import Host, Template, TemplateKind
from app.services import instances, inventory
from app.services.recipes import RECIPES
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

    def use(self) -> dict[str, Any]:
        """The values as the services take them."""
        everyone = self.audience.data == EVERYONE
        users = () if everyone else tuple(_words(self.users.data))
        return {"description": self.description.data or "", "for_everyone": everyone, "users": users}


class NewForm(UseForm):
    """What all ways have in common."""

    host = SelectField(_l("Host"))
    name = StringField(_l("Name"), [required(), at_most(30)])

    def choose(self) -> None:
        """Offer the hosts that there are."""
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
    start = StringField(_l("Image to start from"), [at_most(120)])
    mirror = StringField(_l("Package mirror"), [at_most(400)])
    packages = TextAreaField(_l("More packages"), [at_most(5000)])

    def wish(self) -> Wish:
        """What was asked for."""
        assert set(RECIPES) == {choice.value for choice in self.recipe.choices}
        return Wish(
            (self.name.data or "").strip(),
            TemplateKind.RECIPE,
            self.recipe.data or "",
            start=(self.start.data or "").strip(),
            mirror=(self.mirror.data or "").strip(),
            packages=tuple(_words(self.packages.data)),
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


class MachineForm(NewForm):
    """From a machine that somebody prepared; the host is the machine's."""

    host = None
    instance = SelectField(_l("Machine"))
    desktop = BooleanField(_l("It has a remote desktop"))

    def choose(self) -> None:
        """Offer the machines that there are."""
        self.instance.choices = [
            (found.name, _("%(name)s on %(host)s, of %(owner)s", name=found.name, host=found.host.name,
                           owner=found.owner.display_name))
            for found in instances.everyones()
        ]  # fmt: skip

    def where(self) -> Host:
        """On which host."""
        return instances.get(None, self.instance.data).host

    def wish(self) -> Wish:
        """What was asked for."""
        name = (self.name.data or "").strip()
        source = self.instance.data or ""
        return Wish(name, TemplateKind.INSTANCE, source, desktop=bool(self.desktop.data), **self.use())


WAYS: dict[str, type[NewForm]] = {"recipe": RecipeForm, "image": ImageForm, "machine": MachineForm}


def changing(template: Template) -> UseForm:
    """The form with what holds now."""
    return UseForm(
        formdata=None,
        description=template.description,
        audience=EVERYONE if template.for_everyone else CHOSEN,
        users=" ".join(sorted(user.username for user in template.users)),
    )


def _words(text: str | None) -> list[str]:
    return [word for word in _BETWEEN.split(text or "") if word]
