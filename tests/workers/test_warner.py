"""The warner over a simulated host: who is told what, once, and that trouble with one machine is nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask, has_app_context
from sqlalchemy.exc import OperationalError

from app.drivers.base import NVIDIA_MAJOR, GiveUp, HostUnreachable, Tag, TryAgain
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, Idling, User
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_user
from workers import warner as warners
from workers.warner import Warner

NOW = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)
END = NOW + timedelta(hours=1)
MINUTE = timedelta(minutes=1)

Freeze = Callable[[datetime], None]


class House(SimpleNamespace):
    """A host with four simulated GPUs, Alice's and Bob's machines on it, and its warner."""

    lxd: FakeLxd
    kernel: FakeKernel
    host: Host
    gpus: list[Gpu]
    alice: User
    bob: User
    warner: Warner

    def book(self, user: User, gpu: Gpu, end: datetime = END, *, plugged: bool = True) -> Booking:
        booking = make_booking(user, [gpu], NOW - 2 * MINUTE, end)
        if plugged:
            tag = Tag(booking.id, self.allocation(booking).id, int(end.timestamp()))
            info = next(item for item in self.lxd.gpus() if item.pci_address == gpu.pci_address)
            self.lxd.attach(user.username, info, tag)
        return booking

    def step(self) -> int:
        db.session.commit()
        db.session.remove()
        return self.warner.step()

    def told(self) -> list[str]:
        return [instance for instance, _title, _text in self.lxd.told()]

    def allocation(self, booking: Booking) -> Allocation:
        return db.session.scalars(
            db.select(Allocation).where(Allocation.booking_id == booking.id).execution_options(populate_existing=True)
        ).one()


@pytest.fixture
def house(app: Flask, tmp_path: Path, freeze: Freeze) -> House:
    freeze(NOW)
    path = tmp_path / "lab.json"
    lxd, kernel = FakeLxd(path, pace=0), FakeKernel(path, pace=0)
    host = make_host("lab")
    alice, bob = make_user("alice"), make_user("bob")
    for person in (alice, bob):
        make_instance(person, host, person.username)
        lxd.add_instance(person.username, owner=person.username)
    return House(
        lxd=lxd, kernel=kernel, host=host, gpus=gpus_of(host), alice=alice, bob=bob,
        warner=Warner(app, host.name, lxd, kernel),
    )  # fmt: skip


def test_a_machine_whose_gpus_do_nothing_is_told_once(house: House) -> None:
    house.alice.locale, house.alice.timezone = "zh_Hans_CN", "UTC"
    booking = house.book(house.alice, house.gpus[0])
    for one, trial in ((booking, False), (house.book(house.bob, house.gpus[1]), True)):
        due = {"since": NOW - MINUTE, "told_at": NOW, "due_at": NOW + 15 * MINUTE, "held": False}
        db.session.add(Idling(booking_id=one.id, trial=trial, **due))
    db.session.commit()
    assert (house.warner.tell_idle(), house.warner.tell_idle()) == (1, 0)
    [(instance, title, text)] = house.lxd.told()
    words = "Your 1 GPU did nothing since 13:59 UTC; at 14:15 UTC the rest of the time is given back."
    assert (instance, title) == ("alice", words)
    assert f"open booking {booking.id} in Berth." in text
    assert "剩余时间将于 14:15 UTC 收回" in text


def test_three_warnings_each_once(house: House, freeze: Freeze) -> None:
    booking = house.book(house.alice, house.gpus[0])
    for before, told in ((16, 0), (15, 1), (14, 1), (5, 2), (1, 3), (0.5, 3), (-1, 3)):
        freeze(END - before * MINUTE)
        house.step()
        house.step()
        assert house.told() == ["alice"] * told, before
    assert house.allocation(booking).warned == 1
    _instance, title, text = house.lxd.told()[0]
    assert title.startswith("Your 1 GPU on lab goes at ")
    assert f"booking {booking.id}" in text


def test_a_restart_repeats_nothing(app: Flask, house: House, freeze: Freeze) -> None:
    house.book(house.alice, house.gpus[0])
    freeze(END - 5 * MINUTE)
    assert house.step() == 1
    again = Warner(app, house.host.name, house.lxd, house.kernel)
    assert again.step() == 0
    assert house.told() == ["alice"]


def test_what_holds_the_gpu_is_named_and_kept(house: House, freeze: Freeze) -> None:
    ending, lasting = house.book(house.alice, house.gpus[0]), house.book(house.alice, house.gpus[1], END + 60 * MINUTE)
    both = house.kernel.add_process("alice", (NVIDIA_MAJOR, 0), (NVIDIA_MAJOR, 1))
    one = house.kernel.add_process("alice", (NVIDIA_MAJOR, 0))
    house.kernel.add_process("alice", (NVIDIA_MAJOR, 1))
    house.kernel.add_process("bob", (NVIDIA_MAJOR, 2))
    freeze(END - 5 * MINUTE)
    house.step()
    assert house.allocation(ending).holders == [
        {"pid": both, "name": "train", "also": [lasting.id]}, {"pid": one, "name": "train", "also": []},
    ]  # fmt: skip
    assert house.allocation(lasting).holders == []
    assert f"booking {lasting.id}, which goes on until" in house.lxd.told()[0][2]


def test_no_machine_no_message(house: House, freeze: Freeze) -> None:
    booking = house.book(house.alice, house.gpus[0], plugged=False)
    freeze(END - 5 * MINUTE)
    assert house.step() == 1
    assert house.told() == []
    assert house.allocation(booking).warned == 5


def test_a_stopped_machine_is_not_told(house: House, freeze: Freeze) -> None:
    house.book(house.alice, house.gpus[0])
    house.lxd.stop("alice")
    freeze(END - 5 * MINUTE)
    house.step()
    assert "tell" not in house.lxd.calls()


def test_one_that_cannot_be_told_keeps_no_other_waiting(house: House, freeze: Freeze) -> None:
    house.book(house.alice, house.gpus[0])
    house.book(house.bob, house.gpus[1])
    house.lxd.fail_next("tell", TryAgain("Tell alice", "timed out"))
    freeze(END - 5 * MINUTE)
    assert house.step() == 2
    assert len(house.told()) == 1
    freeze(END - MINUTE)
    assert house.step() == 2
    assert len(house.told()) == 3


def test_a_host_that_is_away_is_asked_again(house: House, freeze: Freeze) -> None:
    booking = house.book(house.alice, house.gpus[0])
    house.lxd.unreachable()
    freeze(END - 5 * MINUTE)
    with pytest.raises(HostUnreachable):
        house.step()
    assert house.allocation(booking).warned is None
    house.lxd.unreachable(False)
    assert house.step() == 1
    assert house.told() == ["alice"]


def test_without_the_kernels_word_no_program_is_named(house: House, freeze: Freeze) -> None:
    house.book(house.alice, house.gpus[0])
    house.kernel.add_process("alice", (NVIDIA_MAJOR, 0))
    house.kernel.fail_next("scan", GiveUp("Scan", "no root"))
    freeze(END - 5 * MINUTE)
    assert house.step() == 1
    assert "train" not in house.lxd.told()[0][2]


def test_a_crash_before_it_is_told_costs_that_one(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.book(house.alice, house.gpus[0])
    with monkeypatch.context() as patch:
        patch.setattr(Warner, "_tell", lambda *_: (_ for _ in ()).throw(SystemExit("killed")))
        freeze(END - 5 * MINUTE)
        with pytest.raises(SystemExit):
            house.step()
    assert house.step() == 0
    freeze(END - MINUTE)
    assert house.step() == 1
    assert house.told() == ["alice"]


def test_no_transaction_is_open_while_anybody_outside_is_asked(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.book(house.alice, house.gpus[0])
    open_ones: list[bool] = []
    for target, name in ((house.lxd, "observe"), (house.lxd, "tell"), (house.kernel, "scan")):
        real = getattr(target, name)

        def watched(*given, real=real, **named):
            open_ones.append(has_app_context() and db.session().in_transaction())  # without one, no session
            return real(*given, **named)

        monkeypatch.setattr(target, name, watched)
    freeze(END - 5 * MINUTE)
    house.step()
    assert open_ones == [False, False, False]


def test_it_goes_on_whatever_goes_wrong(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, errors = threading.Event(), [OperationalError("x", {}, Exception()), HostUnreachable("x"), ValueError(), None]

    def step() -> int:
        if (error := errors.pop(0)) is not None:
            raise error
        stop.set()
        return 0

    monkeypatch.setattr(warners, "EVERY", 0.001)
    monkeypatch.setattr(house.warner, "step", step)
    house.warner.run(stop)
    assert errors == []
