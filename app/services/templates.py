"""Templates: what machines are made from. Asked for here, built by the host's agent as operations with a log."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask_babel import gettext as _
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.images import IMAGE_PREFIX, Origin, image_alias
from app.errors import Conflict, InvalidInput, NotFound
from app.extensions import db
from app.models import (
    Host,
    Instance,
    Operation,
    OperationKind,
    Template,
    TemplateKind,
    TemplateState,
    User,
)
from app.services import audit, instances, operations
from app.services.recipes import RECIPES, Step, steps

# Where images are fetched from by `server:alias`, as LXD's own client names them. Nothing else is fetched.
SERVERS = {
    "ubuntu": "https://cloud-images.ubuntu.com/releases",
    "images": "https://images.lxd.canonical.com",
}
USUAL = "ubuntu:24.04"  # what a recipe starts from on a host without an image that looks like one
_LIKELY = re.compile(r"(base|debian|ubuntu)", re.IGNORECASE)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,119}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,80}")  # Debian's rule for names; no option, no version, no blank
_MIRROR = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,200}(/[A-Za-z0-9._~/+-]{0,200})?")
_INSTANCE = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
MOST_PACKAGES, LONGEST_DESCRIPTION = 60, 300


@dataclass(frozen=True)
class Wish:
    """A template as it was asked for. `source`: the recipe, the image or the instance, by `kind`; `start`: the image
    that a recipe starts from, "" for the usual one."""

    name: str
    kind: TemplateKind
    source: str
    description: str = ""
    start: str = ""
    mirror: str = ""
    packages: Sequence[str] = ()
    desktop: bool = False
    for_everyone: bool = True
    users: Collection[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Job:
    """What an agent needs to know to build a template."""

    template_id: int
    name: str
    description: str
    origin: Origin
    steps: list[Step]


def every(host_id: int | None = None, *, retired: bool = False) -> list[Template]:
    """The templates with their host, by host and name; those in use, or the retired."""
    query = select(Template).join(Host).options(joinedload(Template.host)).order_by(Host.name, Template.name)
    query = query.where(Template.retired_at.is_not(None) if retired else Template.retired_at.is_(None))
    return list(db.session.scalars(query if host_id is None else query.where(Template.host_id == host_id)))


def get(template_id: int) -> Template:
    """One template with its host and who may use it. Raises NotFound."""
    query = select(Template).where(Template.id == template_id)
    found = db.session.scalar(query.options(joinedload(Template.host), selectinload(Template.users)))
    if found is None:
        raise NotFound(_("There is no such template."))
    return found


def named(host: Host, name: str) -> Template:
    """The template of that name on a host, not retired. Raises NotFound."""
    found = next((one for one in every(host.id) if one.name == name), None)
    if found is None:
        raise NotFound(_("%(host)s has no template %(name)s.", host=host.name, name=name))
    return found


def offered(user: User | None) -> list[Template]:
    """What this person can make a machine from, an admin or the command line (None) all: ready, on hosts in service."""
    query = (
        select(Template)
        .join(Host)
        .where(Host.enabled, Template.state == TemplateState.READY, Template.retired_at.is_(None))
        .options(joinedload(Template.host))
        .order_by(Host.name, Template.name)
    )
    if user is not None and not user.is_admin:
        query = query.where(or_(Template.for_everyone, Template.users.any(User.id == user.id)))
    return list(db.session.scalars(query))


def has_any(host_id: int) -> bool:
    """Whether a host has a template that machines can be made from. Then people get those, and no raw image."""
    query = select(Template.id).where(Template.host_id == host_id, Template.retired_at.is_(None))
    return db.session.scalar(query.where(Template.state == TemplateState.READY).limit(1)) is not None


def request_build(actor: User | None, host: Host, wish: Wish) -> Operation:
    """Ask for a template; the host's agent builds it. `actor` None: the command line.

    Raises InvalidInput naming the field."""
    _check(host, wish)
    recipe = RECIPES.get(wish.source) if wish.kind == TemplateKind.RECIPE else None
    template = Template(
        host_id=host.id,
        name=wish.name,
        description=wish.description.strip(),
        kind=wish.kind,
        source=wish.source,
        options=_options(host, wish),
        desktop=recipe.desktop if recipe else wish.desktop,
        state=TemplateState.BUILDING,
        for_everyone=wish.for_everyone,
        users=_people(wish.users),
    )
    try:
        with db.session.begin_nested():  # the database decides between two who want one name
            db.session.add(template)
    except IntegrityError as error:
        taken = _("%(host)s has a template %(name)s already.", host=host.name, name=wish.name)
        raise InvalidInput(taken, _("Choose another name, or retire that one."), field="name") from error
    return operations.enqueue(actor, template, OperationKind.BUILD)


def retry(actor: User | None, template: Template) -> Operation:
    """Build once more what failed."""
    if template.state != TemplateState.FAILED or template.retired_at is not None:
        raise Conflict(_("Only a template that could not be built is built again."))
    template.state = TemplateState.BUILDING
    return operations.enqueue(actor, template, OperationKind.BUILD)


def retire(actor: User | None, template: Template) -> Operation:
    """Offer it to nobody any more; its image goes when nothing under way needs it. Machines made from it stay."""
    if template.retired_at is not None:
        raise Conflict(_("%(name)s is retired already.", name=template.name))
    operation = operations.enqueue(actor, template, OperationKind.DISCARD)
    template.retired_at = clock.now()
    db.session.flush()
    return operation


def change(
    actor: User | None, template: Template, *, description: str, for_everyone: bool, users: Collection[str]
) -> None:
    """Describe it anew, and say who may use it. Machines that were made from it stay. Its `users` must be loaded."""
    _check_description(description)
    template.description, template.for_everyone, template.users = description.strip(), for_everyone, _people(users)
    db.session.flush()
    who = actor.username if actor else audit.SYSTEM
    audit.record(who, "template.changed", f"template:{template.name}", everyone=for_everyone, users=sorted(users))


def job(template_id: int) -> Job:
    """What its builder is made from, and what is run in there."""
    template = get(template_id)
    recipe = template.source if template.kind == TemplateKind.RECIPE else ""
    return Job(template.id, template.name, template.description, _origin(template), steps(recipe, template.options))


def built(template_id: int, size_bytes: int) -> None:
    """Note the image; the end of the operation makes the template ready."""
    template = get(template_id)
    template.image, template.size_bytes = image_alias(template_id), size_bytes
    db.session.flush()


def discarded(template_id: int) -> None:
    """Note that the image is gone."""
    template = get(template_id)
    template.image, template.size_bytes = "", 0
    db.session.flush()


def wanted(template_id: int) -> bool:
    """Whether a machine is being made from its image at the moment."""
    query = select(Operation.id).join(Instance, Operation.instance_id == Instance.id)
    query = query.where(Instance.template_id == template_id, Operation.state.in_(operations.OPEN))
    return db.session.scalar(query.limit(1)) is not None


def images_of(host: Host) -> list[str]:
    """The host's own images that a template can be made from."""
    return [image["alias"] for image in host.images if not image["alias"].startswith(IMAGE_PREFIX)]


