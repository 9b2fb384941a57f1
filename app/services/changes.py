"""What becomes of a booking once made: cancelled, its end moved, the rest given back. The past never changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask_babel import gettext as _
from sqlalchemy import func, select

from app import clock
from app.errors import Conflict, InvalidInput, RuleRefused
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, LedgerEntry, Phase, User
from app.services import audit, bookings, claims, openings, quota, warnings
from app.services.claims import Frame
from app.services.rules import classes, fees, gate, noshow, tariff
from app.services.rules.check import Asked
from app.services.rules.terms import Rules
from app.services.windows import Window, ceil_to_grid, in_utc

NO_SHOW = "booking.no_show"


def cancel(user: User, booking_id: int) -> Booking:
    """Withdraw a booking that has not started; all of it is given back, but for what the rules charge late."""
    booking = locked(user, booking_id)
    now = clock.now()
    if booking.phase(now) != Phase.UPCOMING:
        raise cannot_change(booking, now)
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
    """Let a booking end earlier, the rest given back; only for one that is locked. It runs for a second at least.
    Nobody pays for that."""
    before, began = booking.ends_at, max(allocation.starts_at for allocation in booking.allocations)
    end = max(end, began + timedelta(seconds=1))
    booking.booked_until = end
    _shorten(actor, booking, end, own=False)
    times = {"before": before.isoformat(), "ends_at": end.isoformat()}
    audit.record(actor.username, "booking.moved", f"booking:{booking.id}", **times, **details)


def end_now(user: User, booking_id: int) -> Booking:
    """Give back the rest of a running booking; its GPUs are taken away at once."""
    booking = locked(user, booking_id)
    now = clock.now()
    if booking.phase(now) != Phase.RUNNING:
        raise cannot_change(booking, now)
    began = max(allocation.starts_at for allocation in booking.allocations)  # later where another GPU was given
    end = max(now.replace(microsecond=0), began + timedelta(seconds=1))
    booking.released_at = now
    _shorten(user, booking, end)
    audit.record(user.username, "booking.released", f"booking:{booking.id}", ends_at=end.isoformat())
    return booking


def end_no_show(host: Host) -> int | None:
    """End the host's first booking whose owner did not come, if the rules say so; its number.

    One at a time: each takes its account's lock and then its GPUs', and nobody may hold two accounts and GPUs."""
    booking_id = noshow.due(host)
    if booking_id is None:
        return None
    owner = db.session.scalars(select(User).join(Booking).where(Booking.id == booking_id)).one()
    booking = locked(owner, booking_id)
    now = clock.now()
    moment = noshow.ends_at(booking, now)
    if moment is None or moment > now or booking.released_at is not None:
        return None  # a machine took it meanwhile, or its owner gave it back
    booking.released_at = now
    _shorten(owner, booking, now.replace(microsecond=0))
    audit.record(audit.SYSTEM, NO_SHOW, f"booking:{booking.id}", ends_at=booking.ends_at.isoformat())
    return booking.id


def move_end(user: User, booking_id: int, ends_at: datetime, slot: int, *, seen: datetime | None = None) -> Booking:
    """Extend or shorten an upcoming or running booking. `seen`: the end that whoever asks believes it has, if known.
    Raises as `create` does, and Conflict where it has another one by now; then it has changed nothing."""
    booking = locked(user, booking_id)
    slot = classes.rules_for(booking.account_id).slot(slot)
    end = ceil_to_grid(in_utc(ends_at, "ends_at"), slot)
    now = clock.now()
    if booking.phase(now) not in {Phase.UPCOMING, Phase.RUNNING}:
        raise cannot_change(booking, now)
    if end <= max(now, booking.starts_at):
        raise InvalidInput(
            _("The new end must lie after now and after the start."),
            _('To give the GPUs back at once, use "End now".'),
            field="ends_at",
        )
    before = booking.ends_at
    if end == before:
        return booking
    refuse_if_changed(before, seen)
    if end > before:
        _extend(user, booking, end, now, slot)
    else:
        booking.booked_until = end
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
    return Asked(
        Window(booking.starts_at, end),
        len(booking.allocations),
        now,
        added=Window(booking.ends_at, end),
        models=frozenset(allocation.gpu.model for allocation in booking.allocations),
        host=booking.host.name,
        member_id=booking.user_id if booking.account_id != booking.user.account_id else None,
    )


def refuse_if_changed(moment: datetime, seen: datetime | None) -> None:
    """Raise Conflict where a booking begins or ends at another moment than the one that was seen (in whole minutes)."""
    if seen is not None and moment.replace(second=0, microsecond=0) != seen.replace(second=0, microsecond=0):
        raise Conflict(_("The booking has changed meanwhile."), _("Look at it as it is now, then change it again."))


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


def cannot_change(booking: Booking, now: datetime) -> RuleRefused:
    """Why it cannot, now."""
    phase = booking.phase(now)
    if phase == Phase.CANCELLED:
        return RuleRefused(_("This booking was cancelled."), _("Make a new one."), rule="phase")
    if phase == Phase.PAST:
        return RuleRefused(_("This booking is over; past bookings cannot change."), _("Make a new one."), rule="phase")
    if phase == Phase.RUNNING:
        return RuleRefused(
            _("This booking has started; it cannot be cancelled any more."),
            _('Use "End now" to give the rest of it back.'),
            rule="phase",
        )
    return RuleRefused(_("This booking has not started yet."), _('Use "Cancel" to give all of it back.'), rule="phase")


def _extend(user: User, booking: Booking, end: datetime, now: datetime, slot: int) -> None:
    rules = classes.rules_for(booking.account_id)
    gate.require(booking.account_id, longer(booking, end, now), rules, ignore_booking=booking.id)
    gpus = [allocation.gpu for allocation in booking.allocations]
    frame = Frame(Window(booking.ends_at, end), now + timedelta(days=rules.horizon_days), slot, rules=rules)
    claims.refuse_clashes(gpus, frame, ignore_booking=booking.id)
    amount = tariff.of(booking).between(booking.starts_at, booking.ends_at, end)
    quota.require(amount, quota.lock(booking.account_id))
    _set_end(booking, end)
    booking.booked_until = end
    db.session.flush()
    quota.hold(booking, amount, key=f"hold:{booking.id}:{entry_count(booking)}", actor=user.username)


def _shorten(user: User, booking: Booking, end: datetime, *, own: bool = True) -> None:
    amount = tariff.of(booking).between(booking.starts_at, end, booking.ends_at)
    fee = late_fee(user, booking, end, booking.ends_at) if own else 0
    _set_end(booking, end)
    db.session.flush()
    if amount:
        key = f"release:{booking.id}:{entry_count(booking)}"
        quota.release(booking, amount, key=key, actor=user.username)
    charge(user.username, booking, fee)


def late_fee(user: User, booking: Booking, start: datetime, end: datetime) -> int:
    """What its owner pays for giving back a part of it so late; nobody pays for what an admin does."""
    return fees.late(booking, start, end, clock.now()) if user.id == booking.user_id else 0


def charge(actor: str, booking: Booking, fee: int) -> None:
    """Take what giving back late costs."""
    if fee:
        quota.charge(booking, fee, key=f"fee:{booking.id}:{entry_count(booking)}", actor=actor)


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
