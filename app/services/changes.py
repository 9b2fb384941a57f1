"""What becomes of a booking once made: cancelled, its end moved, the rest given back. The past never changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from app import clock
from app.errors import InvalidInput
from app.extensions import db
from app.language import gettext as _
from app.models import Allocation, Booking, Charge, Gpu, LedgerEntry, Phase, User
from app.services import audit, bookings, claims, openings, payers, policy, quota, unchangeable, warnings
from app.services.claims import Frame
from app.services.rules import classes, fees, gate, tariff
from app.services.rules.check import Asked
from app.services.rules.terms import Rules
from app.services.windows import Window, ceil_to_grid, in_utc


def cancel(user: User, booking_id: int) -> Booking:
    """Withdraw a booking that has not started; all of it is given back, but for what the rules charge late."""
    booking, now = locked(user, booking_id), clock.now()
    if booking.phase(now) != Phase.UPCOMING:
        raise unchangeable.why_not(booking, now)
    withdraw(user.username, booking, fee=late_fee(user, booking, booking.starts_at, booking.ends_at))
    return booking


def take_back(owner: User, booking_id: int, *, actor: str, **details: Any) -> bool:
    """Withdraw what was only offered, for nothing; whether it was still to be had. One that has begun unanswered, since
    nobody looked in time, ends with its first second."""
    booking = locked(owner, booking_id)
    phase = booking.phase(clock.now())
    if phase == Phase.UPCOMING:
        withdraw(actor, booking, **details)
    elif phase == Phase.RUNNING:
        cut(owner, booking, booking.starts_at, **details)
    return phase in {Phase.UPCOMING, Phase.RUNNING}


def withdraw(actor: str, booking: Booking, *, fee: int = 0, **details: Any) -> None:
    """Take a booking back, all of it; only for one that is locked and has not started. `fee`: what its owner pays for
    doing so late, in GPU-seconds."""
    now = clock.now()
    booking.cancelled_at = booking.settled_at = now
    for allocation in booking.allocations:
        allocation.released_at = now
    db.session.flush()
    quota.release(booking, quota.held_for(booking.id), key=f"release:{booking.id}", actor=actor)
    charge(actor, booking, fee)
    audit.record(actor, "booking.cancelled", f"booking:{booking.id}", **details)


def cut(actor: User, booking: Booking, end: datetime, **details: Any) -> None:
    """Let a booking, which is locked, end earlier for nothing, the rest given back. It runs for a second at least."""
    before, began = booking.ends_at, max(allocation.starts_at for allocation in booking.allocations)
    booking.booked_until = end = max(end, began + timedelta(seconds=1))
    _shorten(actor, booking, end, own=False)
    times = {"before": before.isoformat(), "ends_at": end.isoformat()}
    audit.record(actor.username, "booking.moved", f"booking:{booking.id}", **times, **details)


def end_now(user: User, booking_id: int) -> Booking:
    """Give back the rest of a running booking; its GPUs are taken away at once."""
    booking, now = locked(user, booking_id), clock.now()
    if booking.phase(now) != Phase.RUNNING:
        raise unchangeable.why_not(booking, now)
    booking.released_at = now
    _shorten(user, booking, _soonest_end(booking, now))
    audit.record(user.username, "booking.released", f"booking:{booking.id}", ends_at=booking.ends_at.isoformat())
    return booking


def reclaim(
    owner: User, booking_id: int, is_due: Callable[[Booking], bool], *, actor: str, action: str, **details: Any
) -> Booking | None:
    """Give back the rest of a running booking that is not used, if `is_due` says so of it once it is locked. Its owner
    pays as for ending it, or by the lab's rules for all of it."""
    booking = locked(owner, booking_id)
    now = clock.now()
    if booking.phase(now) != Phase.RUNNING or booking.released_at is not None or not is_due(booking):
        return None
    booking.released_at, before = now, booking.ends_at
    fee = _shorten(owner, booking, _soonest_end(booking, now), unused=True)
    times = {"before": before.isoformat(), "ends_at": booking.ends_at.isoformat()}
    audit.record(actor, action, f"booking:{booking.id}", fee=fee, **times, **details)
    return booking


