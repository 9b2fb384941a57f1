"""A booking that has not started, put at another time on its own GPUs: the same booking, by the same price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app import clock
from app.errors import RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Booking, Phase, User
from app.services import audit, changes, claims, payers, quota, warnings
from app.services.claims import Ask
from app.services.rules import classes, tariff
from app.services.rules.check import Asked
from app.services.windows import Window, snapped


def move(actor: User, booking: Booking, asked: Window, slot: int, **details: Any) -> None:
    """Move it to the time asked for, held against the rules as a new one. `slot`: the lab's grid, in seconds. Only for
    a booking that is locked, as its account and its GPUs are; all is loaded.

    Raises InvalidInput, RuleRefused, QuotaExceeded or SlotTaken, and then has changed nothing."""
    now = clock.now()
    if booking.phase(now) != Phase.UPCOMING:
        raise RuleRefused(_("This booking has started; it cannot be moved any more."), rule="phase")
    rules = classes.rules_for(booking.account_id)
    slot = rules.slot(slot)
    before, window = Window(booking.starts_at, booking.ends_at), snapped(asked.starts_at, asked.ends_at, now, slot)
    if asked.starts_at == before.starts_at:  # it stays, also where it lies beside the grid
        window = replace(window, starts_at=before.starts_at)
    if window == before:
        return
    named = Ask(window.ends_at, gpu_ids=tuple(allocation.gpu_id for allocation in booking.allocations))
    gpus = claims.named_gpus(named, rules)
    if booking.rest_of_id is None or window.starts_at != before.starts_at:
        request = Asked(window, len(gpus), now, member_id=payers.member_id(booking.user, booking.account_id))
        changes.require(booking, request, rules, slot)
    elif window.ends_at > before.ends_at:  # a rest goes on from what runs: it may be short, and begin at once
        changes.require(booking, changes.longer(booking, window.ends_at, now), rules, slot)
    put(actor, booking, window)
    was = {"before_start": before.starts_at.isoformat(), "before": before.ends_at.isoformat()}
    times = {"starts_at": window.starts_at.isoformat(), "ends_at": window.ends_at.isoformat()}
    audit.record(actor.username, "booking.moved", f"booking:{booking.id}", **was, **times, **details)


def put(actor: User, booking: Booking, window: Window) -> None:
    """Give it this window, for which the rules and others leave room: what costs more is held, what costs less given
    back, less late fees. Only for one that is locked. Raises QuotaExceeded, and then has changed nothing."""
    more = tariff.of(booking).cost(window) - tariff.cost(booking)
    if more > 0:
        quota.require(more, quota.lock(booking.account_id))
    fee = _fee(actor, booking, window)
    _set(booking, window)
    if more > 0:
        changes.hold(actor.username, booking, more)
    else:
        changes.give_back(actor.username, booking, -more)
    changes.charge(actor.username, booking, fee)


def _set(booking: Booking, window: Window) -> None:
    if booking.unasked and (window.starts_at < booking.starts_at or window.ends_at > booking.ends_at):
        booking.extended_at = clock.now()  # its owner asked for this time
    same_end = window.ends_at == booking.ends_at
    booking.starts_at, booking.ends_at = window.starts_at, window.ends_at
    booking.booked_until = window.ends_at
    for allocation in booking.allocations:
        allocation.starts_at, allocation.ends_at = window.starts_at, window.ends_at
        if not same_end:
            allocation.warned, allocation.asked_at = warnings.given_by(clock.now(), window.ends_at), None
    db.session.flush()


def _fee(actor: User, booking: Booking, window: Window) -> int:
    """What giving back the hours that the new window leaves costs its owner: those before it and those after it."""
    before = changes.late_fee(actor, booking, booking.starts_at, min(window.starts_at, booking.ends_at))
    return before + changes.late_fee(actor, booking, max(window.ends_at, booking.starts_at), booking.ends_at)
