"""The building of templates by their host's agent: what it has to know, what it notes, and how it is cancelled."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from app.drivers.images import Made, Origin, image_alias
from app.errors import Cancelled, Conflict
from app.extensions import db
from app.language import gettext as _
from app.models import Operation, OperationKind, OperationState, Template, TemplateKind, User
from app.services import audit, operations, templates
from app.services import template_rules as rules
from app.services.recipes import Step, steps

LAST = frozenset({"publishing", "trying"})  # steps at which it is as good as done, and LXD cannot be stopped


@dataclass(frozen=True)
class Job:
    """What an agent needs to know to build a template."""

    template_id: int
    name: str
    description: str
    origin: Origin
    steps: list[Step]
    checksum: str = ""


def job(template_id: int) -> Job:
    """What its builder is made from, and what is run in there."""
    template = templates.get(template_id)
    recipe = template.source if template.kind == TemplateKind.RECIPE else ""
    return Job(
        template.id,
        template.name,
        template.description,
        rules.origin(template),
        steps(recipe, template.options),
        str(template.options.get("checksum", "")),
    )


def built(template_id: int, made: Made) -> None:
    """Note the image; the end of the operation makes the template ready."""
    template = templates.get(template_id)
    template.image, template.size_bytes = image_alias(template_id), made.size_bytes
    template.driver_version = made.driver_version
    db.session.flush()


def looked_through(template_id: int, sha256: str) -> None:
    """Keep what a file was, by which it can be told later what machines were made of."""
    template = templates.get(template_id)
    template.options = template.options | {"sha256": sha256}
    actor = f"agent:{template.host.name}"
    audit.record(actor, "template.file", f"template:{template.name}", file=template.source, sha256=sha256)
    db.session.flush()


def discarded(template_id: int) -> None:
    """Note that the image is gone."""
    template = templates.get(template_id)
    template.image, template.size_bytes, template.picture = "", 0, None
    db.session.flush()


def cancel(actor: User | None, template: Template) -> bool:
    """End its build: at once if it has not begun, else when the host's agent hears of it, which asks every second.
    Whether it is over.

    Raises Conflict where none is under way, and where the image is being made already."""
    query = select(Operation).where(Operation.template_id == template.id, Operation.kind == OperationKind.BUILD)
    operation = db.session.scalar(query.where(Operation.state.in_(operations.OPEN)).with_for_update())
    if operation is None:
        raise Conflict(_("%(name)s is not being built.", name=template.name))
    if not can_be_left(operation):
        raise Conflict(
            _("The image of %(name)s is being made already.", name=template.name), _("Retire it afterwards.")
        )
    who = actor.username if actor else audit.SYSTEM
    operations.remember(operation.id, cancel=who)
    audit.record(who, "template.build.cancelled", f"template:{template.name}", operation=operation.id)
    begun = operation.started_at is not None  # of one that an agent left there is something to clear up
    if not begun:
        operations.finish(operation.id, who, ended_by(who))
    return not begun


def can_be_left(operation: Operation) -> bool:
    """Whether it is a build that is not as good as done. One that an agent left begins anew."""
    late = operation.state == OperationState.RUNNING and operation.step in LAST
    return operation.kind == OperationKind.BUILD and operation.state in operations.OPEN and not late


def heed(operation_id: int) -> None:
    """Raise Cancelled if somebody has asked for its end."""
    details = db.session.scalar(select(Operation.details).where(Operation.id == operation_id)) or {}
    if who := details.get("cancel"):
        raise Cancelled(ended_by(who))


def ended_by(who: str) -> str:
    """What is kept as a cancelled build's error."""
    return f"Cancelled by {who}."