def move_end(user: User, booking_id: int, ends_at: datetime, slot: int, *, seen: datetime | None = None) -> Booking:
    """Extend or shorten an upcoming or running booking. `seen`: the end that whoever asks believes it has, if known.
    Raises as `create` does, and Conflict where it has another one by now; then it has changed nothing."""
    booking = locked(user, booking_id)
    slot = classes.rules_for(booking.account_id).slot(slot)
    end = ceil_to_grid(in_utc(ends_at, "ends_at"), slot)
    now = clock.now()
    if booking.phase(now) not in {Phase.UPCOMING, Phase.RUNNING}:
        raise unchangeable.why_not(booking, now)
    if end <= max(now, booking.starts_at):
        raise InvalidInput(
            _("The new end must lie after now and after the start."),
            _('To give the GPUs back at once, use "End now".'),
            field="ends_at",
        )
    before = booking.ends_at
    if end == before:
        return booking
    unchangeable.refuse_an_offer(booking)
    unchangeable.refuse_if_changed(before, seen)
    if end > before:
        _extend(user, booking, end, now, slot)
    else:
        booking.booked_until = end
        if booking.starts_at <= now:
            booking.shortened_from = max(before, booking.shortened_from or before)
        _shorten(user, booking, end)
    audit.record(
        user.username, "booking.moved", f"booking:{booking.id}", before=before.isoformat(), ends_at=end.isoformat()
    )
    return booking


def longest_extension(booking: Booking, rules: Rules, now: datetime) -> datetime:
    """How late the booking could end by the calendar and the rules (its quota apart)."""
    limit = min(booking.starts_at + timedelta(hours=rules.max_hours), now + timedelta(days=rules.horizon_days))
    gpu_ids = [allocation.gpu_id for allocation in booking.allocations]
    query = select(func.min(Allocation.starts_at)).where(
        Allocation.gpu_id.in_(gpu_ids),
        Allocation.released_at.is_(None),
        Allocation.starts_at >= booking.ends_at,
        Allocation.booking_id != booking.id,
    )
    following = db.session.scalar(query)
    blocks = openings.blocked(gpu_ids, Window(booking.ends_at, max(limit, booking.ends_at + timedelta(seconds=1))))
    return min([limit, *([following] if following else []), *(block.starts_at for block in blocks[:1])])


def longer(booking: Booking, end: datetime, now: datetime) -> Asked:
    """A later end, as the rules see it; allocations, their GPUs and the host must be loaded."""
    return widened(booking, Window(booking.starts_at, end), Window(booking.ends_at, end), now)


def widened(booking: Booking, window: Window, added: Window, now: datetime) -> Asked:
    """A longer window and what of it is new, as the rules see it; loaded as for `longer`."""
    return Asked(
        window,
        len(booking.allocations),
        now,
        added=added,
        models=frozenset(allocation.gpu.model for allocation in booking.allocations),
        host=booking.host.name,
        member_id=payers.member_id(booking.user, booking.account_id),
    )


def require(booking: Booking, asked: Asked, rules: Rules, slot: int) -> None:
    """Raise the first rule that its new time breaks, or SlotTaken where others are in the way of what is new of it."""
    gate.require(booking.account_id, asked, rules, ignore_booking=booking.id)
    frame = Frame(asked.new, asked.now + timedelta(days=rules.horizon_days), slot, rules=rules)
    claims.refuse_clashes([allocation.gpu for allocation in booking.allocations], frame, ignore_booking=booking.id)


