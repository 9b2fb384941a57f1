"""What a template may be made from, and what its recipe may be told."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.drivers.image_files import FILE_NAME
from app.drivers.images import Origin
from app.errors import InvalidInput
from app.extensions import settings
from app.language import gettext as _
from app.models import Host, Template, TemplateKind
from app.services.names import MACHINE_NAME
from app.services.recipes import EXTRAS, RECIPES

USUAL = "ubuntu:24.04"  # what a recipe starts from on a host without an image that looks like one
_LIKELY = re.compile(r"(base|debian|ubuntu)", re.IGNORECASE)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,119}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,80}")  # Debian's rule for names; no option, no version, no blank
_MIRROR = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,200}(/[A-Za-z0-9._~/+-]{0,200})?")
_CHECKSUM = re.compile(r"[0-9a-fA-F]{64}")
_INSTANCE = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
MOST_PACKAGES, LONGEST_DESCRIPTION = 60, 300


@dataclass(frozen=True)
class Wish:
    """A template as it was asked for. `source`: the recipe, the image, its file or the instance, by `kind`.

    `start`: the image that a recipe starts from, "" for the usual one. `checksum`: a file's SHA-256, "" for any."""

    name: str
    kind: TemplateKind
    source: str
    description: str = ""
    start: str = ""
    mirror: str = ""
    packages: Sequence[str] = ()
    extras: Collection[str] = ()
    checksum: str = ""
    desktop: bool = False
    picture: bytes = b""
    for_everyone: bool = True
    users: Collection[str] = field(default_factory=tuple)


def images_of(host: Host) -> list[str]:
    """The host's own images that a template can be made from."""
    return [image["alias"] for image in host.images]


def usual_start(host: Host) -> str:
    """What a recipe starts from where nothing is said: an image of the host's, if one looks right."""
    own = images_of(host)
    return next((alias for alias in own if _LIKELY.match(alias)), own[0] if len(own) == 1 else USUAL)


def origin(template: Template) -> Origin:
    """What its builder is made from."""
    if template.kind == TemplateKind.INSTANCE:
        return Origin(instance=template.source)
    if template.kind == TemplateKind.FILE:
        return Origin(file=template.source)
    text = str(template.options["start"]) if template.kind == TemplateKind.RECIPE else template.source
    server, colon, alias = text.partition(":")
    if not colon:
        return Origin(alias=text)
    known = settings().image_servers
    if server not in known:
        raise InvalidInput(_("There is no server of images %(name)s.", name=server), _("See BERTH_IMAGE_SERVERS."))
    return Origin(alias=alias, server=known[server])


def options(host: Host, wish: Wish) -> dict[str, Any]:
    """What is kept of a wish for its recipe, and of a file what it has to be."""
    if wish.kind == TemplateKind.FILE:
        return {"checksum": wish.checksum.lower()}
    if wish.kind != TemplateKind.RECIPE:
        return {}
    told = {"start": wish.start or usual_start(host), "mirror": wish.mirror, "packages": list(wish.packages)}
    extras = {name: settings().sources[name] for name in EXTRAS if name in wish.extras}
    return {**told, "extras": extras} if extras else told


def check(host: Host, wish: Wish) -> None:
    """Raise InvalidInput, naming the field, for what cannot be meant."""
    if not MACHINE_NAME.fullmatch(wish.name):
        rule = _("A name starts with a letter and holds small letters, digits and inner hyphens, 30 at most.")
        raise InvalidInput(rule, field="name")
    check_description(wish.description)
    if wish.kind == TemplateKind.RECIPE:
        _check_recipe(host, wish)
    elif wish.kind == TemplateKind.IMAGE:
        _check_image(host, wish.source, "image")
    elif wish.kind == TemplateKind.FILE:
        _check_file(wish)
    elif not _INSTANCE.fullmatch(wish.source):
        raise InvalidInput(_("That is no machine's name."), field="instance")


def check_description(text: str) -> None:
    """Raise InvalidInput for a text that is too long or not only text."""
    if len(text) > LONGEST_DESCRIPTION or not text.replace("\n", " ").isprintable():
        most = LONGEST_DESCRIPTION
        raise InvalidInput(_("Use %(count)s printable characters at most.", count=most), field="description")


def _check_recipe(host: Host, wish: Wish) -> None:
    if wish.source not in RECIPES:
        raise InvalidInput(_("There is no recipe %(name)s.", name=wish.source[:60]), field="recipe")
    if wish.start:
        _check_image(host, wish.start, "start")
    if wish.mirror and not _MIRROR.fullmatch(wish.mirror):
        raise InvalidInput(_("Give the mirror's address, such as http://deb.debian.org/debian."), field="mirror")
    for name in wish.extras:
        if name not in EXTRAS:
            known = ", ".join(EXTRAS)
            raise InvalidInput(_("A recipe can add %(known)s.", known=known), field="extras")
    if len(wish.packages) > MOST_PACKAGES:
        raise InvalidInput(_("Name %(count)s packages at most.", count=MOST_PACKAGES), field="packages")
    for name in wish.packages:
        if not _PACKAGE.fullmatch(name):
            raise InvalidInput(_("%(name)s is no name of a package.", name=name[:60]), field="packages")


def _check_file(wish: Wish) -> None:
    if not FILE_NAME.fullmatch(wish.source):
        raise InvalidInput(_("Give the file's name alone: letters, digits, dots and hyphens."), field="file")
    if wish.checksum and not _CHECKSUM.fullmatch(wish.checksum):
        raise InvalidInput(_("A SHA-256 has 64 digits from 0 to 9 and a to f."), field="checksum")


def _check_image(host: Host, text: str, name: str) -> None:
    server, colon, alias = text.partition(":")
    servers = settings().image_servers
    if colon and server in servers and _ALIAS.fullmatch(alias):
        return
    if colon or text not in images_of(host):
        places = ", ".join(f"{known}:" for known in servers)
        brief = _("%(host)s has no image %(image)s.", host=host.name, image=text[:120])
        raise InvalidInput(brief, _("Images are also fetched from %(places)s.", places=places), field=name)
