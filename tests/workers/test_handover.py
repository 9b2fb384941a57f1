"""GPUs handed over side by side: what takes one of them long, or for ever, is no delay to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from app.drivers.base import HostSeen, Tag
from app.drivers.kernel import Scan
from app.extensions import db
from app.models import Booking, Gpu, GpuState
from app.services import policy
from app.services.plan import Trouble
from tests.factories import make_booking
from tests.runtime.running import wait_for
from tests.workers.house import NOW, House
from tests.workers.test_reconciler import audited
from workers import evictor, handover
from workers.dues import PROVE_WITHIN
from workers.handover import Hands
from workers.telling import describe

HOUR = timedelta(hours=1)
FIRST = "gpu-0000-01-00-0"

Freeze = Callable[[datetime], None]


@pytest.fixture(autouse=True)
def quick(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evictor, "SHORT", 0.0)
    monkeypatch.setattr(house.hands, "_patience", 2.0)


@pytest.fixture
def goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, the first GPU's detach does not return."""
    gate, detach = threading.Event(), house.lxd.detach

    def held_up(instance: str, device: str) -> None:
        if device == FIRST:
            gate.wait(20)
        detach(instance, device)

    monkeypatch.setattr(house.lxd, "detach", held_up)
    yield gate
    gate.set()


def state_of(house: House) -> str:
    """The first GPU's."""
    return str(db.session.scalar(db.select(Gpu.state).where(Gpu.id == house.gpus[0].id)))


def settled(house: House) -> None:
    wait_for(lambda: not house.hands.evictor.busy, 15, "what goes on by itself is done")


