"""Keeping GPUs free for a while: what becomes of each booking in the way is shown first, then done all at once.

What has not started moves to equal GPUs of the host, else of another host where its person has a machine; else it ends
before the work begins; else it is cancelled. What runs already ends when the work begins, and its rest moves likewise.
Machines are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.errors import Conflict, InvalidInput, NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Allocation, Block, Booking, Gpu, Host, Maintenance, User
from app.services import audit, giving_way, openings, quota
from app.services.accounts import one_line
from app.services.giving_way import Change, Fate
from app.services.openings import Busy
from app.services.windows import Window

REASON_LENGTH = 200
ENDS = (Fate.SHORTENED, Fate.CONTINUED)

__all__ = ["Change", "Fate", "between", "fingerprint", "lift", "plan", "schedule", "to_come"]


def plan(gpus: Sequence[Gpu], window: Window) -> list[Change]:
    """What would become of the bookings in the way, in the order in which they start. Changes nothing."""
    given: Busy = {}
    found = []
    for booking in _in_the_way([gpu.id for gpu in gpus], window):
        change = giving_way.fate(booking, {gpu.id for gpu in gpus}, window, given)
        for gpu in change.gpus:
            given.setdefault(gpu.id, []).append(change.given)
        found.append(change)
    return found


def fingerprint(found: Iterable[Change]) -> str:
    """What an admin agreed to, to be held against what would be done now."""
    facts = [(change.booking.id, change.fate.value, [gpu.id for gpu in change.gpus]) for change in found]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def schedule(
    actor: User, host: Host, gpus: Sequence[Gpu], window: Window, reason: str, agreed: str
) -> tuple[Maintenance, set[str]]:
    """Block the GPUs of one host, and do with the bookings what was `agreed`; the hosts where something changes too.

    Raises Conflict if that would be something else by now, or the GPUs are in maintenance then already."""
    if not gpus:
        raise InvalidInput(_("Choose at least one GPU."), field="gpus")
    reason = one_line(reason, "reason", REASON_LENGTH)
    _lock(gpus, window)
    if openings.blocked([gpu.id for gpu in gpus], window):
        raise Conflict(_("Some of these GPUs are in maintenance then already."), _("Choose others, or another time."))
    found = plan(gpus, window)
    if fingerprint(found) != agreed:
        raise Conflict(_("The bookings have changed meanwhile."), _("Look again at what would become of them."))
    hosts = {host.name}
    for change in found:
        giving_way.do(actor, change, reason)
        hosts |= {gpu.host.name for gpu in change.gpus}
    # What ends "now" ends a moment after it was asked to.
    start = max([window.starts_at, *(change.booking.ends_at for change in found if change.fate in ENDS)])
    made = Maintenance(host_id=host.id, starts_at=start, ends_at=window.ends_at, reason=reason, actor=actor.username)
    made.blocks = [Block(gpu_id=gpu.id, starts_at=start, ends_at=window.ends_at) for gpu in gpus]
    db.session.add(made)
    db.session.flush()
    audit.record(
        actor.username, "maintenance.scheduled", f"host:{host.name}", gpus=[gpu.id for gpu in gpus],
        starts_at=start.isoformat(), ends_at=window.ends_at.isoformat(), reason=reason,
    )  # fmt: skip
    return made, hosts


def lift(actor: User, maintenance_id: int) -> Maintenance:
    """Give the GPUs free again, before or during the work; what had to go does not come back. Raises NotFound."""
    query = select(Maintenance).where(Maintenance.id == maintenance_id).options(*_WHOLE).with_for_update(of=Maintenance)
    found = db.session.scalar(query.execution_options(populate_existing=True))
    if found is None or found.lifted_at is not None or found.ends_at <= clock.now():
        raise NotFound(_("There is no such maintenance any more."))
    found.lifted_at = clock.now()
    for block in found.blocks:
        block.lifted_at = found.lifted_at
    db.session.flush()
    audit.record(actor.username, "maintenance.lifted", f"host:{found.host.name}", maintenance=found.id)
    return found


def to_come(host: Host) -> list[Maintenance]:
    """What is going on or planned on a host, in order of start."""
    query = (
        select(Maintenance)
        .where(Maintenance.host_id == host.id, Maintenance.lifted_at.is_(None), Maintenance.ends_at > clock.now())
        .options(*_WHOLE)
        .order_by(Maintenance.starts_at, Maintenance.id)
    )
    return list(db.session.scalars(query))


class Kept(NamedTuple):
    """A time in which one GPU is worked on, and what for."""

    gpu_id: int
    maintenance_id: int
    starts_at: datetime
    ends_at: datetime
    reason: str


_since, _until = (bindparam(name, type_=Block.starts_at.type) for name in ("since", "until"))
# What is to share a moment with `[since, until)`; the calendar asks for it together with bookings.
BETWEEN = (
    select(Block.gpu_id, Block.maintenance_id, Block.starts_at, Block.ends_at, Maintenance.reason)
    .join(Maintenance, Maintenance.id == Block.maintenance_id)
    .where(Block.lifted_at.is_(None), Block.ends_at > _since, Block.starts_at < _until)
)


def between(start: datetime, end: datetime) -> dict[int, list[Kept]]:
    """By GPU id, the times of maintenance that share a moment with a span, in order of start; for calendars."""
    found: dict[int, list[Kept]] = {}
    query = BETWEEN.order_by(Block.starts_at, Block.id)
    for row in db.session.connection().execute(query, {"since": start, "until": end}).all():
        found.setdefault(row[0], []).append(Kept(*row))
    return found


_WHOLE = (joinedload(Maintenance.host), selectinload(Maintenance.blocks).joinedload(Block.gpu))


def _in_the_way(gpu_ids: Sequence[int], window: Window) -> list[Booking]:
    ids = {allocation.booking_id for allocation in openings.overlapping(gpu_ids, window)}
    query = (
        select(Booking)
        .where(Booking.id.in_(ids), Booking.ends_at > clock.now())
        .options(
            selectinload(Booking.allocations).joinedload(Allocation.gpu).joinedload(Gpu.host),
            joinedload(Booking.user),
            joinedload(Booking.host),
        )
        .order_by(Booking.starts_at, Booking.id)
        .execution_options(populate_existing=True)
    )
    return list(db.session.scalars(query))


def _lock(gpus: Sequence[Gpu], window: Window) -> None:
    """All that could change meanwhile, in the order of everybody else: accounts, GPUs, bookings."""
    ids = [gpu.id for gpu in gpus]
    touched = openings.overlapping(ids, window)
    for account_id in sorted({allocation.booking.account_id for allocation in touched}):
        quota.lock(account_id)
    models = {gpu.model for gpu in gpus}
    wider = or_(Gpu.id.in_(ids), Gpu.model.in_(models))
    db.session.execute(select(Gpu.id).where(wider).order_by(Gpu.id).with_for_update(key_share=True))
    booked = sorted({allocation.booking_id for allocation in openings.overlapping(ids, window)})
    db.session.execute(select(Booking.id).where(Booking.id.in_(booked)).order_by(Booking.id).with_for_update())
