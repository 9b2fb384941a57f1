"""Bookings: proposed, made and read. Each is held against the rules, the calendar and the quota.

Locks are always taken in the same order: the account's row, then the GPUs' rows by id, then the booking's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Select, any_, func, insert, literal, select
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from app import clock
from app.errors import InvalidInput, NotFound
from app.extensions import db, lab_zone
from app.language import gettext as _
from app.models import Allocation, Booking, Gpu, User
from app.services import askers, audit, claims, payers, quota
from app.services.askers import Asker
from app.services.claims import Ask, Frame
from app.services.rules import classes, gate, tariff
from app.services.rules.check import Asked
from app.services.rules.tariff import Tariff
from app.services.rules.terms import Rules
from app.services.windows import Window, snapped

NOTE_LENGTH = 200
# Inserted as statements, not by the unit of work: half the time, with the account and the GPUs locked.
_INSERT_BOOKING = insert(Booking).returning(Booking)
_INSERT_ALLOCATIONS = insert(Allocation).returning(Allocation, sort_by_parameter_order=True)

__all__ = ["Ask", "Proposal", "between", "create", "get", "mine", "propose", "require_note"]


@dataclass(frozen=True)
class Proposal:
    """What would be booked, what it costs (GPU-seconds), and what would be left of the quota."""

    window: Window
    gpus: tuple[Gpu, ...]
    cost: int
    free_after: int
    has_machine: bool  # whether the person has a machine on that host to attach the GPUs to


def propose(user: User, ask: Ask, slot: int) -> Proposal:
    """Everything that `create` checks, without taking anything. Raises what `create` would."""
    return propose_to(askers.asker(user, ask.account), ask, slot)


def propose_to(asker: Asker, ask: Ask, slot: int, found: Sequence[Gpu] = ()) -> Proposal:
    """The same for one of several, of somebody about whom all was asked before. `found`: the GPUs that it names, where
    they have just been read and may be booked by this account."""
    frame = _frame(asker.rules, asker.machines, ask, slot)
    _keep_the_rules(asker.user, asker.account_id, ask, frame)
    if ask.gpu_ids:
        gpus = found or claims.named_gpus(ask, frame.rules)
        claims.refuse_clashes(gpus, frame)
    else:
        gpus = claims.any_gpus(ask, frame)
    cost_of_all = _price(frame, gpus).cost(frame.window)
    quota.require(cost_of_all, asker.free)
    left = asker.free - cost_of_all
    return Proposal(frame.window, tuple(gpus), cost_of_all, left, gpus[0].host_id in frame.machines)


def create(user: User, ask: Ask, slot: int, *, series_id: int | None = None) -> Booking:
    """Book, as one of a series if named. Raises InvalidInput, RuleRefused, QuotaExceeded or SlotTaken, and then has
    changed nothing."""
    if ask.request_key and (twin := _by_request_key(user, ask.request_key)):
        return twin  # before the rules: a form that is sent again later than its start was still booked
    account_id = payers.account_id(user, ask.account)
    machines = frozenset() if ask.gpu_ids else askers.machine_hosts(user.id)
    frame = _frame(classes.rules_for(account_id), machines, ask, slot)
    free = quota.lock(account_id)
    if ask.request_key and (twin := _by_request_key(user, ask.request_key)):
        return twin
    _keep_the_rules(user, account_id, ask, frame)
    gpus = claims.claimed(ask, frame)
    price = _price(frame, gpus)
    needed = price.cost(frame.window)
    quota.require(needed, free)
    booking = _insert(user, account_id, ask, frame.window, gpus, price, series_id)
    quota.hold(booking, needed, key=f"hold:{booking.id}", actor=user.username)
    more: dict[str, Any] = {"series": series_id} if series_id is not None else {}
    audit.record(
        user.username,
        "booking.created",
        f"booking:{booking.id}",
        gpus=[gpu.id for gpu in gpus],
        starts_at=frame.window.starts_at.isoformat(),
        ends_at=frame.window.ends_at.isoformat(),
        **more,
    )
    return booking


def require_note(note: str) -> None:
    """Raise InvalidInput for a purpose that is too long, or more than a line."""
    if len(note) > NOTE_LENGTH:
        raise InvalidInput(_("The purpose is too long: %(max)s characters at most.", max=NOTE_LENGTH), field="note")
    if any(ord(character) < 32 for character in note):
        raise InvalidInput(_("The purpose must be one line of text."), field="note")


def get(user: User, booking_id: int, *, lock: bool = False) -> Booking:
    """One booking with all that a page shows of it. Raises NotFound for one that is not there or not theirs."""
    query = (
        select(Booking)
        .where(Booking.id == booking_id)
        .options(
            selectinload(Booking.allocations).joinedload(Allocation.gpu),
            joinedload(Booking.host),
            joinedload(Booking.user),
            joinedload(Booking.account),
            joinedload(Booking.instance),
        )
        .execution_options(populate_existing=True)
    )
    if lock:
        query = query.with_for_update(of=Booking)
    booking = db.session.scalar(query)
    if booking is None or (booking.user_id != user.id and not user.is_admin):
        raise NotFound(_("There is no booking %(id)s of yours.", id=booking_id))
    return booking


def mine(user: User, *, since: datetime | None = None, limit: int = 100) -> list[Booking]:
    """A person's bookings, newest start first."""
    query = (
        select(Booking)
        .where(Booking.user_id == user.id)
        .options(selectinload(Booking.allocations).joinedload(Allocation.gpu), joinedload(Booking.host))
        .order_by(Booking.starts_at.desc(), Booking.id.desc())
        .limit(limit)
    )
    if since is not None:
        query = query.where(Booking.ends_at > since)
    return list(db.session.scalars(query))


