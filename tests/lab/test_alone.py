"""A booking ends on time with nobody there but the agent and the kernel: without database, Valkey and portal, or
without LXD. What it could not write down it writes once when they are back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.extensions import db, transaction
from app.models import Allocation, AuditEvent, Booking, EntryKind, LedgerEntry
from app.services import accounts, changes, policy
from tests.browser.watch import configured
from tests.lab.clinging import ToldApart, clingers, first_opened, last_opened
from tests.lab.fault_judge import Span
from tests.lab.fault_watch import Watch
from tests.lab.scene import Scene, scene, second_from_now
from tests.runtime.running import ROOT, Berth, processes, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timed]

GRACE = 1  # seconds; nobody comes next, so it begins at the end
LENGTH = 6  # seconds of the booking that ends
FENCED = 0.3  # seconds after the end until nothing can be opened any more
ENDED = GRACE + 1.5  # seconds after the end until nobody holds the GPU
AWAY = 5.0  # seconds after the end until all are back
BACK = 30.0  # seconds for everything to be in order again
HEARD = 8.0  # seconds for LXD to be listened to again; the tick is further away


@pytest.fixture(scope="module")
def host(lab_directory: Path) -> Iterator[ToldApart]:
    with ToldApart(lab_directory / "alone", 2, first=2) as made:
        yield made


@pytest.fixture(scope="module")
def berth(host: ToldApart) -> Iterator[Scene]:
    with scene(host) as made:
        with made.app.app_context(), transaction():
            policy.current().grace_seconds = GRACE
        yield made


@pytest.fixture(scope="module")
def clinging(host: ToldApart, berth: Scene) -> Iterator[tuple[Path, list[str]]]:
    """Two people with machines that do not let go, and where those write."""
    with clingers(host, "clinging") as (logs, options):
        yield logs, berth.people(host, 2, options)


@contextmanager
def agent_by_hand(berth: Scene, name: str) -> Iterator[int]:
    """An agent that no supervisor takes along when it dies; its process id."""
    command = [sys.executable, "-m", "workers", "agent", name]
    agent = subprocess.Popen(command, cwd=ROOT, env=berth.berth.environment, stderr=subprocess.PIPE, text=True)
    assert agent.stderr
    try:
        assert "started" in agent.stderr.readline()
        reader = threading.Thread(target=agent.stderr.read, daemon=True)
        reader.start()
        yield agent.pid
    finally:
        agent.terminate()
        agent.wait(60)


@contextmanager
def nobody_else(berth: Scene, agent: int) -> Iterator[None]:
    """Everything of this Berth is killed but for one agent, and started again afterwards."""
    old = berth.berth
    keep = {agent, *children(agent)}
    old.process.kill()
    for pid in processes(old.data).keys() - keep:  # the database, Valkey, the portal, the supervisor's own agent
        with_its_end(pid)
    old.process.wait()
    wait_for(lambda: not processes(old.data).keys() - keep, 20, "all of it is gone")
    try:
        yield
    finally:
        more = {key: value for key, value in old.environment.items() if key.startswith("BERTH_")}
        berth.berth = Berth(old.data, old.port, **more)
    berth.berth.ready()


def with_its_end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children(pid: int) -> set[int]:
    return {
        int(text) for task in Path(f"/proc/{pid}/task").iterdir() for text in (task / "children").read_text().split()
    }


def until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def gone_in_time(spans: list[Span], name: str, minor: int, begin: int, due: int) -> None:
    """It could be opened until the end, and no longer, and who held it was ended after the grace."""
    late = last_opened(spans, name, minor, begin, due + AWAY) - due
    assert -1 < late <= FENCED, f"last opened {late:.3f} s after the end"
    held = max(one.end for one in spans if (one.machine, one.minor, one.how) == (name, minor, "held")) - due
    assert GRACE - 0.2 <= held <= ENDED, f"held until {held:.3f} s after the end"


def written_once(berth: Scene, number: int, due: int) -> None:
    """The books are closed, once, by the booking's window and not by when they could be."""

    def read() -> tuple[list[LedgerEntry], list[str], Allocation, Booking]:
        entries = db.select(LedgerEntry).where(LedgerEntry.booking_id == number, LedgerEntry.kind == EntryKind.SETTLE)
        events = db.select(AuditEvent.action).where(AuditEvent.target == f"booking:{number}").order_by(AuditEvent.id)
        allocation = db.session.scalars(db.select(Allocation).where(Allocation.booking_id == number)).one()
        found = list(db.session.scalars(entries)), list(db.session.scalars(events)), allocation
        return *found, db.session.get_one(Booking, number)

    entries, actions, allocation, booking = berth.ask(read)
    assert len(entries) == 1
    assert sorted(actions) == ["booking.settled", "gpu.attached", "gpu.detached"]
    assert allocation.ends_at.timestamp() == booking.ends_at.timestamp() == due
    moments = [allocation.detached_at.timestamp(), booking.settled_at.timestamp()]  # while LXD is away, settled first
    assert due <= min(moments) <= max(moments) <= time.time()


