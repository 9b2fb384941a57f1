"""What was counted once is counted anew when anything changes that it was made of, by whomever."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app import clock
from app.extensions import db, lab_zone, transaction
from app.models import Account, Allocation, Booking, UsagePiece
from app.services import samples, zones
from app.services.reports import counted
from app.services.reports.pieces import Key, Scope, numbers
from app.services.reports.spans import Span
from app.services.samples import Part
from tests.factories import gpus_of, make_booking, make_host, make_user

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
START = datetime(2026, 11, 20, 12, tzinfo=UTC)  # over the lab's midnight, which is at 16:00
SPAN = START - 20 * HOUR, START + 28 * HOUR  # two of the lab's days
LAB = "Asia/Shanghai"


@dataclass(frozen=True)
class Old:
    """A booking of two GPUs, of which no machine took the second; long over and settled."""

    booking: Booking
    first: Allocation
    second: Allocation
    address: str

    def deliver(self, name: str, busy: int, at: datetime = START + HOUR) -> None:
        """A minute of the first GPU, so many seconds of it busy, and one five hours later, on the next day."""
        parts = [
            Part(self.address, minute, self.booking.id, "li", 60_000, 1000 * busy, 600, 7, 50)
            for minute in (at, at + 5 * HOUR)
        ]
        samples.deliver(self.booking.host_id, name, parts)


def make_old(start: datetime = START) -> Old:
    zones.write(LAB)
    gpus = gpus_of(make_host(gpus=2))
    booking = make_booking(make_user(hours=90), gpus, start, start + 10 * HOUR, settled_at=start + 10 * HOUR)
    query = sa.select(Allocation).where(Allocation.booking_id == booking.id).order_by(Allocation.gpu_id)
    first, second = db.session.scalars(query)
    first.attached_at, first.detached_at = start + 5 * MINUTE, start + 10 * HOUR
    db.session.flush()
    found = Old(booking, first, second, gpus[0].pci_address)
    found.deliver("a", 30, start + HOUR)
    return found


@pytest.fixture
def old(app: object, freeze: Callable[[datetime], None]) -> Old:
    freeze(NOW)
    return make_old()


def told() -> Any:
    """All numbers of the days about it, by person."""
    return numbers(Span.of(*SPAN, lab_zone(), clock.now()), Key.PERSON, Scope())


def kept() -> tuple[int, int]:
    """How many allocations are marked, and how many pieces there are."""
    marked = sa.select(sa.func.count()).where(Allocation.counted)
    return db.session.scalar(marked) or 0, db.session.scalar(sa.select(sa.func.count(UsagePiece.day))) or 0


def test_it_is_counted_once_and_the_numbers_stay(old: Old) -> None:
    before = told()
    assert [one.busy for one in before.values()] == [60]
    assert (counted.count(), counted.count()) == (1, 0)
    assert kept() == (2, 4)
    assert told() == before
    db.session.execute(sa.update(UsagePiece).values(reserved=UsagePiece.reserved + 60))
    [more] = told().values()
    assert more.reserved == sum(one.reserved for one in before.values()) + 240, "it is these that are shown"


CHANGES = {
    "its start": "UPDATE allocations SET starts_at = starts_at - interval '1 hour'",
    "its end": "UPDATE allocations SET ends_at = ends_at + interval '1 hour'",
    "its withdrawal": "UPDATE allocations SET released_at = starts_at WHERE attached_at IS NULL",
    "when it was attached": "UPDATE allocations SET attached_at = attached_at + interval '1 hour'",
    "that it was attached": "UPDATE allocations SET attached_at = starts_at, detached_at = ends_at",
    "when it was gone": "UPDATE allocations SET detached_at = detached_at - interval '1 hour'",
    "when it could be given": "UPDATE allocations SET ready_at = starts_at + interval '1 hour'",
    "why it was not given": "UPDATE allocations SET trouble = 'unreachable'",
    "its GPU": "UPDATE allocations SET gpu_id = :gpu WHERE attached_at IS NULL",
    "one of its GPUs is gone": "DELETE FROM allocations WHERE attached_at IS NULL",
    "whose it is": "UPDATE bookings SET user_id = :user",
    "who pays for it": "UPDATE bookings SET account_id = :account",
    "where it is": "UPDATE bookings SET host_id = :host",
    "that it is a rest": "UPDATE bookings SET rest_of_id = id",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whoever_changes_it_has_it_counted_anew(old: Old, change: str) -> None:
    other = make_host(gpus=1)
    account = Account(name="team:other")
    db.session.add(account)
    db.session.flush()
    counted.count()
    assert kept()[0] == 2
    values = {"gpu": gpus_of(other)[0].id, "host": other.id, "user": make_user().id, "account": account.id}
    db.session.execute(sa.text(change), values)
    assert kept() == (0, 0)
    db.session.expire_all()
    anew = all_of()
    assert counted.count() == 1
    assert kept()[0]
    assert all_of() == anew


def all_of() -> Any:
    span = Span.of(*SPAN, lab_zone(), clock.now())
    return [numbers(span, key, Scope()) for key in (Key.PERSON, Key.TEAM, Key.HOST, Key.GPU, Key.BOOKING)]


def test_what_does_not_matter_leaves_it_as_it_is(old: Old) -> None:
    counted.count()
    before = kept()
    db.session.execute(sa.text("UPDATE allocations SET warned = 5, holders = '[]', asked_at = ends_at"))
    db.session.execute(sa.text("UPDATE bookings SET note = 'x', settled_at = ends_at, user_id = user_id"))
    assert kept() == before == (2, 4)


def test_late_samples_are_in_it(old: Old) -> None:
    counted.count()
    old.deliver("b", 20)
    assert kept() == (0, 0)
    [one] = told().values()
    assert one.busy == 100
    assert counted.count() == 1
    assert told() == dict.fromkeys(told(), one), "and once"
    other = make_old(START - 240 * HOUR)
    assert kept() == (2, 4), "only those of which there are samples"
    other.deliver("b", 20)
    assert kept() == (2, 4)


WAITING = {
    "not settled": "UPDATE bookings SET settled_at = NULL",
    "not gone": "UPDATE allocations SET detached_at = NULL WHERE attached_at IS NOT NULL",
    "not long over": "UPDATE allocations SET ends_at = CAST(:line AS timestamptz)",
    "withdrawn": "UPDATE allocations SET released_at = starts_at",
}


@pytest.mark.parametrize("change", WAITING.values(), ids=WAITING)
def test_what_may_still_change_is_not_counted(old: Old, change: str) -> None:
    line = NOW - counted.SETTLED
    db.session.execute(sa.text(change), {"line": line} if ":line" in change else {})
    assert counted.count() == 0
    assert kept() == (0, 0)


def test_before_a_portal_wrote_down_its_zone_nothing_is_counted(old: Old) -> None:
    db.session.execute(sa.text("UPDATE policies SET zone = NULL"))
    db.session.expire_all()
    assert counted.count() == 0


def test_another_zone_has_other_days(old: Old) -> None:
    """As counted now, be it that the pieces are forgotten or that they are another portal's."""
    counted.count()
    berlin = ZoneInfo("Europe/Berlin")
    midnight = START - 13 * HOUR
    days = (Span.of(midnight, midnight + 48 * HOUR, berlin, clock.now()), Key.NOTHING, Scope(), (0, 1))
    before = numbers(*days)
    assert kept()[0], "they are left out"
    assert [(key, one.reserved) for key, one in before.items()] == [((0, 0), 2 * 10 * 3600)]
    zones.write("Europe/Berlin")
    assert kept() == (0, 0)
    assert numbers(*days) == before
    assert counted.count() == 1
    assert numbers(*days) == before


