"""Several at once, on real commits: nobody waits in a circle, and what one did counts for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Barrier, Event
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app import clock
from app.drivers.fake import FakeLxd
from app.errors import RuleRefused
from app.extensions import db, transaction
from app.models import Booking, Gpu, GpuState, LedgerEntry, User
from app.services import accounts, bookings, changes, claims, inventory, openings, recording
from app.services.claims import Ask
from app.services.windows import Window
from tests.factories import attach, gpus_of, make_booking, make_host, make_instance, make_user
from tests.services.conftest import waits
from workers.reconciler import PassResult, run_pass

HOUR = timedelta(hours=1)
SLOT = 1


def user(name: str) -> User:
    return accounts.get(name)


def end_now(name: str, booking_id: int) -> None:
    changes.end_now(user(name), booking_id)


def settle(host: str) -> int:
    return recording.settle_ended(inventory.host(host))


@contextmanager
def holding(core: Flask, table: str, key: int) -> Iterator[None]:
    """A row's lock, held by somebody else."""
    with core.app_context(), db.engine.begin() as connection:
        connection.execute(sa.text(f"SELECT 1 FROM {table} WHERE id = {key} FOR UPDATE"))
        yield


def test_a_change_and_the_settling_of_the_same_booking_take_turns(core: Flask, aside: Callable[..., Any]) -> None:
    end = clock.now().replace(microsecond=0) + timedelta(seconds=1)
    with core.app_context(), transaction():
        alice = make_user("alice")
        booking = make_booking(alice, gpus_of(make_host("ws1")), end - HOUR, end)
        booking_id, account_id = booking.id, alice.account_id or 0
    with holding(core, "accounts", account_id):
        changed = aside(end_now, "alice", booking_id)
        waits(core)
        Event().wait((end - clock.now()).total_seconds() + 0.01)
        settled = aside(settle, "ws1")
        waits(core, 2)
    with pytest.raises(RuleRefused, match="over"):
        changed.result(10)
    assert settled.result(10) == 1


def test_two_hosts_settle_the_same_people_in_the_same_order(core: Flask, aside: Callable[..., Any]) -> None:
    now = clock.now().replace(microsecond=0)
    with core.app_context(), transaction():
        people = [make_user("alice"), make_user("bob")]
        for name, order in (("ws1", people), ("ws2", people[::-1])):
            gpu = gpus_of(make_host(name))[:1]
            for hour, person in enumerate(order):
                make_booking(person, gpu, now + (hour - 5) * HOUR, now + (hour - 4) * HOUR)
        first, last = (person.account_id or 0 for person in people)
    with holding(core, "accounts", last), holding(core, "accounts", first):
        settled = [aside(settle, name) for name in ("ws1", "ws2")]
        waits(core, 2)
    assert [one.result(10) for one in settled] == [2, 2]


