"""Who did what, in the same transaction as the change itself."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import JSONB, Insert, insert

from app.extensions import db
from app.models import AuditEvent, Base

SYSTEM = "system"
CLI = "cli"  # somebody at the command line; nobody can be called so
# Actions that somebody may want to be told of (see services.news). The event stands among the news as long as nobody
# has looked who that is.
TOLD = frozenset(
    """
    booking.created booking.moved booking.released booking.cancelled booking.gpu_replaced booking.no_show
    booking.idle_warned booking.reclaimed booking.resized booking.noted
    series.created series.changed series.cancelled wait.offered wait.granted wait.expired
    user.registered user.approved user.refused user.password_set
    gpu.quarantined gpu.intruder gpu.used_unbooked gpu.unreadable instance.force_stopped host.pool_full
    instance.disk_full job.refused
    """.split()  # noqa: SIM905 - a list of words reads better so
)
# The bare table, and no row asked back: nothing needs the event as an object.
_INSERT = insert(Base.metadata.tables["audit_events"]).inline()
_INSERT_ONCE = _INSERT.on_conflict_do_nothing(index_elements=["key"])

_change: ContextVar[str] = ContextVar("change", default="")


def _as_news(once: bool) -> Insert:
    """The event and its place among the news in one statement: bookings are made with locks held."""
    table = Base.metadata.tables["audit_events"]
    names = ("actor", "action", "target", "key")
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    values["details"] = bindparam("details", type_=JSONB())
    event = insert(table).values(values)
    if once:
        event = event.on_conflict_do_nothing(index_elements=["key"])
    added = event.returning(table.c.id).cte("added")
    return insert(Base.metadata.tables["news"]).inline().from_select(["event_id"], select(added.c.id))


_NEWS, _NEWS_ONCE = _as_news(once=False), _as_news(once=True)


@contextmanager
def one_change() -> Iterator[None]:
    """What is recorded within is one change: each event says so by the same `change`, and who is to be told of it hears
    of all of it at once (see services.news)."""
    token = _change.set(secrets.token_hex(6))
    try:
        yield
    finally:
        _change.reset(token)


def record(actor: str, action: str, target: str, *, key: str | None = None, **details: Any) -> None:
    """Write one audit event. With `key`, the same event is written once however often this runs."""
    if change := _change.get():
        details["change"] = change
    values = {"actor": actor, "action": action, "target": target, "details": details, "key": key}
    if action in TOLD:
        db.session.execute(_NEWS_ONCE if key is not None else _NEWS, values)
    else:
        db.session.execute(_INSERT_ONCE if key is not None else _INSERT, values)


def recent(limit: int = 100, target: str | None = None, before_id: int | None = None) -> list[AuditEvent]:
    """The newest events, of one target if given, older than one if given."""
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if target is not None:
        query = query.where(AuditEvent.target == target)
    if before_id is not None:
        query = query.where(AuditEvent.id < before_id)
    return list(db.session.scalars(query))
