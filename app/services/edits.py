"""What can be changed of a booking at once: its time, how many GPUs it has, what it is for. All of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from app import clock
from app.errors import Conflict, DomainError, QuotaExceeded, SlotTaken
from app.extensions import db
from app.language import gettext as _
from app.models import Booking, Phase, User
from app.services import audit, bookings, resizing, starts, unchangeable
from app.services.resizing import Size
from app.services.windows import Window

Part = Callable[[], object]


@dataclass(frozen=True)
class Edit:
    """What a booking shall have; None: what it has."""

    window: Window | None = None
    size: Size | None = None
    note: str | None = None


@dataclass(frozen=True)
class Seen:
    """What whoever changes it believes that it has; None: they did not look."""

    window: Window | None = None
    gpu_ids: frozenset[int] | None = None
    note: str | None = None


_UNSEEN = Seen()


def change(user: User, booking_id: int, edit: Edit, slot: int, seen: Seen = _UNSEEN) -> Booking:
    """Change a booking, what gives back first, so that it never costs more than asked, nor a fee for what it never had.
    `slot`: the lab's grid, in seconds. Its owner hears of all of it in one message. Raises as the parts do; then the
    transaction is to be given up."""
    with audit.one_change():
        return _changed(user, booking_id, edit, slot, seen)


def _changed(user: User, booking_id: int, edit: Edit, slot: int, seen: Seen) -> Booking:
    booking, window, size, shrinks = bookings.get(user, booking_id), edit.window, edit.size, False
    if size is not None and size.count == len(booking.allocations) and not size.gpu_ids:
        size = None  # nothing of it is asked for
    if size is not None:
        booking, _gpus = resizing.locked(user, booking_id)  # all there is to lock, before the first part locks some
        shrinks = size.count < len(booking.allocations)
    move = partial(starts.move, user, booking_id, slot=slot)
    parts, narrow = list[Part](), list[Part]()
    if window is not None:
        parts.append(partial(move, window, seen=seen.window))
    if size is not None:
        resize: Part = partial(resizing.resize, user, booking_id, size, slot, seen=seen.gpu_ids)
        parts.insert(0 if shrinks else len(parts), resize)
        if window is not None and size.gpu_ids and (common := _common(booking, window)):
            narrow = [partial(move, common, seen=seen.window), resize, partial(move, window)]
    _done(parts, narrow)
    if edit.note is not None:
        describe(user, booking_id, edit.note, seen=seen.note)
    return bookings.get(user, booking_id)


def _common(booking: Booking, window: Window) -> Window | None:
    """The time that a booking has and keeps, if there is any."""
    start, end = max(booking.starts_at, window.starts_at), min(booking.ends_at, window.ends_at)
    return Window(start, end) if start < end else None


def _done(parts: Sequence[Part], narrow: Sequence[Part]) -> None:
    """Do them in turn; else by way of the time that it keeps: its own GPUs may be taken at the new time, and those that
    were chosen at the old one, and neither is asked for."""
    try:
        _in_turn(parts)
    except (SlotTaken, QuotaExceeded) as first:
        if not narrow:
            raise
        try:
            _in_turn(narrow)
        except DomainError:
            raise first from None


def _in_turn(parts: Iterable[Part]) -> None:
    with db.session.begin_nested():
        for part in parts:
            part()


def describe(user: User, booking_id: int, note: str, *, seen: str | None = None) -> Booking:
    """Say what an upcoming or running booking is for; "" for nothing. `seen`: what whoever asks believes it says.

    Raises InvalidInput for what is no purpose, RuleRefused for one that is over, and Conflict where it says something
    else by now."""
    booking, now = bookings.get(user, booking_id, lock=True), clock.now()
    note = note.strip()
    if note == booking.note:
        return booking
    if booking.phase(now) not in {Phase.UPCOMING, Phase.RUNNING}:
        raise unchangeable.why_not(booking, now)
    bookings.require_note(note)
    if seen is not None and seen != booking.note:
        raise Conflict(_("The purpose has changed meanwhile."), _("Look at it as it is now, then change it again."))
    before, booking.note = booking.note, note
    db.session.flush()
    audit.record(user.username, "booking.noted", f"booking:{booking.id}", note=note, was=before)
    return booking
