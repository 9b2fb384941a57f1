"""Use of a GPU without a booking is told of, once."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask

from app.drivers.kernel import Process
from app.extensions import db
from app.models import AuditEvent, News
from app.services import live_seen
from tests.drivers.nvml_stub import Stub, whole
from tests.factories import make_admin
from tests.workers.house import NOW, House
from tests.workers.measuring import Kernel, booked, cards
from workers.delivery import Delivery
from workers.evictor import SWEEP_EVERY
from workers.sampler import Sampler


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that the finding goes by."""
    made = SimpleNamespace(now=time.monotonic())
    monkeypatch.setattr("workers.unbooked.time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def found_unbooked(app: Flask, sampler: Sampler) -> list[tuple[str, int]]:
    delivery = Delivery(app, "lab", sampler)
    delivery._delivered = time.monotonic()
    delivery.step()
    query = sa.select(AuditEvent).where(AuditEvent.action == "gpu.used_unbooked").order_by(AuditEvent.id)
    return [(event.details["instance"], event.details["process"]) for event in db.session.scalars(query)]


def test_use_without_a_booking_is_told_of_once_within_15_s(
    app: Flask,
    house: House,
    sampler: Sampler,
    stub: Stub,
    kernel: Kernel,
    watch: SimpleNamespace,
) -> None:
    make_admin()
    booked(house)
    one, *rest = cards(house)
    kernel.people = {pid: Process(pid, instance, "train") for pid, instance in ((21, "bob"), (22, "bob"), (30, ""))}
    kernel.people[11], kernel.people[31] = Process(1, "alice", "train"), Process(2, "", "Xorg")
    stub.say(whole(one.minor, compute=[11, 30], graphics=[31]), whole(rest[0].minor, compute=[21, 22]), *rest[1:])
    house.hands.evictor.swept = watch.now - 1  # the guard has looked, before there was anything

    def seconds(number: int) -> None:
        for _ in range(number // 2):
            watch.now += 2
            sampler.step(kernel, NOW, 2.0)  # type: ignore[arg-type]

    seconds(2)
    assert found_unbooked(app, sampler) == [("", 30)], "of the host's own, what computes"
    there = live_seen.gpus()[0]
    assert there.strays == 1, "and so it is shown"
    assert house.hands.evictor.swept <= watch.now - SWEEP_EVERY, "the guard is to look at once"
    seconds(4)
    assert found_unbooked(app, sampler) == [("", 30), ("bob", 21)], "the guard does not have it in hand"
    seconds(60)
    assert len(found_unbooked(app, sampler)) == 2
    assert sampler.unbooked.news() == []
    assert db.session.scalar(sa.select(sa.func.count()).select_from(News)) == 2
    del kernel.people[21], kernel.people[22]
    seconds(20)
    kernel.people[22] = Process(99, "bob", "train")
    seconds(16)
    assert found_unbooked(app, sampler)[2:] == [("bob", 22)], "another time"


def test_what_the_guard_ends_is_not_told_of_twice(
    app: Flask,
    house: House,
    sampler: Sampler,
    stub: Stub,
    kernel: Kernel,
    watch: SimpleNamespace,
) -> None:
    booked(house)
    stub.say(*cards(house)[:3], whole(house.gpus[3].minor + 1, compute=[21]))
    kernel.people = {21: Process(1, "bob", "train")}
    sampler.step(kernel, NOW, 0.0)  # type: ignore[arg-type]
    house.hands.evictor.swept, watch.now = watch.now + 0.1, watch.now + 2
    house.hands.evictor.asked[21, 1] = NOW
    for _ in range(20):
        watch.now += 2
        sampler.step(kernel, NOW, 2.0)  # type: ignore[arg-type]
    assert found_unbooked(app, sampler) == []
