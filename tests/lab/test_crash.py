"""`kill -9` in the middle of a pass, on a real LXD: the next one ends in the right state, and nothing is told twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.orm import InstrumentedAttribute

from app.extensions import db, transaction
from app.models import Allocation, AuditEvent, Booking, EntryKind, LedgerEntry
from app.services import accounts, changes
from tests.browser.watch import configured
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.scene import Scene, scene, second_from_now
from tests.lab.watch import Watch
from tests.runtime.running import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.holds]

AGAIN = 60.0  # seconds for what was killed to be back, and for a pass after that
LEADS = (5.0, 15.0, 40.0)  # seconds to the end, the more if it cannot be written down as quickly
UNWRITTEN = "is not recorded yet"  # the agent says so of a pass that lost the database half-way
VICTIMS = {"agent": "workers agent", "valkey": "valkey", "postgres": "bin/postgres -D"}


@pytest.fixture(scope="module")
def berth(lab: Hosts) -> Iterator[Scene]:
    with scene(lab.ws1, BERTH_TICK="5") as made:
        yield made


@pytest.fixture(scope="module")
def pair(berth: Scene, lab: Hosts) -> list[str]:
    return berth.people(lab.ws1, 2)


def victim(berth: Scene, word: str) -> int:
    """The one process of that kind; of PostgreSQL the first, whose children are told to end with it."""
    found = wait_for(lambda: berth.berth.pids(VICTIMS[word]), AGAIN, word)
    return found[0]


def books(berth: Scene, numbers: list[int]) -> Counter[tuple[str, int]]:
    """How many entries of the ledger and lines of the log there are, by what they are and the booking's place."""

    def read() -> Counter[tuple[str, int]]:
        entries = db.session.scalars(db.select(LedgerEntry).where(LedgerEntry.booking_id.in_(numbers)))
        targets = {f"booking:{number}": place for place, number in enumerate(numbers)}
        events = db.session.scalars(db.select(AuditEvent).where(AuditEvent.target.in_(targets)))
        found = Counter((str(entry.kind), numbers.index(entry.booking_id or 0)) for entry in entries)
        return found + Counter((event.action, targets[event.target]) for event in events)

    told: Counter[tuple[str, int]] = berth.ask(read)
    return told


def recorded(berth: Scene, number: int, what: InstrumentedAttribute[datetime | None]) -> bool:
    """Whether a pass has written down that the booking's GPU was attached or detached; false without a database."""
    return berth.ask(lambda: db.session.scalar(db.select(what).filter_by(booking_id=number))) is not None


def end(berth: Scene, name: str, number: int, host: Lab) -> None:
    """Give the rest of a booking back, as its owner does."""
    with berth.app.app_context(), transaction():
        changes.end_now(accounts.get(name), number)
    berth.wake(host)


def settled(berth: Scene, numbers: list[int]) -> bool:
    """Whether the books of all of them are closed and all their GPUs are seen to be gone."""
    query = (
        db.select(db.func.count())
        .select_from(Booking)
        .join(Allocation)
        .where(Booking.id.in_(numbers), Booking.settled_at.is_not(None), Allocation.detached_at.is_not(None))
    )
    return berth.ask(lambda: db.session.scalar(query)) == len(numbers)


@pytest.mark.parametrize(
    ("who", "moment"),
    [("agent", "gone"), ("agent", "here"), ("valkey", "gone"), ("postgres", "gone"), ("postgres", "here")],
)
def test_killed_in_the_middle_of_a_pass(berth: Scene, pair: list[str], lab: Hosts, who: str, moment: str) -> None:
    host, (one, other), minor = lab.ws1, pair, lab.ws1.minors[0]
    with Watch((host, one), (host, other)) as watch:
        begin = second_from_now(0)
        numbers = [berth.book(one, host, 0, begin, begin + 600)]
        berth.wake(host)
        watch.until(lambda have: minor in have[one], AGAIN)
        wait_for(lambda: recorded(berth, numbers[0], Allocation.attached_at), AGAIN, "the pass is over")
        pid, unwritten = victim(berth, who), berth.berth.output.count(UNWRITTEN)
        # Detached or just attached, and nothing of it is written down.
        watch.kill_when(one if moment == "gone" else other, minor, here=moment == "here", pid=pid)
        due = berth.end([(one, numbers[0])], LEADS)
        numbers.append(berth.book(other, host, 0, due, due + 600))
        berth.wake(host)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), 25, "killed")
        if who == "agent":
            assert not recorded(berth, numbers[0], Allocation.detached_at), "the pass was over: killed too late"
            assert not recorded(berth, numbers[1], Allocation.attached_at)
        assert victim(berth, who) != pid
        watch.until(lambda have: minor in have[other], AGAIN)
        wait_for(lambda: recorded(berth, numbers[1], Allocation.attached_at), AGAIN, "written down")
        assert watch.sights[-1].have == {one: frozenset(), other: frozenset({minor})}
        assert (berth.berth.output.count(UNWRITTEN) > unwritten) == (who == "postgres")
        end(berth, other, numbers[1], host)
        watch.until(lambda have: not have[other], AGAIN)
        wait_for(lambda: settled(berth, numbers), AGAIN, "both settled")
        assert watch.shared == []
    assert configured(host, one) == configured(host, other) == set()
    told = books(berth, numbers)
    for what in (EntryKind.HOLD, EntryKind.SETTLE, "gpu.attached", "gpu.detached", "booking.settled"):
        assert [told[str(what), place] for place in (0, 1)] == [1, 1], what