def test_a_pass_that_records_holds_up_no_books(
    core: Flask, aside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person changes one booking while a pass records it and settles another of theirs."""
    now = clock.now().replace(microsecond=0)
    with core.app_context(), transaction():
        alice, host = make_user("alice"), make_host("ws1")
        make_instance(alice, host, "alice")
        attach(over := make_booking(alice, gpus_of(host)[:1], now - 2 * HOUR, now - HOUR))
        over_id = over.id
        running_id = make_booking(alice, gpus_of(host)[1:2], now - HOUR, now + HOUR).id
    began, go, record_gone = Event(), Event(), recording.record_gone

    def slowly(*values: Any) -> Any:
        began.set()
        go.wait(10)
        return record_gone(*values)

    monkeypatch.setattr(recording, "record_gone", slowly)
    driver = FakeLxd(core.extensions["berth"].data_dir / "ws1.json", pace=0)
    with ThreadPoolExecutor() as pool, core.app_context():
        passed = pool.submit(_run_pass, core, driver)
        assert began.wait(10)  # it has the allocation
        changed = aside(end_now, "alice", running_id)  # has the account, waits for the allocation
        waits(core)
        go.set()
        assert passed.result(10).ok
        changed.result(10)
    with core.app_context():
        over = (LedgerEntry.kind == "settle", LedgerEntry.booking_id == over_id)  # the other one may be settled by now
        assert list(db.session.scalars(sa.select(LedgerEntry.amount).where(*over))) == [-3600]


def _run_pass(core: Flask, driver: FakeLxd) -> PassResult:
    with core.app_context():
        return run_pass("ws1", driver)


def test_any_gpu_lets_go_of_what_it_did_not_get(
    core: Flask, aside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who lose their first choice each want the other's: no circle."""
    now = clock.now().replace(microsecond=0) + HOUR
    hours = {"alice": Window(now, now + HOUR), "bob": Window(now + HOUR, now + 2 * HOUR)}
    own = {}
    with core.app_context(), transaction():
        for name in hours:
            host = make_host(gpus=1)
            make_instance(make_user(name), host, name)
            own[name] = gpus_of(host)[0].id
        make_user("carol")
    choose, turns = claims.any_gpus, dict.fromkeys(hours, 0)
    first_chosen, first_lost = Barrier(3, timeout=10), Barrier(2, timeout=10)

    def any_gpus(asked: Ask, frame: Any) -> list[Gpu]:
        turns[asked.note] += 1
        if turns[asked.note] == 2:
            first_lost.wait()
        found = choose(asked, frame)
        if turns[asked.note] == 1:
            first_chosen.wait()  # and now others are quicker
            quicker.wait(10)
        return found

    def book(name: str, window: Window, *gpu_ids: int) -> list[int]:
        ask = Ask(starts_at=window.starts_at, ends_at=window.ends_at, gpu_ids=gpu_ids, note=name)
        return [allocation.gpu_id for allocation in bookings.create(user(name), ask, SLOT).allocations]

    quicker = Event()
    monkeypatch.setattr(claims, "any_gpus", any_gpus)
    booked = {name: aside(book, name, window) for name, window in hours.items()}
    first_chosen.wait()
    for name, window in hours.items():
        aside(book, "carol", window, own[name]).result(10)
    quicker.set()
    assert booked["alice"].result(10) == [own["bob"]]
    assert booked["bob"].result(10) == [own["alice"]]


def test_a_gpu_that_goes_out_of_service_meanwhile_is_not_given(
    core: Flask, aside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now().replace(microsecond=0) + HOUR
    with core.app_context(), transaction():
        host = make_host("ws1", gpus=2)
        make_user("alice")
        first = gpus_of(host)[0].id
    chosen, turns = claims.any_gpus, []

    def any_gpus(asked: Ask, frame: Any) -> list[Gpu]:
        found = chosen(asked, frame)
        turns.append([gpu.id for gpu in found])
        if len(turns) == 1:
            with core.app_context(), transaction():
                inventory.set_gpu_state("root", db.session.get_one(Gpu, first), GpuState.MAINTENANCE)
        return found

    monkeypatch.setattr(claims, "any_gpus", any_gpus)

    def book() -> list[int]:
        made = bookings.create(user("alice"), Ask(starts_at=now, ends_at=now + HOUR, count=1), SLOT)
        return [allocation.gpu_id for allocation in made.allocations]

    assert first not in aside(book).result(10)
    assert turns[0] == [first]
    assert len(turns) == 2


def test_opposite_orders_of_the_same_gpus_take_turns(core: Flask, aside: Callable[..., Any]) -> None:
    now = clock.now().replace(microsecond=0) + HOUR
    with core.app_context(), transaction():
        ids = [gpu.id for gpu in gpus_of(make_host("ws1", gpus=4))]
        names = [make_user().username for _ in range(8)]

    def book(name: str, gpu_ids: list[int]) -> int:
        return bookings.create(user(name), Ask(starts_at=now, ends_at=now + HOUR, gpu_ids=tuple(gpu_ids)), SLOT).id

    made = [aside(book, name, ids if number % 2 else ids[::-1]) for number, name in enumerate(names)]
    outcomes = [one.exception(10) for one in made]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["SlotTaken"] * 7
    with core.app_context():
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Booking)) == 1
        assert openings.any_overlap(ids, Window(now, now + HOUR))
