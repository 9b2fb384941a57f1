"""Who is to be told of what was done: audit events become notices, in the order in which they happened."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import joinedload, selectinload

from app.extensions import db
from app.models import AuditEvent, Booking, Event, Gpu, News, User
from app.services import notices, people
from app.services.notices import Telling

log = logging.getLogger(__name__)

AT_ONCE = 100
OWN = {
    "booking.created": Event.MADE,
    "booking.moved": Event.MOVED,
    "booking.released": Event.MOVED,
    "booking.cancelled": Event.MOVED,
    "booking.gpu_replaced": Event.MOVED,
    "booking.idle_warned": Event.IDLE,
    "booking.reclaimed": Event.IDLE,
}
DECISIONS = {"user.approved": Event.APPROVED, "user.refused": Event.APPROVED}
FOR_ADMINS = {
    "user.registered": Event.WAITING,
    "gpu.quarantined": Event.QUARANTINE,
    "gpu.intruder": Event.ALARM,
    "instance.force_stopped": Event.ALARM,
    "job.refused": Event.ALARM,
}


def collect(*, mail: bool) -> int:
    """Make notices of the oldest news; how many news there were. Several at once take different ones."""
    query = select(News.event_id).order_by(News.event_id).limit(AT_ONCE).with_for_update(skip_locked=True)
    ids = list(db.session.scalars(query))
    events = db.session.scalars(select(AuditEvent).where(AuditEvent.id.in_(ids)).order_by(AuditEvent.id)).all()
    for event in events:
        try:
            with db.session.begin_nested():
                for person, telling in _about(event):
                    notices.tell(person, telling, mail=mail)
        except (LookupError, ValueError, TypeError):  # one that makes no sense keeps no other one back
            log.exception("nobody is told of audit event %d", event.id)
    db.session.execute(delete(News).where(News.event_id.in_(ids)))
    return len(ids)


def facts(booking: Booking) -> dict[str, Any]:
    """What a notice says of a booking, as it is now; its host and allocations must be loaded."""
    return {
        "booking": booking.id,
        "gpus": len(booking.allocations),
        "host": booking.host.name,
        "starts_at": booking.starts_at.isoformat(),
        "ends_at": booking.ends_at.isoformat(),
    }


def _about(event: AuditEvent) -> Iterator[tuple[User, Telling]]:
    if event.action in OWN:
        yield from _own(event)
    elif event.action in DECISIONS:
        name = event.target.partition(":")[2]
        person = db.session.scalar(select(User).where(User.username == name))
        details = {"action": event.action, "reason": str(event.details.get("reason", ""))}
        if person is not None:
            yield person, Telling(DECISIONS[event.action], f"event:{event.id}", details)
    elif event.action in FOR_ADMINS:
        telling = Telling(FOR_ADMINS[event.action], f"event:{event.id}", _for_admins(event))
        for admin in people.admins():
            yield admin, telling


def _own(event: AuditEvent) -> Iterator[tuple[User, Telling]]:
    """Of a change of a booking: its owner, unless they made the change themselves."""
    number = event.target.partition(":")[2]
    booking = db.session.scalar(
        select(Booking)
        .where(Booking.id == int(number))
        .options(joinedload(Booking.user), joinedload(Booking.host), selectinload(Booking.allocations))
    )
    if booking is None or (event.action != "booking.created" and event.actor == booking.user.username):
        return
    kind = OWN[event.action]
    key = f"made:{booking.id}" if kind == Event.MADE else f"event:{event.id}"
    details = {**facts(booking), "action": event.action, "by": event.actor}
    if "before" in event.details:
        details |= {"before": event.details["before"], "ends_at": event.details["ends_at"]}
    if (reason := str(event.details.get("reason", ""))) != "":
        details["reason"] = reason
    told = ("since", "due_at", "keeps", "minutes")  # of GPUs that do nothing
    details |= {name: event.details[name] for name in told if name in event.details}
    until = details.get("due_at") if event.action == "booking.idle_warned" else None
    yield booking.user, Telling(kind, key, details, datetime.fromisoformat(until) if until else None)


def _for_admins(event: AuditEvent) -> dict[str, Any]:
    kept = ("host", "pci_address", "reason", "why", "instance", "name", "function")
    details: dict[str, Any] = {name: str(event.details[name])[:200] for name in kept if name in event.details}
    details |= {"action": event.action, "target": event.target}
    kind, _, number = event.target.partition(":")
    if kind == "gpu" and number.isdigit() and (gpu := db.session.get(Gpu, int(number))) is not None:
        details["gpu"] = gpu.minor
    return details
