"""A booking that has not started, moved to another time on its own GPUs: the same booking, by the same price."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask_babel import gettext as _

from app import clock
from app.errors import RuleRefused
from app.extensions import db
from app.models import Booking, Phase, User
from app.services import audit, changes, claims, payers, quota, warnings
from app.services.claims import Ask, Frame
from app.services.rules import classes, gate, tariff
from app.services.rules.check import Asked
from app.services.windows import Window, snapped


def move(actor: User, booking: Booking, asked: Window, slot: int, **details: Any) -> None:
    """Move it, held against the rules as a new one; what costs more is held, what costs less given back, late fees as
    for any that is given back. Only for a booking that is locked, as its account and its GPUs are; all is loaded.

    Raises InvalidInput, RuleRefused, QuotaExceeded or SlotTaken, and then has changed nothing."""
    now = clock.now()
    if booking.phase(now) != Phase.UPCOMING:
        raise RuleRefused(_("This booking has started; it cannot be moved any more."), rule="phase")
    rules = classes.rules_for(booking.account_id)
    slot = rules.slot(slot)
    before, window = Window(booking.starts_at, booking.ends_at), snapped(asked.starts_at, asked.ends_at, now, slot)
    if window == before:
        return
    named = Ask(window.ends_at, gpu_ids=tuple(allocation.gpu_id for allocation in booking.allocations))
    gpus = claims.named_gpus(named, rules)
    request = Asked(window, len(gpus), now, member_id=payers.member_id(booking.user, booking.account_id))
    gate.require(booking.account_id, request, rules, ignore_booking=booking.id)
    frame = Frame(window, now + timedelta(days=rules.horizon_days), slot, rules=rules)
    claims.refuse_clashes(gpus, frame, ignore_booking=booking.id)
    price = tariff.of(booking)
    more = price.cost(window) - price.cost(before)
    if more > 0:
        quota.require(more, quota.lock(booking.account_id))
    fee = _fee(actor, booking, window)
    _put(booking, window)
    _post(actor, booking, more)
    changes.charge(actor.username, booking, fee)
    was = {"before_start": before.starts_at.isoformat(), "before": before.ends_at.isoformat()}
    times = {"starts_at": window.starts_at.isoformat(), "ends_at": window.ends_at.isoformat()}
    audit.record(actor.username, "booking.moved", f"booking:{booking.id}", **was, **times, **details)


def _put(booking: Booking, window: Window) -> None:
    booking.starts_at, booking.ends_at = window.starts_at, window.ends_at
    booking.booked_until = window.ends_at
    for allocation in booking.allocations:
        allocation.starts_at, allocation.ends_at = window.starts_at, window.ends_at
        allocation.warned, allocation.asked_at = warnings.given_by(clock.now(), window.ends_at), None
    db.session.flush()


def _post(actor: User, booking: Booking, more: int) -> None:
    if more > 0:
        quota.hold(booking, more, key=f"hold:{booking.id}:{changes.entry_count(booking)}", actor=actor.username)
    else:
        changes.give_back(actor.username, booking, -more)


def _fee(actor: User, booking: Booking, window: Window) -> int:
    """What giving back the hours that the new window leaves costs its owner: those before it and those after it."""
    before = changes.late_fee(actor, booking, booking.starts_at, min(window.starts_at, booking.ends_at))
    return before + changes.late_fee(actor, booking, max(window.ends_at, booking.starts_at), booking.ends_at)
