"""What others than its owner did to a machine: an admin may, and the owner is told."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from app import clock
from app.extensions import db
from app.models import AuditEvent, Instance

LOOK_BACK = timedelta(days=30)
MOST = 10
ACTIONS = (
    "terminal.opened",
    "instance.read",
    *(
        f"instance.{kind}.asked"
        for kind in ("start", "stop", "restart", "freeze", "resize", "rename", "rebuild", "restore", "password")
    ),
)


def of(instance: Instance) -> list[AuditEvent]:
    """The newest, by people other than its owner; the owner must be loaded."""
    query = (
        select(AuditEvent)
        .where(
            AuditEvent.target == f"instance:{instance.name}",
            AuditEvent.action.in_(ACTIONS),
            AuditEvent.actor.not_in([instance.owner.username, "system"]),
            AuditEvent.created_at > max(clock.now() - LOOK_BACK, instance.created_at),
        )
        .order_by(AuditEvent.id.desc())
        .limit(MOST)
    )
    return list(db.session.scalars(query))
