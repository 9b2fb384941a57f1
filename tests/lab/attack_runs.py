"""The attacks carried out, on LXD alone and on Berth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from app.drivers.base import Tag, device_name
from app.drivers.lxd import PylxdDriver
from app.extensions import db
from app.models import Allocation, Gpu, GpuState
from tests.lab.attack import Attack, Outcome, Scenario, at_once, in_batches
from tests.lab.grips import HOST, grips
from tests.lab.lab import Lab
from tests.lab.scene import SLEEPING, Scene, second_from_now
from tests.runtime.running import wait_for

Outcomes = dict[str, Outcome]
LEADS = (3.0, 12.0, 40.0)  # seconds from writing the ends down to the end; the more if those are not enough
LONG = 3600  # seconds of a booking that is not to end by itself
HERE = 90.0  # seconds within which booked GPUs are there
GONE = 45.0  # seconds after the end within which Berth has proven that a GPU is free, or given up


def arenas(host: Lab, attacks: Sequence[Attack], launch: Callable[[tuple[str, ...]], str]) -> Iterator[list[Scenario]]:
    """Batch after batch of attacks, each in a machine of its own (or two). Further machines are started meanwhile, and
    what has been looked at is removed."""

    def make(batch: list[tuple[int, Attack]]) -> list[Scenario]:
        return [_scenario(host, number, attack, launch) for number, attack in batch]

    with ThreadPoolExecutor(1) as before, ThreadPoolExecutor(2) as after:
        try:
            for arena in before.map(make, in_batches(attacks)):
                yield arena
                for name in (name for scenario in arena for name in scenario.machines):
                    after.submit(host.remove, name)
        finally:
            before.shutdown(cancel_futures=True)


def _scenario(host: Lab, number: int, attack: Attack, launch: Callable[[tuple[str, ...]], str]) -> Scenario:
    machine = launch(() if attack.systemd else SLEEPING)
    receiver = launch(SLEEPING) if attack.receiver else ""
    return Scenario(attack, host, machine, receiver, (2 * number, 2 * number + 1))


def on_plain_lxd(host: Lab, attacks: Sequence[Attack]) -> Outcomes:
    """GPUs come through the driver, and are taken away with `lxc config device remove`."""
    driver, outcomes = PylxdDriver(str(host.socket)), Outcomes()
    for arena in arenas(host, attacks, lambda options: host.launch("", *options)):

        def carry_out(scenario: Scenario) -> None:
            for gpu in scenario.gpus:
                driver.attach(scenario.machine, host.gpus[gpu], Tag(1, 1, 1))
            trouble = scenario.arm()
            device = device_name(host.gpus[scenario.ending].pci_address)
            said = host.lxc("config", "device", "remove", scenario.machine, device, check=False)
            held = grips(scenario.numbers, scenario.machines)
            found = scenario.probe()
            trouble = trouble or found.trouble
            outcomes[scenario.attack.name] = replace(found, grips=held, said=said.strip(), trouble=trouble)

        at_once(carry_out, arena)
    return outcomes


def on_berth(scene: Scene, host: Lab, attacks: Sequence[Attack]) -> Outcomes:
    """GPUs are booked. In a batch the bookings of those that end, end at the same second."""
    outcomes = Outcomes()
    for arena in arenas(host, attacks, lambda options: scene.people(host, 1, options)[0]):
        before = grips(arena[0].numbers, ())
        begin = second_from_now(0)
        booked = {  # by GPU; the booking's number
            gpu: scene.book(scenario.machine, host, gpu, begin, begin + LONG)
            for scenario in arena
            for gpu in scenario.gpus
        }
        scene.wake(host)
        try:
            wait_for(lambda booked=booked: _attached(scene, list(booked.values())), HERE, "all GPUs are there")
        except AssertionError as error:
            outcomes |= {scenario.attack.name: Outcome({}, {}, trouble=str(error)) for scenario in arena}
            continue
        troubles = dict(zip(arena, at_once(Scenario.arm, arena), strict=True))
        ending = {scenario: booked[scenario.ending] for scenario in arena}
        due = _end(scene, host, ending)
        ends = _over(scene, {booking: scenario.attack.stuck for scenario, booking in ending.items()}, due)
        held = grips(arena[0].numbers, [name for scenario in arena for name in scenario.machines]) - before
        found = dict(zip(arena, at_once(Scenario.probe, arena), strict=True))
        for scenario, booking in ending.items():
            outcomes[scenario.attack.name] = replace(
                found[scenario],
                grips={grip for grip in held if grip.partition(":")[0] in {*scenario.machines, HOST}},
                records=ends[booking].records,
                why=ends[booking].why,
                seconds=ends[booking].seconds,
                trouble=troubles[scenario] or found[scenario].trouble,
            )
    return outcomes


def _attached(scene: Scene, bookings: list[int]) -> bool:
    query = db.select(db.func.count()).where(Allocation.booking_id.in_(bookings), Allocation.attached_at.is_not(None))
    return scene.ask(lambda: db.session.scalar(query)) == len(bookings)


def _end(scene: Scene, host: Lab, ending: dict[Scenario, int]) -> int:
    """Have these bookings end at one second, soon, which is returned."""
    due = scene.end([(scenario.machine, booking) for scenario, booking in ending.items()], LEADS)
    scene.wake(host)
    return due


@dataclass
class _End:
    """How Berth was done with a GPU, after how many seconds. `why`: it is in quarantine, or was."""

    records: set[str] = field(default_factory=set)
    why: str = ""
    seconds: float = GONE


def _over(scene: Scene, bookings: dict[int, bool], due: float) -> dict[int, _End]:
    """By booking, its end; `bookings`: whether it is the quarantine. Before anything is probed: what is fetched from
    where it was kept, Berth can end. A GPU at which a busy host gets nowhere is in quarantine until it does."""
    ends = {booking: _End() for booking in bookings}
    left = set(bookings)
    while left and time.time() < due + GONE:
        for booking in list(left):
            end = ends[booking]
            end.records, why = _records(scene, booking)
            end.why = why or end.why
            if end.records == {"quarantine" if bookings[booking] else "detached"}:
                end.seconds = time.time() - due
                left.remove(booking)
        time.sleep(0.05)
    return ends


def _records(scene: Scene, booking: int) -> tuple[set[str], str]:
    """What Berth wrote down: that the booking's GPU is `detached`, that it is in `quarantine`, and why."""
    query = db.select(Allocation.detached_at, Gpu.state, Gpu.quarantine_reason).join(Gpu, Gpu.id == Allocation.gpu_id)
    row: Any = scene.ask(lambda: db.session.execute(query.where(Allocation.booking_id == booking)).one())
    facts = {"detached": row.detached_at is not None, "quarantine": row.state == GpuState.QUARANTINE}
    return {name for name, so in facts.items() if so}, row.quarantine_reason
