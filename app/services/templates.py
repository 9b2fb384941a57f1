"""Templates: what machines are made from. Asked for here, built by the host's agent as operations with a log."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.errors import Conflict, InvalidInput, NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import (
    Host,
    Operation,
    OperationKind,
    OperationState,
    Template,
    TemplateKind,
    TemplateState,
    User,
)
from app.services import audit, operations, pictures, visits
from app.services import template_rules as rules
from app.services.recipes import RECIPES
from app.services.template_rules import Wish


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


def to_retry(host: Host, name: str) -> Template:
    """The template of that name; or one that had it, if that one's image could not be removed. Raises NotFound."""
    failed = [one for one in every(host.id) if one.name == name and one.state == TemplateState.FAILED]
    failed += [one for one in every(host.id, retired=True) if one.name == name and _stuck(one)]
    return failed[0] if failed else named(host, name)


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
    """Ask for a template; the host's agent builds it. Raises InvalidInput naming the field."""
    return _fill(actor, Template(host_id=host.id), host, wish)


def amend(actor: User | None, template: Template, wish: Wish) -> Operation:
    """Build once more what failed, from other settings; a picture that it has stays where the wish has none. Its host
    and `users` must be loaded. Raises InvalidInput naming the field, Conflict."""
    if template.state != TemplateState.FAILED or template.retired_at is not None:
        raise Conflict(_("Only a template that could not be built is built again."))
    operation = _fill(actor, template, template.host, wish)
    who = actor.username if actor else audit.SYSTEM
    audit.record(who, "template.amended", f"template:{template.name}", source=template.source, told=template.options)
    return operation


def _fill(actor: User | None, template: Template, host: Host, wish: Wish) -> Operation:
    rules.check(host, wish)
    recipe = RECIPES.get(wish.source) if wish.kind == TemplateKind.RECIPE else None
    told = {
        "name": wish.name,
        "description": wish.description.strip(),
        "kind": wish.kind,
        "source": wish.source,
        "options": rules.options(host, wish),
        "desktop": recipe.desktop if recipe else wish.desktop,
        "state": TemplateState.BUILDING,
        "for_everyone": wish.for_everyone,
        "users": _people(wish.users),
        **({"picture": pictures.redraw(wish.picture)} if wish.picture else {}),
    }
    try:
        with db.session.begin_nested():  # the database decides between two who want one name
            for name, value in told.items():
                setattr(template, name, value)
            db.session.add(template)
    except IntegrityError as error:
        taken = _("%(host)s has a template %(name)s already.", host=host.name, name=wish.name)
        raise InvalidInput(taken, _("Choose another name, or retire that one."), field="name") from error
    return _build(actor, template)


def retry(actor: User | None, template: Template) -> Operation:
    """Build once more what failed; of a retired one, remove its image once more."""
    if template.retired_at is not None:
        if not _stuck(template):
            raise Conflict(_("%(name)s is retired already.", name=template.name))
        return operations.enqueue(actor, template, OperationKind.DISCARD)
    if template.state != TemplateState.FAILED:
        raise Conflict(_("Only a template that could not be built is built again."))
    template.state = TemplateState.BUILDING
    return _build(actor, template)


def _build(actor: User | None, template: Template) -> Operation:
    if template.kind == TemplateKind.INSTANCE:
        visits.note_template(actor, template)
    return operations.enqueue(actor, template, OperationKind.BUILD)


def _stuck(template: Template) -> bool:
    """Whether the last thing that was asked for did not work."""
    newest = operations.last_of_template(template.id)
    return newest is not None and newest.state == OperationState.FAILED


def retire(actor: User | None, template: Template) -> Operation:
    """Offer it to nobody any more; its image goes when nothing under way needs it. Machines made from it stay."""
    if template.retired_at is not None:
        raise Conflict(_("%(name)s is retired already.", name=template.name))
    operation = operations.enqueue(actor, template, OperationKind.DISCARD)
    template.retired_at = clock.now()
    db.session.flush()
    return operation


def change(
    actor: User | None,
    template: Template,
    *,
    description: str,
    for_everyone: bool,
    users: Collection[str],
    picture: bytes | None = None,
) -> None:
    """Describe it anew, and say who may use it. Machines that were made from it stay. Its `users` must be loaded.
    `picture` as a file's content; b"" for none any more, None for the one that it has."""
    rules.check_description(description)
    if picture is not None:
        template.picture = pictures.redraw(picture) if picture else None
    template.description, template.for_everyone, template.users = description.strip(), for_everyone, _people(users)
    db.session.flush()
    who = actor.username if actor else audit.SYSTEM
    audit.record(who, "template.changed", f"template:{template.name}", everyone=for_everyone, users=sorted(users))


def fits_driver(template: Template) -> bool:
    """Whether the NVIDIA libraries that lie in it are those of its host's driver; without any, the host brings them."""
    now = template.host.driver_version
    return not template.driver_version or not now or template.driver_version == now


def wanted(template_id: int) -> bool:
    """Whether a machine is being made from its image at the moment, or is to be."""
    return bool(db.session.scalar(select(operations.needing(template_id))))


def _people(usernames: Collection[str]) -> list[User]:
    found = list(db.session.scalars(select(User).where(User.username.in_(usernames)))) if usernames else []
    if missing := set(usernames) - {user.username for user in found}:
        raise InvalidInput(_("There is nobody called %(name)s.", name=min(missing)), field="users")
    return found
