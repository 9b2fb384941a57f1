"""What went wrong in a span: GPUs that had to be taken by force, and bookings to which nobody came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, or_, select

from app.extensions import db
from app.models import AuditEvent, Booking, User
from app.services.idle.steps import RECLAIMED
from app.services.noshows import NO_SHOW
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span

# The steps of an eviction that did not go by itself, the mildest first.
FORCED = ("gpu.process_ended", "instance.force_stopped", "gpu.quarantined", "gpu.intruder", "gpu.used_unbooked")
OF_BOOKINGS = ("gpu.process_ended",)  # those of these that are a booking's


@dataclass(frozen=True)
class Incidents:
    """How often each of FORCED happened, and who did not come how often, most first: no machine of theirs took the
    GPUs, or nobody ever used them."""

    forced: Mapping[str, int]
    no_shows: tuple[tuple[User, int], ...]


def of(span: Span, scope: Scope) -> Incidents:
    """All of the lab's, or what befell some of its bookings."""
    mine = [getattr(Booking, name) == value for name, value in scope.values.items()]
    kinds = OF_BOOKINGS if mine else FORCED
    when = AuditEvent.created_at >= span.start, AuditEvent.created_at < span.until
    counted = select(AuditEvent.action, func.count()).where(AuditEvent.action.in_(kinds), *when)
    if mine:
        counted = counted.join(Booking, Booking.id == AuditEvent.details["booking"].as_integer()).where(*mine)
    found: dict[str, int] = {
        action: int(count) for action, count in db.session.execute(counted.group_by(AuditEvent.action))
    }
    number = func.count()
    unused = (AuditEvent.action == RECLAIMED) & AuditEvent.details["absent"].as_boolean()
    absent = (
        select(User, number)
        .join(Booking, Booking.user_id == User.id)
        .join(AuditEvent, AuditEvent.target == func.concat("booking:", Booking.id))
        .where(or_(AuditEvent.action == NO_SHOW, unused), *when)
        .group_by(User.id)
        .order_by(number.desc(), User.username)
    )
    no_shows = tuple((user, count) for user, count in db.session.execute(absent.where(*mine)))
    return Incidents({action: found.get(action, 0) for action in kinds}, no_shows)
