"""What others than its owner did to a machine: an admin may, and the owner is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select

from app import clock
from app.extensions import db
from app.models import AuditEvent, Instance, Template, User
from app.services import audit

LOOK_BACK = timedelta(days=30)
NAMES = 5  # earlier names of one machine that are gone through
READ, RENAMED = "instance.read", "instance.renamed"
KEY = "ssh_key.added"  # to the owner, and so to the machine
KINDS = """
    start stop restart freeze resize rebuild move snapshot restore forget backup password libraries mend delete
    """.split()  # noqa: SIM905 - a list of words reads better so
ACTIONS = (
    "terminal.opened",
    READ,
    RENAMED,
    "instance.schedule",
    "instance.autostart",
    "instance.delete_later",
    "instance.kept",
    "instance.published",
    "backup.fetched",
    "backup.removed",
    *(f"instance.{kind}.asked" for kind in KINDS),
)


@dataclass(frozen=True)
class Visit:
    """What somebody did, once or `times`, the last time `at`: what is done each night pushes nothing else out."""

    actor: str
    action: str
    at: datetime
    times: int


def of(instance: Instance) -> list[Visit]:
    """What people other than its owner did, the newest first, under its earlier names too; host and owner must be
    loaded."""
    since = max(clock.now() - LOOK_BACK, instance.created_at)
    # One of another host may have the name, not Berth's.
    host, number = AuditEvent.details["host"].astext, AuditEvent.details["machine"].astext
    its_own = or_(host == instance.host.name, number == str(instance.id))
    query = (
        select(AuditEvent.actor, AuditEvent.action, func.max(AuditEvent.created_at), func.count())
        .where(
            or_(
                and_(
                    or_(*_names(instance, since)),
                    AuditEvent.action.in_(ACTIONS),
                    or_(AuditEvent.action != READ, its_own),
                ),
                and_(AuditEvent.target == f"user:{instance.owner.username}", AuditEvent.action == KEY),
            ),
            AuditEvent.actor.not_in([instance.owner.username, audit.SYSTEM]),
            AuditEvent.created_at >= since,
        )
        .group_by(AuditEvent.actor, AuditEvent.action)
        .order_by(func.max(AuditEvent.id).desc())
    )
    return [Visit(*found) for found in db.session.execute(query)]


def machine(host_id: int, name: str) -> int | None:
    """Which machine of Berth's an instance of a host is, if it is one."""
    query = select(Instance.id).where(Instance.host_id == host_id, Instance.name == name)
    return db.session.scalar(query.where(Instance.deleted_at.is_(None)))


def note_template(actor: User | None, template: Template) -> None:
    """Note on a machine's own record that a template is made of it."""
    if machine(template.host_id, template.source) is not None:
        who = actor.username if actor else audit.SYSTEM
        audit.record(who, "instance.published", f"instance:{template.source}", template=template.name)


def _names(instance: Instance, since: datetime) -> list[ColumnElement[bool]]:
    """What is about this machine: under the name that it has, and under each that it had for as long as it had it."""
    found: list[ColumnElement[bool]] = []
    name, until = instance.name, None
    while len(found) < NAMES:
        target = AuditEvent.target == f"instance:{name}"
        before: list[ColumnElement[bool]] = [] if until is None else [AuditEvent.id < until]
        query = select(AuditEvent).where(
            target, *before, AuditEvent.action == RENAMED, AuditEvent.created_at >= since
        )  # fmt: skip
        renamed = db.session.scalar(query.order_by(AuditEvent.id.desc()).limit(1))
        after = [] if renamed is None else [AuditEvent.id >= renamed.id]
        found.append(and_(target, *before, *after))
        if renamed is None:
            return found
        name, until = str(renamed.details["old"]), renamed.id
    return found