def between(start: datetime, end: datetime, *, user: User | None = None, limit: int = 2000) -> list[Booking]:
    """Bookings that share a moment with a span, of everybody or of one person; in order of start, the first `limit`."""
    query = (
        select(Booking)
        .options(
            selectinload(Booking.allocations).joinedload(Allocation.gpu),
            joinedload(Booking.host, innerjoin=True),
            joinedload(Booking.user, innerjoin=True),
        )
        .order_by(Booking.starts_at, Booking.id)
        .limit(limit)
    )
    if user is not None:
        own = (Booking.user_id == user.id, Booking.cancelled_at.is_(None))
        return list(db.session.scalars(query.where(*own, Booking.starts_at < end, Booking.ends_at > start)))
    ids = list(db.session.scalars(_within(start, end).limit(limit)))
    return list(db.session.scalars(query.where(Booking.id == any_(literal(ids, ARRAY(BigInteger))))))


def _within(start: datetime, end: datetime) -> Select[int]:
    """Ids of the bookings of a span, by their allocations: those have an index by time.

    A query of its own: as a part of another, PostgreSQL expects far more rows of it and reads all bookings there are.
    """
    return (
        select(Allocation.booking_id)
        .where(
            Allocation.released_at.is_(None),
            func.tstzrange(Allocation.starts_at, Allocation.ends_at).op("&&")(func.tstzrange(start, end)),
        )
        .group_by(Allocation.booking_id)
        .order_by(func.min(Allocation.starts_at), Allocation.booking_id)
    )


def require_sense(ask: Ask) -> None:
    """Raise InvalidInput for what makes no sense at any time."""
    require_note(ask.note)
    if not ask.gpu_ids and ask.count < 1:
        raise InvalidInput(_("Ask for at least one GPU."), field="count")


def _frame(rules: Rules, machines: frozenset[int], ask: Ask, slot: int) -> Frame:
    """What makes sense at all, and what the choice of GPUs is bound by."""
    now = clock.now()
    require_sense(ask)
    slot = rules.slot(slot)
    window = snapped(ask.starts_at, ask.ends_at, now, slot)
    return Frame(window, now + timedelta(days=rules.horizon_days), slot, machines, rules)


def _keep_the_rules(user: User, account_id: int, ask: Ask, frame: Frame) -> None:
    count = len(set(ask.gpu_ids)) or ask.count
    member_id = payers.member_id(user, account_id)
    gate.require(account_id, Asked(frame.window, count, clock.now(), member_id=member_id), frame.rules)


def _price(frame: Frame, gpus: Sequence[Gpu]) -> Tariff:
    return tariff.price(frame.rules, (gpu.model for gpu in gpus), lab_zone())


def _insert(
    user: User, account_id: int, ask: Ask, window: Window, gpus: Sequence[Gpu], price: Tariff, series_id: int | None
) -> Booking:
    window_of_all = {"starts_at": window.starts_at, "ends_at": window.ends_at}
    values = {
        "user_id": user.id,
        "account_id": account_id,
        "host_id": gpus[0].host_id,
        "booked_until": window.ends_at,
        "series_id": series_id,
        "note": ask.note,
        "tariff": price.as_json(),
        "request_key": _scoped_key(user, ask.request_key),
        **window_of_all,
    }
    booking = db.session.scalars(_INSERT_BOOKING, [values]).one()
    rows = [{"booking_id": booking.id, "gpu_id": gpu.id, **window_of_all} for gpu in gpus]
    allocations = list(db.session.scalars(_INSERT_ALLOCATIONS, rows))
    for allocation, gpu in zip(allocations, gpus, strict=True):
        set_committed_value(allocation, "gpu", gpu)
    for name, loaded in (("user", user), ("host", gpus[0].host), ("allocations", allocations)):
        set_committed_value(booking, name, loaded)
    return booking


def _scoped_key(user: User, key: str | None) -> str | None:
    return f"{user.id}:{key[:64]}" if key else None


def _by_request_key(user: User, key: str) -> Booking | None:
    booking_id = db.session.scalar(select(Booking.id).where(Booking.request_key == _scoped_key(user, key)))
    return get(user, booking_id) if booking_id is not None else None
