"""The start of a booking that has not begun, moved: an earlier one is more of it, a later one gives back."""

from __future__ import annotations

from datetime import datetime

from app import clock
from app.errors import InvalidInput, RuleRefused
from app.language import gettext as _
from app.models import Booking, Phase, User
from app.services import audit, bookings, changes, rescheduling, unchangeable
from app.services.rules import classes
from app.services.windows import LATE_BY, Window, floor_to_grid, in_utc


def move(user: User, booking_id: int, window: Window, slot: int, *, seen: Window | None = None) -> Booking:
    """Give a booking another start, end or both: what makes it shorter first, so that it never is longer than asked.
    `seen`: its window as whoever asks believes it. Raises as the two do; then the transaction is to be given up."""
    began, ended = (seen.starts_at, seen.ends_at) if seen else (None, None)
    booking = bookings.get(user, booking_id)
    own = Window(booking.starts_at, booking.ends_at)
    if window == own and booking.phase(clock.now()) in {Phase.UPCOMING, Phase.RUNNING}:
        return booking  # it stays, also where its end lies beside the account's grid
    if window.starts_at == booking.starts_at:
        return changes.move_end(user, booking_id, window.ends_at, slot, seen=ended)
    if window.ends_at <= window.starts_at:
        raise InvalidInput(_("The end must be after the start."), _("Choose a later end."), field="ends_at")
    if not window.overlaps(own):
        raise InvalidInput(
            _("The new time has no moment in common with the old one."),
            _("Make a new booking, then cancel this one."),
            field="starts_at",
        )
    if window.ends_at == booking.ends_at:  # it stays, also where it lies beside the account's grid
        return move_start(user, booking_id, window.starts_at, slot, seen=began)
    if window.starts_at < booking.starts_at:
        changes.move_end(user, booking_id, window.ends_at, slot, seen=ended)
        return move_start(user, booking_id, window.starts_at, slot, seen=began)
    move_start(user, booking_id, window.starts_at, slot, seen=began)
    return changes.move_end(user, booking_id, window.ends_at, slot, seen=ended)


def move_start(user: User, booking_id: int, starts_at: datetime, slot: int, *, seen: datetime | None = None) -> Booking:
    """Begin an upcoming booking earlier or later; its end stays. `seen`: the start that whoever asks believes it has.
    Raises as `changes.move_end` does, and then has changed nothing."""
    booking = changes.locked(user, booking_id)
    now = clock.now()
    phase = booking.phase(now)
    if phase == Phase.RUNNING:
        raise RuleRefused(_("This booking has started."), _("Only its end can be moved now."), rule="phase")
    if phase != Phase.UPCOMING:
        raise unchangeable.why_not(booking, now)
    rules = classes.rules_for(booking.account_id)
    start = _snapped(in_utc(starts_at, "starts_at"), now, rules.slot(slot))
    before, window = booking.starts_at, Window(start, booking.ends_at)
    if start == before:
        return booking
    if start >= booking.ends_at:
        raise InvalidInput(
            _("The new start must lie before the end."), _("To give all of it back, cancel it."), field="starts_at"
        )
    unchangeable.refuse_an_offer(booking)
    unchangeable.refuse_if_changed(before, seen)
    if start < before:
        changes.require(booking, changes.widened(booking, window, Window(start, before), now), rules, rules.slot(slot))
    rescheduling.put(user, booking, window)
    audit.record(
        user.username, "booking.moved", f"booking:{booking.id}", began=before.isoformat(), starts_at=start.isoformat()
    )
    return booking


def _snapped(asked: datetime, now: datetime, slot: int) -> datetime:
    if asked < now - LATE_BY:
        raise InvalidInput(_("The start lies in the past."), _("Choose a start from now on."), field="starts_at")
    return max(floor_to_grid(asked, slot), now.replace(microsecond=0))