def locked(user: User, booking_id: int) -> Booking:
    """The booking with its account, GPUs and own row locked, in that order."""
    booking = bookings.get(user, booking_id)
    quota.lock(booking.account_id)
    while True:
        attempt = db.session.begin_nested()
        gpu_ids = [allocation.gpu_id for allocation in booking.allocations]
        db.session.execute(select(Gpu.id).where(Gpu.id.in_(gpu_ids)).order_by(Gpu.id).with_for_update(key_share=True))
        booking = bookings.get(user, booking_id, lock=True)
        if [allocation.gpu_id for allocation in booking.allocations] == gpu_ids:
            attempt.commit()
            return booking
        attempt.rollback()  # it was given another GPU meanwhile: to lock that now would be out of order
        booking = bookings.get(user, booking_id)


def _extend(user: User, booking: Booking, end: datetime, now: datetime, slot: int) -> None:
    require(booking, longer(booking, end, now), classes.rules_for(booking.account_id), slot)
    amount = tariff.of(booking).between(booking.starts_at, booking.ends_at, end)
    quota.require(amount, quota.lock(booking.account_id))
    # One that gets back what it was shortened by is wanted no longer than before, and may be idle as before.
    if booking.unasked or end > (booking.shortened_from or booking.ends_at):
        booking.extended_at, booking.shortened_from = now, None
    booking.booked_until = end
    _set_end(booking, end)
    db.session.flush()
    hold(user.username, booking, amount)


def _soonest_end(booking: Booking, now: datetime) -> datetime:
    """Now, but not before it ran for a second: its start is later where another GPU was given."""
    began = max(allocation.starts_at for allocation in booking.allocations)
    return max(now.replace(microsecond=0), began + timedelta(seconds=1))


def _shorten(user: User, booking: Booking, end: datetime, *, own: bool = True, unused: bool = False) -> int:
    """What is charged for it, in GPU-seconds."""
    amount = tariff.of(booking).between(booking.starts_at, end, booking.ends_at)
    fee = late_fee(user, booking, end, booking.ends_at) if own and not unused else 0
    if unused:
        fee = fees.unused(booking, end, booking.ends_at, clock.now())
    _set_end(booking, end)
    db.session.flush()
    give_back(user.username, booking, amount)
    charge(user.username, booking, fee, "unused" if unused and policy.current().charge == Charge.RESERVED else "fee")
    return fee


def hold(actor: str, booking: Booking, amount: int) -> None:
    """Hold so much more for it, in GPU-seconds; whether the account has them was asked before."""
    quota.hold(booking, amount, key=f"hold:{booking.id}:{entry_count(booking)}", actor=actor)


def give_back(actor: str, booking: Booking, amount: int) -> None:
    """Release so much of what is held for it, in GPU-seconds; nothing is written for nothing."""
    if amount:
        quota.release(booking, amount, key=f"release:{booking.id}:{entry_count(booking)}", actor=actor)


def late_fee(user: User, booking: Booking, start: datetime, end: datetime) -> int:
    """What its owner pays for giving back a part of it so late; nobody pays for what an admin does."""
    return fees.late(booking, start, end, clock.now()) if user.id == booking.user_id else 0


def charge(actor: str, booking: Booking, fee: int, kind: str = "fee") -> None:
    """Take what giving back late costs, or what was not used (`kind`: "unused")."""
    if fee:
        quota.charge(booking, fee, key=f"{kind}:{booking.id}:{entry_count(booking)}", actor=actor)


def _set_end(booking: Booking, end: datetime) -> None:
    """Move the end. A later one is warned of anew, and nothing has been asked to end for it yet."""
    later = end > booking.ends_at
    booking.ends_at = end
    for allocation in booking.allocations:
        allocation.ends_at = end
        if later:
            allocation.warned, allocation.asked_at = warnings.given_by(clock.now(), end), None


def entry_count(booking: Booking) -> int:
    """How many ledger entries it has: what makes the next one's key."""
    query = select(func.count()).select_from(LedgerEntry).where(LedgerEntry.booking_id == booking.id)
    return db.session.scalar(query) or 0
