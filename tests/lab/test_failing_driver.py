"""An eviction on a real LXD and kernel, whose driver fails at its first call, its second …: it ends as one that went
well, every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import clock
from app.drivers.base import DriverError, GiveUp, HostUnreachable, Node, TryAgain
from app.drivers.holders.host import HostKernel
from app.drivers.lxd import PylxdDriver
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, User
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_user
from tests.lab.grips import grips
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.lab.scene import AS_BERTH_DOES, SLEEPING
from tests.runtime.running import wait_for
from tests.workers.test_reconciler import audited
from workers import evictor
from workers.evictor import Evictor
from workers.handover import Hands
from workers.reconciler import run_pass

pytestmark = [pytest.mark.lab, pytest.mark.holds]

HOUR = timedelta(hours=1)
KINDS = (
    DriverError("kernel", "gone"), GiveUp("any", "thing"), HostUnreachable("LXD", "away"), TryAgain("any", "busy"),
)  # fmt: skip
FEWEST, MOST = 5, 60  # calls that an eviction makes
DEAF = "exec > /dev/null 2>&1 < /dev/null; trap '' TERM; exec 3< {}; while :; do sleep 0.2; done"
Freeze = Callable[[datetime], None]


class Failing:
    """The driver, one of whose calls fails."""

    def __init__(self, driver: PylxdDriver) -> None:
        self._driver, self.left, self.failed, self.error = driver, 0, "", KINDS[0]

    def fail_at(self, call: int) -> None:
        self.left, self.failed, self.error = call, "", KINDS[call % len(KINDS)]

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.failed = name
                raise self.error
            return getattr(self._driver, name)(*arguments, **named)

        return call


class House:
    """A host with one GPU and two people, whose passes are made by hand."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.driver = lab, Failing(connect(lab))
        self.kernel = HostKernel(connect(lab).devices_dir)
        self.hands = Hands(Evictor(self.driver, self.kernel))
        self.host = make_host("lab", gpus=0, endpoint=str(lab.socket))
        (info,) = lab.gpus
        self.numbers = info.numbers
        db.session.add(
            Gpu(host_id=self.host.id, model=info.model, minor=info.minor, pci_address=info.pci_address, uuid="")
        )
        db.session.flush()
        self.people = [self._person() for _ in range(2)]

    def _person(self) -> User:
        name = self.lab.launch("", *AS_BERTH_DOES, *SLEEPING)
        person = make_user(name)
        make_instance(person, self.host, name)
        return person

    def book(self, person: User, start: datetime) -> Booking:
        return make_booking(person, gpus_of(self.host), start, start + HOUR)

    def run(self) -> None:
        db.session.commit()
        db.session.remove()
        run_pass("lab", self.driver, self.hands)

    def until(self, so: Callable[[], bool], what: str) -> None:
        """Pass after pass."""

        def asked() -> bool:
            self.run()
            return so()

        wait_for(asked, 60, what)

    def have(self) -> set[str]:
        """In which machines the node is."""
        seen = connect(self.lab).observe().instances
        return {name for name, one in seen.items() if any(d.node == Node.PRESENT for d in one.devices)}

    def written(self, booking: Booking) -> Allocation:
        query = db.select(Allocation).where(Allocation.booking_id == booking.id)
        return db.session.scalars(query.execution_options(populate_existing=True)).one()


@pytest.fixture(params=[False, True], ids=["in-sight", "snap"])
def house(
    lab_directory: Path, request: pytest.FixtureRequest, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """LXD's device directory is in sight, or hidden as in LXD from a snap. Every pass is a look too."""
    monkeypatch.setattr(evictor, "SWEEP_EVERY", 0.0)
    with Lab(lab_directory / f"failing-{request.param}", gpus=1, readable=True, snap=request.param) as lab:
        made = House(lab)
        yield made
        made.hands.close()
        made.kernel.close()


def test_whichever_call_fails(house: House, freeze: Freeze) -> None:
    first, second = (person.username for person in house.people)
    calm = house.lab.run(first, "sh", "-c", "sleep 9999 > /dev/null 2>&1 & echo $!").strip()
    start, failed = clock.now().replace(microsecond=0), []
    for call in range(1, MOST):
        ending, following = house.book(house.people[0], start), house.book(house.people[1], start + HOUR)
        freeze(start)
        house.until(lambda one=ending: house.written(one).attached_at is not None, "the first has it")
        assert house.have() == {first}
        node = f"/dev/dri/card{house.lab.minors[0]}"
        house.lab.run(first, "setsid", "-f", "sh", "-c", DEAF.format(node))
        wait_for(lambda: grips(house.numbers, [first]) != set(), why="it is held")
        before = [audited(action) for action in ("gpu.attached", "gpu.detached", "booking.settled")]
        freeze(start + HOUR)
        house.driver.fail_at(call)
        house.until(lambda booking=following: house.written(booking).attached_at is not None, f"the end after {call}")
        assert house.have() == {second}, house.driver.failed
        assert grips(house.numbers, [first]) == set(), house.driver.failed
        assert house.lab.run(first, "kill", "-0", calm) == "", house.driver.failed
        assert house.written(ending).detached_at is not None
        assert db.session.scalars(db.select(Gpu.state)).all() == [GpuState.IN_SERVICE]
        after = [audited(action) for action in ("gpu.attached", "gpu.detached", "booking.settled")]
        assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1], house.driver.failed
        start += 3 * HOUR
        house.driver.left = 0
        freeze(start - HOUR)
        house.until(lambda: house.have() == set(), "nobody has it")
        if not house.driver.failed:
            break
        failed.append(house.driver.failed)
    print(f"\n  calls that failed, one at a time: {' '.join(failed)}")
    assert FEWEST <= len(failed) < MOST
    assert {"observe", "detach", "attach"} <= set(failed)