def test_steps_are_small_and_the_oldest_come_first(old: Old) -> None:
    makers = [make_old(START - number * 24 * HOUR) for number in (1, 2)]
    assert counted.count(2) == 1, "two GPUs"
    assert makers[1].booking.id == db.session.scalar(sa.select(UsagePiece.booking_id).limit(1))
    assert (counted.count(2), counted.count(2), counted.count(2)) == (1, 1, 0)


@dataclass
class Beside:
    """A transaction that has done something and does not end before it is told to."""

    goes_on: Event
    done: Future[Any]

    def end(self) -> Any:
        self.goes_on.set()
        return self.done.result(10)


@pytest.fixture
def beside(aside: Callable[..., Future[Any]]) -> Callable[[Callable[[], Any]], Beside]:
    def start(act: Callable[[], Any]) -> Beside:
        did, goes_on = Event(), Event()

        def run() -> Any:
            found = act()
            did.set()
            assert goes_on.wait(10)
            return found

        done = aside(run)
        assert did.wait(10)
        return Beside(goes_on, done)

    return start


@pytest.fixture
def committed(core: Flask, freeze: Callable[[datetime], None]) -> Old:
    freeze(NOW)
    with core.app_context(), transaction():
        return make_old()


def test_samples_on_their_way_are_not_missed(core: Flask, committed: Old, beside: Any) -> None:
    adding = beside(lambda: committed.deliver("b", 20))
    with core.app_context(), transaction():
        assert counted.count() == 0
    adding.end()
    with core.app_context(), transaction():
        assert counted.count() == 1
        assert sum(one.busy for one in told().values()) == 100


def test_samples_that_come_while_it_is_counted_are_not_missed(
    core: Flask, committed: Old, aside: Any, beside: Any
) -> None:
    counting = beside(counted.count)
    adding = aside(committed.deliver, "b", 20)
    with core.app_context():
        wait_for_a_lock()
        assert not adding.done()
        assert counting.end() == 1
        adding.result(10)
        with transaction():
            assert kept() == (0, 0)
            assert sum(one.busy for one in told().values()) == 100


def wait_for_a_lock() -> None:
    """Until somebody waits for one."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(1000):
        with transaction() as session:
            if session.scalar(waiting):
                return
            session.execute(sa.text("SELECT pg_sleep(0.01)"))
    raise AssertionError("nobody waits")


@pytest.mark.parametrize(
    "change",
    ["UPDATE allocations SET warned = 1 WHERE attached_at IS NULL", "UPDATE bookings SET extended_at = now()"],
)
def test_what_is_being_changed_is_left_for_later(core: Flask, committed: Old, beside: Any, change: str) -> None:
    changing = beside(lambda: db.session.execute(sa.text(change)))
    with core.app_context(), transaction():
        db.session.execute(sa.text("SET LOCAL lock_timeout = 200"))
        assert counted.count() == 0
    changing.end()
    with core.app_context(), transaction():
        assert counted.count() == 1


def test_a_change_waits_for_the_count_and_then_takes_it_away(
    core: Flask, committed: Old, aside: Any, beside: Any
) -> None:
    counting = beside(counted.count)
    changing = aside(
        db.session.execute, sa.text("UPDATE bookings SET account_id = account_id + 0, extended_at = now()")
    )
    with core.app_context():
        wait_for_a_lock()
        assert counting.end() == 1
        changing.result(10)
        with transaction():
            assert kept() == (0, 0)


def test_readers_do_not_wait(core: Flask, committed: Old, beside: Any) -> None:
    counting = beside(counted.count)
    with core.app_context(), transaction():
        db.session.execute(sa.text("SET LOCAL lock_timeout = 200"))
        before = told()
    assert counting.end() == 1
    with core.app_context(), transaction():
        assert told() == before
