"""GPUs taken from people who do not let go of them, one at a time and eight at once, and how long that took.

In each machine one process opens what it can every few milliseconds and tells when it last could, and another keeps the
GPU open and ignores what it is asked. Somebody else's booking follows at once, so the grace lies before the end.

`test_evictions.py` judges of a run whether it was safe, `tests/bench/evictions.py` how fast.
"""

from __future__ import annotations

import statistics
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from app.extensions import db, transaction
from app.models import AuditEvent, LedgerEntry
from app.services import policy
from tests.lab.clinging import ToldApart, clingers, first_opened, last_opened
from tests.lab.fault_judge import Span
from tests.lab.fault_watch import Watch
from tests.lab.scene import Scene, scene, second_from_now
from tests.lab.turns import p95
from tests.runtime.running import wait_for

GPUS = 8
PAIRS = 3  # of people between whom a GPU goes back and forth, each pair due at another second
TURN = PAIRS  # seconds of a booking
RING = 6  # seconds of one in the ring: long enough to be had on a slow machine too
AFTER = 2.5  # seconds after an end in which is looked for who can open it still: in a turn it comes again after TURN
EVICTIONS, HIDDEN = 21, 9  # one at a time; with LXD's device directory hidden, where only the way to its nodes differs
GRACE = 1  # seconds, before the end
LEAD = 4.0  # seconds until the first begins: time to write them down
PATIENCE = 10.0  # seconds after the last moment within which all of it is over and written down


@dataclass(frozen=True)
class Booked:
    """A person's booking of a GPU, given by its minor."""

    number: int
    name: str
    minor: int
    start: int
    end: int


@dataclass
class Seen:
    """What was booked, who had what, and what was written down: by the booking's place, one after the other per GPU."""

    evictions: int = EVICTIONS
    turns: list[list[Booked]] = field(default_factory=list)
    ring: list[list[Booked]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    books: Counter[tuple[str, int]] = field(default_factory=Counter)
    booked: list[Booked] = field(default_factory=list)

    def had(self, one: Booked) -> bool:
        """Whether the machine could open its GPU at all."""
        return one.start <= first_opened(self.spans, one.name, one.minor, one.start) < one.end

    def lates(self, chains: list[list[Booked]]) -> list[float]:
        """Per eviction: seconds from the end to the last time that the machine could open its GPU; below 0 before."""
        rows = [one for chain in chains for one in chain[:-1]]
        return [last_opened(self.spans, one.name, one.minor, one.start, one.end + AFTER) - one.end for one in rows]

    def waits(self, chains: list[list[Booked]]) -> list[float]:
        """Per eviction: seconds from the end to the first time that the next machine could open the GPU."""
        rows = [one for chain in chains for one in chain[1:]]
        return [first_opened(self.spans, one.name, one.minor, one.start) - one.start for one in rows]

    def spans_of(self, one: Booked) -> list[Span]:
        """When its machine could open its GPU, or a process held that, while it was booked."""
        return [
            span for span in self.spans
            if (span.machine, span.minor) == (one.name, one.minor) and span.begin < one.end and span.end > one.start
        ]  # fmt: skip

    def held(self, one: Booked) -> bool:
        """Whether a process held its GPU while it was booked."""
        return any(span.how == "held" for span in self.spans_of(one))

    def told_of(self, place: int) -> dict[str, int]:
        """What was written down of a booking, how often."""
        return {what: number for (what, of), number in self.books.items() if of == place}


def summary(seen: Seen, chains: list[list[Booked]]) -> str:
    """Both times of these evictions in a line."""
    return f"{_told('last opened', seen.lates(chains))}; {_told('next has it', seen.waits(chains))}"


def _told(name: str, seconds: list[float]) -> str:
    told = sorted(second * 1000 for second in seconds)
    return f"{name}, ms from the end: p50 {statistics.median(told):.0f}, p95 {p95(told):.0f}, max {told[-1]:.0f}"


def evict(host: ToldApart) -> Seen:
    """First one eviction a second, in turns; then all GPUs go to the next machine of a ring at one second."""
    with scene(host) as berth, clingers(host, "clinging") as (logs, options):
        with berth.app.app_context(), transaction():
            policy.current().grace_seconds = GRACE
        names = berth.people(host, GPUS, options)
        with Watch(berth, host, logs) as watch:
            found = Seen(HIDDEN if host.snap else EVICTIONS)
            begin = second_from_now(LEAD)
            found.turns = [
                in_turns(berth, host, gpu, names, begin + gpu, found.evictions // PAIRS) for gpu in range(PAIRS)
            ]
            later = max(chain[-1].end for chain in found.turns) + 1
            found.ring = [
                [book(berth, host, names[(gpu + place) % GPUS], gpu, later + place * RING, RING) for place in range(2)]
                for gpu in range(GPUS)
            ]
            found.booked = [one for chain in found.turns + found.ring for one in chain]
            berth.wake(host)
            numbers = [one.number for one in found.booked]
            seconds = later + 2 * RING - begin + LEAD + PATIENCE
            with suppress(AssertionError):  # what was seen until then says what is wrong
                wait_for(lambda: told(berth, numbers, "booking.settled", "gpu.detached"), seconds)
            found.spans = list(watch.facts().spans)
            held = [one.number for one in found.booked if found.held(one)]
            with suppress(AssertionError):  # whom a pass ended it writes down after what became of the GPU
                wait_for(lambda: told(berth, held, "gpu.process_ended"), PATIENCE)
            found.books = books(berth, numbers)
        return found


def in_turns(berth: Scene, host: ToldApart, gpu: int, names: list[str], begin: int, evictions: int) -> list[Booked]:
    pair = names[2 * gpu : 2 * gpu + 2]
    return [book(berth, host, pair[turn % 2], gpu, begin + turn * TURN) for turn in range(evictions + 1)]


def book(berth: Scene, host: ToldApart, name: str, gpu: int, start: int, length: int = TURN) -> Booked:
    number = berth.book(name, host, gpu, start, start + length)
    return Booked(number, name, host.minors[gpu], start, start + length)


def told(berth: Scene, numbers: list[int], *actions: str) -> bool:
    """Whether each of these was written down of each booking."""
    found = books(berth, numbers)
    return all(found[action, place] for action in actions for place in range(len(numbers)))


def books(berth: Scene, numbers: list[int]) -> Counter[tuple[str, int]]:
    """How many entries of the ledger and lines of the log there are, by what they are and the booking's place."""

    def read() -> Counter[tuple[str, int]]:
        entries = db.session.scalars(db.select(LedgerEntry).where(LedgerEntry.booking_id.in_(numbers)))
        found = Counter((str(entry.kind), numbers.index(entry.booking_id or 0)) for entry in entries)
        for event in db.session.scalars(db.select(AuditEvent).where(AuditEvent.actor != "test")):
            kind, _, number = event.target.partition(":")
            booking = int(number) if kind == "booking" else event.details.get("booking")
            if booking in numbers:
                found[event.action, numbers.index(booking)] += 1
        db.session.rollback()
        return found

    return berth.ask(read) or Counter()