def test_a_detach_that_hangs_delays_nobody_and_nobody_gets_the_gpu(
    house: House, freeze: Freeze, goes_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    next_one = make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    other = make_booking(house.bob, house.gpus[1:2], NOW + HOUR, NOW + 2 * HOUR)
    house.run()
    freeze(NOW + HOUR)
    said = describe(house.run())
    assert house.allocation(other).attached_at == NOW + HOUR
    assert house.allocation(next_one).trouble == Trouble.HELD
    assert [line for line in said if line.startswith("detached")] == []
    assert state_of(house) == GpuState.IN_SERVICE, "a little time to be proven"
    monkeypatch.setattr(handover, "AT_LAST", 0.0)
    house.run()
    assert state_of(house) == GpuState.QUARANTINE
    assert house.allocation(first).detached_at is None
    why = db.session.scalar(db.select(Gpu.quarantine_reason).where(Gpu.id == house.gpus[0].id))
    assert why == f"{FIRST} is still being detached from alice"
    woken = threading.Event()
    monkeypatch.setattr(house.hands, "_wake", woken.set)
    goes_on.set()
    assert woken.wait(15), "who is next is not kept waiting for the tick"
    said = describe(house.run())
    assert f"detached {FIRST} from alice" in said, "said at last"
    assert (state_of(house), audited("gpu.quarantined")) == (GpuState.IN_SERVICE, 1)
    assert house.allocation(first).detached_at is not None


def test_a_gpu_that_is_slowly_but_surely_freed_is_not_given_up(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of four looks takes 3 s and all but the last find another process: longer than a single look may take."""
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    monkeypatch.setattr(evictor, "SWEEP_EVERY", 3600.0)  # no look but those
    scan, may_look, looks, seconds = house.kernel.scan, threading.Semaphore(0), [0], [0.0]

    def slow(*words: Any, **more: Any) -> Scan:
        assert may_look.acquire(timeout=20)
        seconds[0] += 3
        if looks[0] < 3:
            house.kernel.add_process("alice", (195, 0))
        found = scan(*words, **more)
        looks[0] += 1
        return found

    monkeypatch.setattr(house.kernel, "scan", slow)
    monkeypatch.setattr(handover, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    freeze(NOW + HOUR + timedelta(seconds=20))
    for number in range(1, 5):
        house.run()
        assert state_of(house) == GpuState.IN_SERVICE
        may_look.release()
        wait_for(lambda number=number: looks[0] == number, 15, "the look is over")
    assert seconds[0] > handover.AT_LAST
    settled(house)


def test_a_gpu_is_not_given_up_while_its_machine_is_being_stopped(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LXD may take longer for that than for anything else."""
    policy.current().force_stop = True
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    house.kernel.add_process("alice", (195, 0), stubborn=True, immortal=True)
    freeze(NOW + HOUR + timedelta(seconds=20))
    house.run()
    seconds, begun, may_end, stop = [0.0], threading.Event(), threading.Event(), house.lxd.stop

    def slow(instance: str, *, force: bool = False) -> None:
        seconds[0] += handover.AT_LAST  # what came before it took long, too
        begun.set()
        assert may_end.wait(20)
        stop(instance, force=force)

    monkeypatch.setattr(house.lxd, "stop", slow)
    monkeypatch.setattr(handover, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    freeze(NOW + HOUR + timedelta(seconds=20) + PROVE_WITHIN)
    house.run()
    assert begun.wait(15)
    house.run()
    assert state_of(house) == GpuState.IN_SERVICE
    may_end.set()
    settled(house)
    house.run()
    assert (state_of(house), audited("instance.force_stopped")) == (GpuState.IN_SERVICE, 1)


def test_what_a_pass_did_not_wait_for_is_put_on_record_by_the_next(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    house.kernel.add_process("alice", (195, 0), stubborn=True)
    house.kernel.add_process("alice", (195, 0), stubborn=True, immortal=True)
    freeze(NOW + HOUR + timedelta(seconds=20))
    house.run()
    scan, may_look = house.kernel.scan, threading.Event()
    monkeypatch.setattr(evictor, "SWEEP_EVERY", 3600.0)
    monkeypatch.setattr(house.kernel, "scan", lambda *words, **more: (may_look.wait(20), scan(*words, **more))[1])
    freeze(NOW + HOUR + timedelta(seconds=20) + PROVE_WITHIN)
    house.run()
    may_look.set()
    settled(house)
    assert state_of(house) == GpuState.IN_SERVICE, "nobody was told yet"
    house.run()
    assert state_of(house) == GpuState.QUARANTINE
    assert audited("gpu.process_ended") == 2
    why = db.session.scalar(db.select(Gpu.quarantine_reason).where(Gpu.id == house.gpus[0].id))
    assert "does not let go of it" in str(why)
    settled(house)


def test_a_gpu_that_was_proven_free_is_not_held_back_for_a_slow_attach(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, attach = threading.Event(), house.lxd.attach
    monkeypatch.setattr(house.lxd, "attach", lambda *words: (gate.wait(20), attach(*words)))
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    gate.set()
    house.run()
    gate.clear()
    monkeypatch.setattr(handover, "AT_LAST", 0.0)
    freeze(NOW + HOUR)
    for _ in range(3):
        house.run()
        assert state_of(house) == GpuState.IN_SERVICE
    gate.set()
    settled(house)
    house.run()
    assert house.inside("bob") == {"0000:01:00.0"}


def test_a_gpu_that_is_plugged_in_while_the_next_pass_looks_may_be_opened(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, attach, observe = threading.Event(), house.lxd.attach, house.lxd.observe
    monkeypatch.setattr(house.lxd, "attach", lambda *words: (gate.wait(20), attach(*words)))
    monkeypatch.setattr(house.hands, "_patience", 0.1)
    monkeypatch.setattr(handover, "MOMENT", 0.1)
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()

    def a_moment_before(*words: Any) -> HostSeen:
        seen = observe(*words)
        gate.set()
        settled(house)
        return seen

    monkeypatch.setattr(house.lxd, "observe", a_moment_before)
    house.run()
    assert house.allocation(booking).attached_at is not None
    assert house.kernel.may_open("alice", (195, 0))


@pytest.fixture
def handed_on(house: House, freeze: Freeze, goes_on: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Booking:
    """The first GPU goes from Bob to Alice, as soon as it goes on."""
    make_booking(house.bob, house.gpus[:1], NOW - HOUR, NOW)
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    freeze(NOW - HOUR)
    house.run()
    freeze(NOW)
    monkeypatch.setattr(house.hands, "_patience", 0.5)
    house.run()
    return booking


def test_a_gpu_that_comes_late_takes_none_away_that_came_meanwhile(
    house: House, goes_on: threading.Event, handed_on: Booking
) -> None:
    make_booking(house.alice, house.gpus[1:2], NOW, NOW + HOUR)
    house.run()
    assert house.kernel.may_open("alice", (195, 1))
    goes_on.set()
    settled(house)
    assert house.inside("alice") == {"0000:01:00.0", "0000:02:00.0"}
    assert all(house.kernel.may_open("alice", (195, minor)) for minor in (0, 1))


def test_a_gpu_that_is_given_back_before_it_came_does_not_come(
    house: House, goes_on: threading.Event, handed_on: Booking
) -> None:
    house.allocation(handed_on).released_at = NOW
    house.run()
    goes_on.set()
    settled(house)
    assert house.lxd.calls().count("attach") == 1, "Bob's"
    assert not house.kernel.may_open("alice", (195, 0))
    house.run()
    assert house.inside("alice") == set()


def test_a_pass_waits_no_longer_than_to_what_is_due_next(
    house: House, freeze: Freeze, goes_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.hands, "_patience", 20.0)
    monkeypatch.setattr(handover, "MOMENT", 0.1)
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    make_booking(house.bob, house.gpus[1:2], NOW + HOUR + timedelta(seconds=1), NOW + 2 * HOUR)
    house.run()
    freeze(NOW + HOUR)
    assert house.run().milliseconds < 15_000
    assert not goes_on.is_set()


def test_nor_than_to_the_next_tick(house: House) -> None:
    hands = Hands(house.hands.evictor, 1.0)
    assert hands._patience == 1.0
    hands.close()
    assert Hands(house.hands.evictor, 300.0)._patience == handover.PATIENCE


def test_a_tag_that_changes_takes_no_look(house: House) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    looks = house.lxd.calls().count("scan")
    db.session.get_one(type(booking), booking.id).ends_at = NOW + 2 * HOUR
    house.allocation(booking).ends_at = NOW + 2 * HOUR
    house.run()
    assert house.lxd.calls().count("scan") == looks
    (device,) = house.lxd.observe().instances["alice"].devices
    assert isinstance(device.tag, Tag)
    assert device.tag.ends_at == (NOW + 2 * HOUR).timestamp()


def test_a_holder_that_is_another_one_each_time_is_ended(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    house.kernel.add_process("alice", (195, 0), stubborn=True)
    scan, killed, starts = house.kernel.scan, threading.Event(), iter(range(1, 1000))

    def changing(*words: object, **more: bool) -> Scan:
        found = scan(*words, **more)
        return replace(found, holders=tuple(replace(one, start=next(starts)) for one in found.holders))

    kill = house.kernel.kill
    monkeypatch.setattr(house.kernel, "scan", changing)
    monkeypatch.setattr(house.kernel, "kill", lambda *words: (killed.set(), kill(*words))[1])
    freeze(NOW + HOUR + timedelta(seconds=20))
    house.run()
    assert killed.is_set()
    assert house.allocation(booking).detached_at is not None


def test_a_look_over_the_whole_host_is_put_off_where_a_gpu_is_due(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evictor, "SWEEP_EVERY", 0.2)
    make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    freeze(NOW + HOUR - timedelta(seconds=1))
    house.hands.evictor.swept = 0.0
    house.run()
    late = house.lxd.calls().count("scan")
    assert late == 1, "it was long due"
    monkeypatch.setattr(evictor, "SWEEP_EVERY", 60.0)
    house.hands.evictor.swept -= 61.0
    house.run()
    assert house.lxd.calls().count("scan") == late
    freeze(NOW + timedelta(minutes=30))
    house.run()
    assert house.lxd.calls().count("scan") == late + 1
