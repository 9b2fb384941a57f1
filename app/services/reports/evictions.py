"""GPUs that had to be taken by force: which step it came to, on which GPU, and whom it befell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVarTuple

from sqlalchemy import Integer, Select, and_, bindparam, case, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.orm import load_only
from sqlalchemy.types import String

from app.extensions import db
from app.models import AuditEvent, Booking, Gpu, User
from app.services.reports import targets
from app.services.reports.named import NAMED
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span
from app.services.words import gpu_label

# The steps of an eviction that did not go by itself, the mildest first.
FORCED = ("gpu.process_ended", "instance.force_stopped", "gpu.quarantined", "gpu.intruder", "gpu.used_unbooked")
OF_BOOKINGS = ("gpu.process_ended", "instance.force_stopped", "gpu.quarantined")  # those that can be a booking's


Ts = TypeVarTuple("Ts")


@dataclass(frozen=True)
class Eviction:
    """One such step, one of FORCED. `booking`, `user`: whose time with the GPU was over; without a booking, the owner
    of the machine at that time, if it is known. `program`: what was ended or seen; "" where that was none. `more`: how
    many more there were with it, which are not listed."""

    at: datetime
    step: str
    host: str
    gpu: str
    machine: str
    program: str
    booking: int | None
    user: User | None
    more: int = 0


# An intruder has no booking: that whose GPU it held is somebody else's.
_BOOKING = case((AuditEvent.action.in_(OF_BOOKINGS), AuditEvent.details["booking"].as_integer()))
_MACHINE = case(
    (AuditEvent.target.like("instance:%"), func.substr(AuditEvent.target, len("instance:") + 1)),
    else_=AuditEvent.details["instance"].as_string(),
)
_GPU = case(
    (AuditEvent.target.like("gpu:%"), targets.number("gpu")),
    else_=AuditEvent.details["gpu"].as_integer(),
)
_HAD_IT = and_(NAMED.c.name == _MACHINE, NAMED.c.since <= AuditEvent.created_at, NAMED.c.until > AuditEvent.created_at)
_MILDEST = func.array_position(cast(array(FORCED), ARRAY(String)), AuditEvent.action)
_EVENT = AuditEvent.created_at, AuditEvent.action, AuditEvent.details


def counted(span: Span, scope: Scope) -> Mapping[str, int]:
    """How often each of FORCED happened, or of somebody's bookings each of OF_BOOKINGS."""
    rows = db.session.execute(_counting(tuple(scope.values)), targets.values(span, scope))
    found: dict[str, int] = {action: int(count) for action, count in rows}
    return {action: found.get(action, 0) for action in _kinds(tuple(scope.values))}


def newest(span: Span, scope: Scope, limit: int) -> list[Eviction]:
    """So many of them, the last first; of one moment, the mildest first."""
    rows = db.session.execute(_listing(tuple(scope.values)), targets.values(span, scope) | {"most": limit}).all()
    labels = {minor: gpu_label(Gpu(minor=minor)) for minor in {row.minor for row in rows} - {None}}
    found = [_eviction(labels, *row) for row in rows]
    if scope.reader_id is None:
        return found
    return [
        one if one.user and one.user.id == scope.reader_id else replace(one, machine="", program="") for one in found
    ]


def _kinds(names: tuple[str, ...]) -> tuple[str, ...]:
    return OF_BOOKINGS if names else FORCED


@cache
def _counting(names: tuple[str, ...]) -> Select[str, int]:
    number = func.sum(1 + func.coalesce(AuditEvent.details["more"].as_integer(), 0))
    return _among(select(AuditEvent.action, number), names).group_by(AuditEvent.action)


@cache
def _listing(names: tuple[str, ...]) -> Select[datetime, str, dict[str, Any], int, str, int, User]:
    columns = select(*_EVENT, Gpu.minor, _MACHINE, Booking.id, User).select_from(AuditEvent)
    return (
        _among(columns.outerjoin(Gpu, Gpu.id == _GPU), names)
        .outerjoin(NAMED, and_(Booking.id.is_(None), _HAD_IT))
        .outerjoin(User, User.id == func.coalesce(Booking.user_id, NAMED.c.owner_id))
        .order_by(AuditEvent.created_at.desc(), _MILDEST, AuditEvent.id)
        .options(load_only(User.username, User.full_name))
        .limit(bindparam("most", type_=Integer))
    )


def _among(query: Select[*Ts], names: tuple[str, ...]) -> Select[*Ts]:
    """Those of a span and of somebody's bookings; joined with their booking."""
    joined = query.join(Booking, Booking.id == _BOOKING, isouter=not names)
    return joined.where(AuditEvent.action.in_(_kinds(names)), *targets.within(names))


def _eviction(
    labels: Mapping[int | None, str],
    at: datetime,
    action: str,
    facts: dict[str, Any],
    minor: int | None,
    machine: str | None,
    booking: int | None,
    user: User | None,
) -> Eviction:
    label = labels[minor] if minor is not None else str(facts.get("pci_address", ""))
    program = str(facts.get("name", "")) if "process" in facts else ""
    where = str(facts.get("host", ""))
    more = int(facts.get("more", 0))
    return Eviction(at, action, where, label, machine or "", program, booking, user, more)
