"""Who is to be told of what was done: audit events become notices, in the order in which they happened."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import joinedload, selectinload

from app.extensions import db
from app.models import AuditEvent, Booking, Event, Gpu, Instance, News, Series, User, Wait
from app.services import notices, people
from app.services.notice_bookings import CHANGED
from app.services.notices import Telling

log = logging.getLogger(__name__)

AT_ONCE = 100
OWN = {
    "booking.created": Event.MADE,
    "booking.moved": Event.MOVED,
    "booking.released": Event.MOVED,
    "booking.cancelled": Event.MOVED,
    "booking.gpu_replaced": Event.MOVED,
    "booking.no_show": Event.MOVED,
    "booking.resized": Event.MOVED,
    "booking.noted": Event.MOVED,
    "booking.idle_warned": Event.IDLE,
    "booking.reclaimed": Event.IDLE,
}
SERIES = {"series.created": Event.MADE, "series.changed": Event.MOVED, "series.cancelled": Event.MOVED}
OF_WAITS = {"wait.offered", "wait.granted", "wait.expired"}
DECISIONS = dict.fromkeys(("user.approved", "user.refused", "user.password_set"), Event.APPROVED)
FOR_ADMINS = {
    "user.registered": Event.WAITING,
    "gpu.quarantined": Event.QUARANTINE,
    "gpu.intruder": Event.ALARM,
    "gpu.used_unbooked": Event.ALARM,
    "gpu.unreadable": Event.ALARM,
    "instance.force_stopped": Event.ALARM,
    "host.pool_full": Event.ALARM,
    "job.refused": Event.ALARM,
}
# Each program is on record; a loop of them is told of once in the hour, as is a GPU that comes and goes.
BY_THE_HOUR = {"gpu.intruder": "use", "gpu.used_unbooked": "use", "gpu.unreadable": "unreadable"}


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
    elif event.action in SERIES:
        yield from _series(event)
    elif event.action in OF_WAITS:
        yield from _of_wait(event)
    elif event.action == "instance.disk_full":
        yield from _disk_full(event)
    elif event.action in DECISIONS:
        name = event.target.partition(":")[2]
        person = db.session.scalar(select(User).where(User.username == name))
        details = {"action": event.action, "reason": str(event.details.get("reason", ""))}
        if person is not None:
            yield person, Telling(DECISIONS[event.action], f"event:{event.id}", details)
    elif event.action in FOR_ADMINS:
        telling = Telling(FOR_ADMINS[event.action], _key(event), _for_admins(event))
        for admin in people.admins():
            yield admin, telling


def _own(event: AuditEvent) -> Iterator[tuple[User, Telling]]:
    """Of a change of a booking: its owner, unless they made it themselves, the waiting list tells them, it was one of a
    series, or what it is the rest of says so."""
    if "series" in event.details or "rest_of" in event.details:
        return
    number = event.target.partition(":")[2]
    booking = db.session.scalar(
        select(Booking)
        .where(Booking.id == int(number))
        .options(joinedload(Booking.user), joinedload(Booking.host), selectinload(Booking.allocations))
    )
    if booking is None or (event.action != "booking.created" and event.actor == booking.user.username):
        return
    if "wait" in event.details or (event.action == "booking.created" and _came_by_waiting(booking)):
        return
    parts = _parts(event)
    if event.id != parts[-1].id:  # the last one tells all
        return
    kind = OWN[event.action]
    key = f"made:{booking.id}" if kind == Event.MADE else f"event:{event.id}"
    action = event.action if all(part.action == event.action for part in parts) else CHANGED
    details = {**facts(booking), "action": action, "by": event.actor}
    for part in parts:
        details |= _became(part)
    if (reason := str(event.details.get("reason", ""))) != "":
        details["reason"] = reason
    told = ("since", "due_at", "keeps", "minutes", "absent", "fee", "rest")  # of GPUs that do nothing; of maintenance
    details |= {name: event.details[name] for name in told if name in event.details}
    until = details.get("due_at") if event.action == "booking.idle_warned" else None
    yield booking.user, Telling(kind, key, details, datetime.fromisoformat(until) if until else None)


def _parts(event: AuditEvent) -> Sequence[AuditEvent]:
    """All that was made of the booking in the same change, in order; one change is seen whole or not at all."""
    if "change" not in event.details:
        return [event]
    same = AuditEvent.details["change"].astext == event.details["change"]
    query = select(AuditEvent).where(AuditEvent.target == event.target, same).order_by(AuditEvent.id)
    return db.session.scalars(query).all()


def _became(event: AuditEvent) -> dict[str, Any]:
    """What it is after one part of a change and was before; as that left it, not what came after."""
    details = dict[str, Any]()
    if "before" in event.details:
        details |= {"before": event.details["before"], "ends_at": event.details["ends_at"]}
    if "began" in event.details:
        details |= {"began": event.details["began"], "starts_at": event.details["starts_at"]}
    if event.action == "booking.resized":
        gpus, were = event.details["gpus"], event.details["were"]
        details |= {"gpus": len(gpus), "had": len(were)}
        if len(gpus) == len(were):
            details |= {"has": _minors(gpus), "instead_of": _minors(were)}
    if event.action == "booking.noted":
        details["note"] = event.details["note"]
    return details


def _minors(gpu_ids: list[int]) -> list[int]:
    return list(db.session.scalars(select(Gpu.minor).where(Gpu.id.in_(gpu_ids)).order_by(Gpu.minor)))


def _series(event: AuditEvent) -> Iterator[tuple[User, Telling]]:
    """Of many bookings at once: their owner, once, unless they made the change themselves."""
    number = int(event.target.partition(":")[2])
    owner = db.session.scalar(select(User).join(Series, Series.user_id == User.id).where(Series.id == number))
    if owner is None or (event.action != "series.created" and event.actor == owner.username):
        return
    details = {name: event.details[name] for name in ("gpus", "starts_at", "last_at")}
    details |= {"series": number, "count": len(event.details["bookings"]), "action": event.action, "by": event.actor}
    yield owner, Telling(SERIES[event.action], f"event:{event.id}", details)


def _of_wait(event: AuditEvent) -> Iterator[tuple[User, Telling]]:
    """Of what the waiting list did: the one who waits."""
    wait = db.session.scalar(
        select(Wait)
        .where(Wait.id == int(event.target.partition(":")[2]))
        .options(
            joinedload(Wait.user),
            joinedload(Wait.booking).options(joinedload(Booking.host), selectinload(Booking.allocations)),
        )
    )
    if wait is None:
        return
    wish = {"gpus": wait.count, "starts_at": wait.starts_at.isoformat(), "ends_at": wait.ends_at.isoformat()}
    details: dict[str, Any] = wish if wait.booking is None else facts(wait.booking)
    details |= {"action": event.action, "wait": wait.id, "offered": bool(event.details.get("offered"))}
    open_until = wait.decide_by if event.action != "wait.expired" else None
    details["decide_by"] = open_until.isoformat() if open_until else ""
    yield wait.user, Telling(Event.OFFERED, f"event:{event.id}", details, open_until)


def _disk_full(event: AuditEvent) -> Iterator[tuple[User, Telling]]:
    """Of a machine that is still there: its owner."""
    query = select(Instance).where(Instance.id == event.details["machine"], Instance.deleted_at.is_(None))
    machine = db.session.scalar(query.options(joinedload(Instance.owner)))
    if machine is not None:
        details = {"machine": machine.name, **{name: event.details[name] for name in ("host", "disk", "size")}}
        yield machine.owner, Telling(Event.DISK_FULL, f"event:{event.id}", details)


def _came_by_waiting(booking: Booking) -> bool:
    return db.session.scalar(select(Wait.id).where(Wait.booking_id == booking.id)) is not None


def _key(event: AuditEvent) -> str:
    """What makes it one thing to tell admins of: the same machine on the same GPU is no news again within the hour."""
    if event.action not in BY_THE_HOUR:
        return f"event:{event.id}"
    return f"{BY_THE_HOUR[event.action]}:{event.target}:{event.details.get('instance', '')}:{event.created_at:%Y%m%d%H}"


def _for_admins(event: AuditEvent) -> dict[str, Any]:
    kept = ("host", "pci_address", "reason", "why", "instance", "name", "function")
    details: dict[str, Any] = {name: str(event.details[name])[:200] for name in kept if name in event.details}
    details |= {"action": event.action, "target": event.target}
    kind, _, number = event.target.partition(":")
    if kind == "gpu" and number.isdigit() and (gpu := db.session.get(Gpu, int(number))) is not None:
        details["gpu"] = gpu.minor
    return details
