"""What counts as doing nothing. Pure.

By what the GPUs did, never by a keyboard. A booking is judged as a whole: one busy GPU keeps them all. What was not
measured is unknown: it is never counted, and a longer hole in it begins the count anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MINUTE = timedelta(minutes=1)
FRESH = timedelta(minutes=6)  # what was measured must be as new as this, or nobody knows enough to say something
HOLE = timedelta(minutes=5)  # without measurements: an agent that starts anew takes less
# Nobody looked for so long after the grace: who was told may have found nobody to say "keep" to, and is told anew.
TOO_LATE = timedelta(minutes=10)
HELD_MIB = 64  # memory of a booking's own programs from which on it is held


@dataclass(frozen=True)
class Minute:
    """What the GPUs of a booking did in one minute: whether any was busy, and the most memory its programs held.
    `measured`: how much of it there is by now."""

    at: datetime
    busy: bool
    memory_mib: int = 0
    measured: timedelta = MINUTE


@dataclass(frozen=True)
class Terms:
    """How many minutes of doing nothing are too many; `held`: with memory held, 0 for never; `absent`: from the start
    on and without ever holding memory, as nobody came; 0 where its owner has said something since."""

    minutes: int
    held: int
    absent: int = 0

    @property
    def longest(self) -> timedelta:
        """How far back one has to look."""
        return MINUTE * max(self.minutes, self.held)


class State(StrEnum):
    """What can be said."""

    UNKNOWN = "unknown"
    USED = "used"
    IDLE = "idle"


@dataclass(frozen=True)
class Verdict:
    """`since`: the GPUs did nothing since then; None where that is not known. `held`: with memory held; `absent`: they
    were never used. `until`: up to when anything is known."""

    state: State
    since: datetime | None = None
    held: bool = False
    absent: bool = False
    until: datetime | None = None


def judge(measured: Sequence[Minute], began: datetime, now: datetime, terms: Terms) -> Verdict:
    """What `measured` (minutes in which all GPUs were, or any was busy; oldest first) says of a booking.

    `began`: nothing before that counts against it."""
    if not measured or now - measured[-1].at > FRESH:
        return Verdict(State.UNKNOWN)
    still: list[Minute] = []
    later = measured[-1].at
    for minute in reversed(measured):
        if minute.busy or minute.at < began or later - minute.at > HOLE + MINUTE:
            break
        still.append(minute)
        later = minute.at
    if not still:
        return Verdict(State.USED)
    held = any(minute.memory_mib >= HELD_MIB for minute in still[: terms.minutes])
    absent = terms.absent > 0 and _nobody_came(measured, began)
    needed = terms.absent if absent else terms.held if held else terms.minutes
    state = State.IDLE if needed > 0 and len(still) >= needed else State.USED
    return Verdict(state, still[-1].at, held, absent, measured[-1].at + measured[-1].measured)


def _nobody_came(measured: Sequence[Minute], began: datetime) -> bool:
    """Whether the GPUs were never used: measured from the beginning on, nothing was done and nothing held."""
    since = [minute for minute in measured if minute.at >= began]
    used = any(minute.busy or minute.memory_mib >= HELD_MIB for minute in since)
    return not used and since[0].at - began < HOLE + MINUTE


class Todo(StrEnum):
    """What is to be done about a booking."""

    NOTHING = "nothing"
    TELL = "tell"
    CLOSE = "close"
    GIVE_BACK = "give_back"


def todo(said: Verdict, due_at: datetime | None, ends_at: datetime, now: datetime, grace: timedelta) -> Todo:
    """`due_at`: when the rest is given back, as its owner was told; None if they were not.

    Nothing is taken before it is known what was done until then: measurements come minutes late, and who was told may
    have begun."""
    if due_at is None:
        worth_it = said.state == State.IDLE and ends_at > now + grace
        return Todo.TELL if worth_it else Todo.NOTHING
    if said.state == State.USED or now > due_at + TOO_LATE:
        return Todo.CLOSE
    known = said.until is not None and said.until >= due_at
    return Todo.GIVE_BACK if said.state == State.IDLE and known and now >= due_at else Todo.NOTHING
