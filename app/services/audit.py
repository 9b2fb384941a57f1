"""Who did what, in the same transaction as the change itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.extensions import db
from app.models import AuditEvent, Base

SYSTEM = "system"
# The bare table, and no row asked back: nothing needs the event as an object.
_INSERT = insert(Base.metadata.tables["audit_events"]).inline()
_INSERT_ONCE = _INSERT.on_conflict_do_nothing(index_elements=["key"])


def record(actor: str, action: str, target: str, *, key: str | None = None, **details: Any) -> None:
    """Write one audit event. With `key`, the same event is written once however often this runs."""
    values = {"actor": actor, "action": action, "target": target, "details": details, "key": key}
    db.session.execute(_INSERT_ONCE if key is not None else _INSERT, values)


def recent(limit: int = 100, target: str | None = None, before_id: int | None = None) -> list[AuditEvent]:
    """The newest events, of one target if given, older than one if given."""
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if target is not None:
        query = query.where(AuditEvent.target == target)
    if before_id is not None:
        query = query.where(AuditEvent.id < before_id)
    return list(db.session.scalars(query))
