"""What others than its owner did to a machine: an admin may, and the owner is told."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select

from app import clock
from app.extensions import db
from app.models import AuditEvent, Instance
from app.services import audit

LOOK_BACK = timedelta(days=30)
MOST = 10
NAMES = 5  # earlier names of one machine that are gone through
READ, RENAMED = "instance.read", "instance.renamed"
ACTIONS = (
    "terminal.opened",
    READ,
    RENAMED,
    *(
        f"instance.{kind}.asked"
        for kind in ("start", "stop", "restart", "freeze", "resize", "rebuild", "restore", "password")
    ),
)


def of(instance: Instance) -> list[AuditEvent]:
    """The newest, by people other than its owner, under its earlier names too; host and owner must be loaded."""
    since = max(clock.now() - LOOK_BACK, instance.created_at)
    here = AuditEvent.details["host"].astext == instance.host.name  # one of another host may have the name, not Berth's
    query = (
        select(AuditEvent)
        .where(
            or_(*_names(instance, since)),
            AuditEvent.action.in_(ACTIONS),
            or_(AuditEvent.action != READ, here),
            AuditEvent.actor.not_in([instance.owner.username, audit.SYSTEM]),
            AuditEvent.created_at >= since,
        )
        .order_by(AuditEvent.id.desc())
        .limit(MOST)
    )
    return list(db.session.scalars(query))


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