def usual_start(host: Host) -> str:
    """What a recipe starts from where nothing is said: an image of the host's, if one looks right."""
    own = images_of(host)
    return next((alias for alias in own if _LIKELY.match(alias)), own[0] if len(own) == 1 else USUAL)


def _origin(template: Template) -> Origin:
    if template.kind == TemplateKind.INSTANCE:
        return Origin(instance=template.source)
    text = str(template.options["start"]) if template.kind == TemplateKind.RECIPE else template.source
    server, colon, alias = text.partition(":")
    return Origin(alias=alias, server=SERVERS[server]) if colon else Origin(alias=text)


def _options(host: Host, wish: Wish) -> dict[str, Any]:
    if wish.kind != TemplateKind.RECIPE:
        return {}
    return {"start": wish.start or usual_start(host), "mirror": wish.mirror, "packages": list(wish.packages)}


def _people(usernames: Collection[str]) -> list[User]:
    found = list(db.session.scalars(select(User).where(User.username.in_(usernames)))) if usernames else []
    if missing := set(usernames) - {user.username for user in found}:
        raise InvalidInput(_("There is nobody called %(name)s.", name=min(missing)), field="users")
    return found


def _check(host: Host, wish: Wish) -> None:
    if not instances.NAME.fullmatch(wish.name):
        rule = _("A name starts with a letter and holds small letters, digits and inner hyphens, 30 at most.")
        raise InvalidInput(rule, field="name")
    _check_description(wish.description)
    if wish.kind == TemplateKind.RECIPE:
        _check_recipe(host, wish)
    elif wish.kind == TemplateKind.IMAGE:
        _check_image(host, wish.source, "image")
    elif not _INSTANCE.fullmatch(wish.source):
        raise InvalidInput(_("That is no machine's name."), field="instance")


def _check_description(text: str) -> None:
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
    if len(wish.packages) > MOST_PACKAGES:
        raise InvalidInput(_("Name %(count)s packages at most.", count=MOST_PACKAGES), field="packages")
    for name in wish.packages:
        if not _PACKAGE.fullmatch(name):
            raise InvalidInput(_("%(name)s is no name of a package.", name=name[:60]), field="packages")


def _check_image(host: Host, text: str, name: str) -> None:
    server, colon, alias = text.partition(":")
    if colon and server in SERVERS and _ALIAS.fullmatch(alias):
        return
    if colon or text not in images_of(host):
        places = ", ".join(f"{known}:" for known in SERVERS)
        brief = _("%(host)s has no image %(image)s.", host=host.name, image=text[:120])
        raise InvalidInput(brief, _("Images are also fetched from %(places)s.", places=places), field=name)
