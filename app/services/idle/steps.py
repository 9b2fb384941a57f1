"""What follows from GPUs that do nothing: their booking's owner is told, and later the rest is given back.

One booking at a time, each in a transaction of its own: to give back takes its account's lock and then its GPUs', and
nobody may hold two accounts and GPUs. Every step is written down with what it does, so that a worker that dies between
two of them goes on where it was, and none is done twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update

from app import clock
from app.extensions import db
from app.models import Booking, Idling, Outcome, Reclaim
from app.services import audit, changes, policy
from app.services.idle import sight, warned
from app.services.idle.judging import Todo, Verdict, todo
from app.services.rules import fees

ACTOR = "idle"
RECLAIMED = "booking.reclaimed"


def look() -> list[int]:
    """Bookings for which there is something to do now. Closes what is open and says nothing any more."""
    mode = policy.current().reclaim
    if mode == Reclaim.OFF:
        _close_all(Idling.id.is_not(None))
        return []
    bookings = sight.running()
    _close_all((Idling.trial != (mode == Reclaim.TRIAL)) | Idling.booking_id.not_in([one.id for one in bookings]))
    said, opened, alone = sight.verdicts(bookings), sight.open_ones(bookings), sight.left_alone(bookings)
    return [
        one.id
        for one in bookings
        if one.id not in alone and _todo(one, said[one.id], opened.get(one.id)) != Todo.NOTHING
    ]


def act(booking_id: int) -> Booking | None:
    """Do what is to be done about one booking; the booking, if its GPUs are to be taken away now."""
    found = sight.running([booking_id])
    opened = sight.open_ones(found).get(booking_id)
    if opened is not None and not opened.trial and opened.due_at <= clock.now():
        ended = _give_back(found[0], absent=opened.absent)
        if ended is not None:
            return ended
    db.session.execute(select(Booking.id).where(Booking.id == booking_id).with_for_update())
    for booking in sight.running([booking_id]):  # as it is with the lock
        if booking.id not in sight.left_alone([booking]):
            _note(booking)
    return None


def _give_back(booking: Booking, *, absent: bool) -> Booking | None:
    before = booking.ends_at
    ended = changes.reclaim(booking.user, booking.id, _is_due, actor=ACTOR, action=RECLAIMED, absent=absent)
    if ended is None:
        return None
    opened = sight.open_ones([ended])[ended.id]
    opened.seconds = gpu_seconds(ended, ended.ends_at, before)
    _close(opened, Outcome.RECLAIMED)
    return ended


def _is_due(booking: Booking) -> bool:
    """Whether the rest of a locked booking is to be given back: its owner was told, and still nothing is done."""
    opened = sight.open_ones([booking]).get(booking.id)
    if opened is None or opened.trial or policy.current().reclaim != Reclaim.ON:
        return False
    due = _todo(booking, sight.verdicts([booking])[booking.id], opened) == Todo.GIVE_BACK
    return due and not warned.unheard(booking.user, opened)


def _note(booking: Booking) -> None:
    """What takes nothing away; the booking is locked."""
    said, opened = sight.verdicts([booking])[booking.id], sight.open_ones([booking]).get(booking.id)
    step = _todo(booking, said, opened)
    if opened is None:
        if step == Todo.TELL:
            _tell(booking, said)
    elif step == Todo.CLOSE:
        _close(opened, Outcome.OVER)
    elif step == Todo.GIVE_BACK and opened.trial:
        opened.seconds = gpu_seconds(booking, clock.now(), booking.ends_at)
        _close(opened, Outcome.WOULD)
        _record(opened, "booking.would_reclaim", seconds=opened.seconds)
    elif step == Todo.GIVE_BACK and warned.unheard(booking.user, opened):
        _close(opened, Outcome.OVER)  # to be told anew by the next look


def _tell(booking: Booking, said: Verdict) -> None:
    """What its owner hears, and may answer until the grace is over. In a trial nobody hears it."""
    rules, now = policy.current(), clock.now()
    trial = rules.reclaim == Reclaim.TRIAL
    opened = Idling(
        booking_id=booking.id,
        trial=trial,
        since=said.since or now,
        held=said.held,
        absent=said.absent,
        told_at=now,
        due_at=now + timedelta(minutes=rules.idle_grace),
    )
    db.session.add(opened)
    db.session.flush()
    if not trial:
        left, fee = sight.keeps_left(booking.id), fee_of(opened, booking)
        _record(opened, "booking.idle_warned", keeps=left, minutes=rules.keep_minutes, absent=said.absent, fee=fee)


def fee_of(opened: Idling, booking: Booking) -> int:
    """What is charged when its rest is given back as announced, in GPU-seconds; its allocations must be loaded."""
    return fees.unused(booking, min(opened.due_at, booking.ends_at), booking.ends_at, opened.due_at)


def gpu_seconds(booking: Booking, start: datetime, end: datetime) -> int:
    """GPUs times seconds, whatever they cost; its allocations must be loaded."""
    return len(booking.allocations) * max(0, int((end - start).total_seconds()))


def _todo(booking: Booking, said: Verdict, opened: Idling | None) -> Todo:
    grace = timedelta(minutes=policy.current().idle_grace)
    return todo(said, opened.due_at if opened else None, booking.ends_at, clock.now(), grace)


def _record(opened: Idling, action: str, **details: int) -> None:
    times = {"since": opened.since.isoformat(), "due_at": opened.due_at.isoformat()}
    audit.record(ACTOR, action, f"booking:{opened.booking_id}", key=f"{action}:{opened.id}", **times, **details)


def _close(opened: Idling, outcome: Outcome) -> None:
    opened.outcome, opened.closed_at = outcome, clock.now()
    db.session.flush()


def _close_all(which: ColumnElement[bool]) -> None:
    statement = update(Idling).where(Idling.outcome == Outcome.OPEN, which)
    db.session.execute(statement.values(outcome=Outcome.OVER, closed_at=clock.now()))
