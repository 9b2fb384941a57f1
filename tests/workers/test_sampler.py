"""What GPUs do is read, and is somebody's: with readings late, another machine in their place, NVML hanging."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask

from app.drivers.base import HostUnreachable
from app.drivers.gauges import Gauge
from app.drivers.kernel import Process
from app.extensions import db
from app.models import AuditEvent, GpuNow, News, UsageMinute
from tests.drivers.nvml_stub import DRIVER_NOT_LOADED, HANGS, LOST, Stub, whole
from tests.drivers.nvml_stub import Process as Said
from tests.factories import make_admin, make_booking
from tests.runtime.running import wait_for
from tests.workers.house import NOW, House
from tests.workers.measuring import HOUR, Freeze, Kernel, booked, cards, deliver, minutes, steps
from workers.delivery import Delivery
from workers.evictor import Evictor
from workers.handover import Hands
from workers.locks import exclusive
from workers.sampler import LOOK, Sampler


def test_each_gpu_is_read_and_all_of_its_time_is_somebodys(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze
) -> None:
    booking = booked(house)
    steps(sampler, house, freeze, NOW, 1 + 120 // 2)
    Delivery(app, "lab", sampler).step()
    first, *others = [gpu.id for gpu in house.gpus]
    found = minutes()
    assert found == {(first, NOW + timedelta(minutes=n), booking.id, "alice"): 60_000 for n in range(2)} | {
        (gpu, NOW + timedelta(minutes=n), 0, ""): 60_000 for gpu in others for n in range(2)
    }
    busy = minutes(UsageMinute.busy_ms)
    assert sum(value for key, value in busy.items() if key[2]) > 30_000
    assert {value for key, value in busy.items() if not key[2]} == {0}
    shown = {now.gpu_id: now for now in db.session.scalars(sa.select(GpuNow))}
    assert shown.keys() == {first, *others}
    assert shown[first].seen_at == NOW + timedelta(seconds=120)
    assert shown[first].values["utilisation"] > 0
    (process,) = shown[first].processes
    assert (process["instance"], process["booking"], process["name"]) == ("alice", booking.id, "python")


def test_while_lxd_was_never_heard_the_calendar_says_whose_it_is(app: Flask, house: House, freeze: Freeze) -> None:
    booking = booked(house)
    hands = Hands(Evictor(house.lxd, house.kernel))  # the agent was restarted
    sampler = Sampler(app.extensions["berth"], "lab", hands.evictor)
    steps(sampler, house, freeze, NOW, 3)
    assert sampler.now == {}, "nobody knew anything"
    house.hands, before = hands, house.hands
    house.lxd.fail_next("observe", HostUnreachable("Connect to LXD", "refused"))
    assert not house.run().ok
    steps(sampler, house, freeze, NOW, 1 + 60 // 2)
    deliver(app, house, sampler)
    first = house.gpus[0].id
    assert {key[2:]: value for key, value in minutes().items() if key[0] == first} == {(booking.id, "alice"): 60_000}
    before.close()


def test_a_minute_has_sixty_seconds_however_late_readings_come(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run()
    real, passed, chance = house.kernel.gauges.read, 0.0, random.Random(5)
    monkeypatch.setattr("workers.sampler.time", SimpleNamespace(monotonic=lambda: passed))

    def late(addresses: Collection[str], *, processes: bool) -> tuple[Gauge, ...]:
        moment = passed + chance.uniform(0, 0.02)
        return tuple(replace(one, moment=moment) for one in real(addresses, processes=processes))

    kernel = SimpleNamespace(gauges=SimpleNamespace(read=late), whose=house.kernel.whose)
    while passed < 240:
        sampler.step(kernel, NOW + timedelta(seconds=passed + chance.uniform(-0.004, 0.004)))  # type: ignore[arg-type]
        passed += chance.uniform(1.5, 3.0)
    deliver(app, house, sampler)
    found = minutes()
    for number in (1, 2):
        assert [value for key, value in found.items() if key[1] == NOW + timedelta(minutes=number)] == [60_000] * 4


def test_what_is_out_of_service_is_let_go_of(house: House, sampler: Sampler, freeze: Freeze) -> None:
    booked(house)
    steps(sampler, house, freeze, NOW, 4)
    away = house.gpus[3].pci_address
    assert away in sampler.now
    last = house.hands.evictor.last
    assert last
    house.hands.evictor.last = replace(last, guarded=frozenset(gpu.pci_address for gpu in house.gpus[:3]))
    sampler.step(house.kernel, NOW + timedelta(seconds=8), 2.0)
    assert away not in sampler.now
    kept = [part for path in sampler.journal.seal() for part in sampler.journal.read(path)]
    assert sum(part.sampled_ms for part in kept if part.pci_address == away) == 6_000, "what was read is not lost"


def test_who_comes_next_has_nothing_of_what_was_before(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze
) -> None:
    first = booked(house)
    second = make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    before = NOW + HOUR - timedelta(seconds=6)
    steps(sampler, house, freeze, before, 4)
    freeze(NOW + HOUR)
    house.run()
    house.run()
    for seconds in (2, 4):
        sampler.step(house.kernel, NOW + HOUR + timedelta(seconds=seconds), 2.0)
    sampler._count = 0
    sampler.step(house.kernel, NOW + HOUR + timedelta(seconds=6), 2.0)
    deliver(app, house, sampler)
    found: dict[int, int] = {}
    for (gpu, _minute, booking, _instance), value in minutes().items():
        if gpu == house.gpus[0].id:
            found[booking] = found.get(booking, 0) + value
    assert found == {first.id: 6_000, second.id: 6_000}


def test_who_runs_on_in_the_grace_is_no_stray(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze, kernel: Kernel, stub: Stub
) -> None:
    booking, delivery = booked(house), Delivery(app, "lab", sampler)
    one, *rest = cards(house)
    stub.say(replace(one, compute=[4711]), *rest)
    kernel.people = {4711: Process(1, "alice", "python")}
    house.kernel.add_process("alice", (195, 0), stubborn=True, pid=4711)
    shown = {}
    for seconds in (-4, 4, 16, 26):  # of which the rules give 20 after the end
        freeze(NOW + HOUR + timedelta(seconds=seconds))
        if seconds < 20:
            house.run()
        sampler._count = 0
        sampler.step(kernel, NOW + HOUR + timedelta(seconds=seconds), 2.0)  # type: ignore[arg-type]
        delivery.step()
        shown[seconds] = [row["booking"] for row in db.session.get_one(GpuNow, house.gpus[0].id).processes]
        db.session.expire_all()
    assert shown == {-4: [booking.id], 4: [booking.id], 16: [booking.id], 26: [0]}


def test_only_one_agent_of_a_host_reads(app: Flask, house: House, sampler: Sampler) -> None:
    house.run()
    stop = threading.Event()
    sampler.every = 0.02
    with exclusive(app.extensions["berth"].run_dir / "sampler-lab.lock"):
        thread = threading.Thread(target=sampler.run, args=(stop,))
        thread.start()
        wait_for(lambda: not sampler.reads, why="it is told that another one does")
        delivery = Delivery(app, "lab", sampler)
        before = delivery._delivered
        delivery.step()
        assert delivery._delivered == before, "the journal is the other one's"
        assert sampler.now == {}
        stop.set()
        thread.join(30)
    stop.clear()
    thread = threading.Thread(target=sampler.run, args=(stop,))
    thread.start()
    wait_for(lambda: sampler._count > 7, why="it reads")
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    kept = [part for path in sampler.journal.seal() for part in sampler.journal.read(path)]
    assert sum(part.sampled_ms for part in kept) > 4 * 5 * 20, "what was read last is written at the end"


def test_a_host_that_is_another_machine_is_not_read(app: Flask, house: House, sampler: Sampler) -> None:
    house.hands.evictor.kernel = None
    stop = threading.Event()
    thread = threading.Thread(target=sampler.run, args=(stop,))
    thread.start()
    Delivery(app, "lab", sampler).step()
    assert thread.is_alive(), "an agent takes a thread that ended for a fault"
    stop.set()
    thread.join(30)
    assert sampler.now == {}


# With the real pynvml, over a library that says what a test wants


def test_busy_time_is_whose_processes_it_was(
    app: Flask,
    house: House,
    sampler: Sampler,
    freeze: Freeze,
    stub: Stub,
    kernel: Kernel,
) -> None:
    booking = booked(house)
    one, *rest = cards(house)
    known = {11: Said(900, share=40), 12: Said(100, share=20), 13: Said(50, share=20)}
    stub.say(whole(one.minor, 80, compute=[11, 12], graphics=[13], known=known), *rest)
    kernel.people = {11: Process(1, "alice", "train"), 12: Process(1, "bob", "a.out"), 13: Process(1, "", "Xorg")}
    house.hands.evictor.asked[12, 1] = NOW
    steps(sampler, house, freeze, NOW, 1 + LOOK, kernel)
    deliver(app, house, sampler)
    first = house.gpus[0].id
    assert {key[2:]: value for key, value in minutes(UsageMinute.busy_ms).items() if key[0] == first} == {
        (booking.id, "alice"): 4_000, (0, "bob"): 2_000, (0, ""): 2_000,
    }  # fmt: skip
    assert sum(value for key, value in minutes().items() if key[0] == first) == 10_000
    assert [(row["pid"], row["booking"], row["memory"]) for row in sampler.now[one.pci_address].processes] == [
        (11, booking.id, 900), (12, 0, 100), (13, 0, 50),
    ]  # fmt: skip


def test_who_ran_between_two_looks_beside_the_hosts_desktop_was_the_machines(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze, stub: Stub, kernel: Kernel
) -> None:
    booking = booked(house)
    one, *rest = cards(house)
    stub.say(whole(one.minor, 40, graphics=[13], known={11: Said(0, share=40), 13: Said(50)}), *rest)
    kernel.people = {13: Process(1, "", "Xorg")}
    steps(sampler, house, freeze, NOW, 1 + LOOK, kernel)
    deliver(app, house, sampler)
    busy = {key[2:]: value for key, value in minutes(UsageMinute.busy_ms).items() if key[0] == house.gpus[0].id}
    assert {key: value for key, value in busy.items() if value} == {(booking.id, "alice"): 4_000}
    peaks = {key[2:]: value for key, value in minutes(UsageMinute.memory_mib).items() if key[0] == house.gpus[0].id}
    assert peaks == {(booking.id, "alice"): 0, (0, ""): 50}, "how much it held is not known"


def test_nvml_that_hangs_holds_nobody_up_and_its_time_is_not_known(
    house: House,
    sampler: Sampler,
    freeze: Freeze,
    stub: Stub,
    kernel: Kernel,
) -> None:
    booked(house)
    one, two, *rest = cards(house)
    stub.say(one, whole(two.minor, error=LOST), *rest)
    steps(sampler, house, freeze, NOW, 2, kernel)
    assert sampler.now[two.pci_address].trouble
    kernel.gauges.patience = 1.0
    stub.say(whole(one.minor, errors={"power": HANGS}), two, *rest)
    began = time.monotonic()
    steps(sampler, house, freeze, NOW + timedelta(seconds=4), 8, kernel)
    assert time.monotonic() - began < 6, "it was waited for once, not eight times"
    assert {now.trouble for now in sampler.now.values()} == {"NVML says nothing: no answer, or not in time"}
    sampler._write([part for pci in list(sampler._periods) for part in sampler._close(pci, [], None)])
    kept = [part for path in sampler.journal.seal() for part in sampler.journal.read(path)]
    assert {part.pci_address for part in kept if part.sampled_ms} == {gpu.pci_address for gpu in (one, *rest)}
    assert {part.sampled_ms for part in kept} == {2_000}


def test_one_that_does_not_answer_is_told_of_once_each_time(
    app: Flask, house: House, sampler: Sampler, stub: Stub, kernel: Kernel
) -> None:
    make_admin()
    house.run()
    one, *rest = cards(house)
    delivery = Delivery(app, "lab", sampler)

    def on_record(seconds: int) -> list[str]:
        sampler.step(kernel, NOW + timedelta(seconds=seconds), 2.0)  # type: ignore[arg-type]
        delivery.step()
        query = sa.select(AuditEvent).where(AuditEvent.action == "gpu.unreadable").order_by(AuditEvent.id)
        return [event.details["pci_address"] for event in db.session.scalars(query)]

    stub.say(whole(one.minor, error=LOST), *rest)
    assert [on_record(seconds) for seconds in (0, 58)] == [[], []], "it may be reset just now"
    assert [on_record(seconds) for seconds in (60, 90)] == [[one.pci_address]] * 2
    assert db.session.scalar(sa.select(sa.func.count()).select_from(News)) == 1
    stub.say(one, *rest)
    on_record(100)
    stub.say(init=DRIVER_NOT_LOADED)
    assert len([on_record(seconds) for seconds in (110, 200)][-1]) == 1, "of no GPU's own"
    kernel.gauges._silent_until = 0.0
    stub.say(whole(one.minor, error=LOST), *rest)
    assert [len(on_record(seconds)) for seconds in (210, 300)] == [1, 2]