def end_now(berth: Scene, name: str, number: int) -> None:
    with berth.app.app_context(), transaction():
        changes.end_now(accounts.get(name), number)


def closed(berth: Scene, number: int) -> bool:
    query = db.select(Allocation.detached_at, Booking.settled_at).join(Booking).where(Booking.id == number)
    row = berth.ask(lambda: db.session.execute(query).one())
    return row is not None and None not in tuple(row)


def test_without_database_valkey_and_portal(berth: Scene, host: ToldApart, clinging: tuple[Path, list[str]]) -> None:
    logs, (one, other) = clinging
    ends, starts = host.minors
    with berth.app.app_context():
        name = berth.row(host).name
    with agent_by_hand(berth, name) as agent, Watch(berth, host, logs) as watch:
        begin = second_from_now(1)
        due = begin + LENGTH
        number = berth.book(one, host, 0, begin, due)
        later = berth.book(other, host, 1, due, due + 600)
        berth.wake(host)
        wait_for(lambda: held(watch, one, ends), LENGTH, "it is held")
        with nobody_else(berth, agent):
            assert time.time() < due, "killed too late"
            until(due + AWAY)
            spans = list(watch.facts().spans)
            assert configured(host, one) == configured(host, other) == set()
        back = time.time()
        gone_in_time(spans, one, ends, begin, due)
        assert first_opened(spans, other, starts, begin) == float("inf"), "one began"
        wait_for(lambda: closed(berth, number), BACK, "written down")
        wait_for(lambda: held(watch, other, starts), BACK, "the other one begins")
        assert first_opened(list(watch.facts().spans), other, starts, begin) > due + AWAY
        written_once(berth, number, due)
        assert time.time() - back < BACK
    assert berth.ask(lambda: db.session.scalar(db.select(Booking.settled_at).where(Booking.id == later))) is None
    end_now(berth, other, later)


def test_without_lxd(berth: Scene, host: ToldApart, clinging: tuple[Path, list[str]]) -> None:
    logs, (one, _other) = clinging
    minor = host.minors[0]
    with Watch(berth, host, logs) as watch:
        begin = second_from_now(1)
        due = begin + LENGTH
        number = berth.book(one, host, 0, begin, due)
        berth.wake(host)
        wait_for(lambda: held(watch, one, minor), LENGTH, "it is held")
        with host.without_lxd():
            assert time.time() < due, "killed too late"
            until(due + AWAY)
            spans = list(watch.facts().spans)
            assert not closed(berth, number), "nobody could see that it is gone"
        gone_in_time(spans, one, minor, begin, due)
        wait_for(lambda: configured(host, one) == set(), HEARD, "detached")
        wait_for(lambda: closed(berth, number), BACK, "written down")
        written_once(berth, number, due)
        until(time.time() + 0.5)
        again = [span for span in watch.facts().spans if span.machine == one and span.minor == minor]
        assert max(span.end for span in again) <= due + ENDED, "it came back with LXD"


def test_an_agent_that_starts_while_lxd_is_away(
    berth: Scene, host: ToldApart, clinging: tuple[Path, list[str]]
) -> None:
    """It never heard LXD: it ends what is over, and leaves who has a booking alone."""
    logs, (one, other) = clinging
    ends, stays = host.minors
    actions = db.select(AuditEvent.action)
    with Watch(berth, host, logs) as watch:
        begin = second_from_now(1)
        due = begin + 3 * LENGTH
        berth.book(one, host, 0, begin, due)
        later = berth.book(other, host, 1, begin, due + 600)
        berth.wake(host)
        wait_for(lambda: held(watch, one, ends) and held(watch, other, stays), LENGTH, "both are held")
        with host.without_lxd():
            [agent] = berth.berth.pids("workers agent")[:1]
            os.kill(agent, signal.SIGKILL)
            wait_for(lambda: berth.berth.pids("workers agent")[:1] not in ([], [agent]), 10, "another agent")
            assert time.time() < due - LENGTH, "killed too late"
            until(due + AWAY)
            assert (other, stays) in watch.now(), "who has a booking keeps it"
            spans = list(watch.facts().spans)
        gone_in_time(spans, one, ends, begin, due)
        wait_for(lambda: configured(host, one) == set(), HEARD, "detached")
        assert (other, stays) in watch.now()
    assert {"gpu.intruder", "gpu.quarantined"}.isdisjoint(berth.ask(lambda: set(db.session.scalars(actions))))
    end_now(berth, other, later)


def held(watch: Watch, name: str, minor: int) -> bool:
    return any((span.machine, span.minor, span.how) == (name, minor, "held") for span in watch.facts().spans)
