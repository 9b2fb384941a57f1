"""Logs that admins ask for: read by the agent, whatever LXD says to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from flask import Flask

from app import clock
from app.drivers.base import TryAgain
from app.extensions import db
from app.models import Readable, Reading
from app.services import readings
from tests.factories import make_admin
from tests.workers.house import House
from workers.reader import Reader


@pytest.fixture
def reader(app: Flask, house: House) -> Reader:
    db.session.commit()
    return Reader(app, "lab", house.lxd)


def ask(house: House, instance: str, what: Readable = Readable.LOG) -> None:
    readings.ask(make_admin(), house.host, instance, what)
    db.session.commit()


def answers(house: House, instance: str) -> list[tuple[str, str]]:
    db.session.expire_all()
    return [(one.text, one.error) for one in readings.of_instance(house.host, instance) if one.answered_at]


def test_what_is_asked_is_read_once(house: House, reader: Reader) -> None:
    house.lxd.write_logs("alice", log="lxc alice started\0 \x1b[31mred", console="login:")
    ask(house, "alice")
    ask(house, "alice", Readable.CONSOLE)
    assert answers(house, "alice") == []
    assert reader.step() == 2
    assert set(answers(house, "alice")) == {("lxc alice started red", ""), ("login:", "")}
    assert reader.step() == 0


def test_asked_again_it_is_read_again(house: House, reader: Reader) -> None:
    ask(house, "alice")
    reader.step()
    house.lxd.write_logs("alice", log="newer")
    ask(house, "alice")
    assert answers(house, "alice") == []
    reader.step()
    assert answers(house, "alice") == [("newer", "")]


def test_what_goes_wrong_is_said_and_keeps_nothing_else(house: House, reader: Reader) -> None:
    house.lxd.fail_next("read_log", TryAgain("Read LXD's log of alice", "LXD did not answer in time", "Try again."))
    ask(house, "alice")
    ask(house, "no-such")
    ask(house, "bob")
    assert reader.step() == 3
    assert answers(house, "alice") == [("", "Read LXD's log of alice: LXD did not answer in time. Try again.")]
    assert "the host has no such instance" in answers(house, "no-such")[0][1]
    assert answers(house, "bob")[0][1] == ""


def test_after_ten_minutes_it_is_gone(house: House, reader: Reader, freeze: Callable[[datetime], None]) -> None:
    ask(house, "alice")
    reader.step()
    ask(house, "bob")
    freeze(clock.now() + readings.KEPT + timedelta(seconds=1))
    assert answers(house, "alice") == []
    assert reader.step() == 0
    db.session.expire_all()
    assert db.session.scalars(db.select(Reading)).all() == []


def test_it_goes_on_after_trouble(house: House, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, steps = threading.Event(), [RuntimeError("a bug"), db.exc.OperationalError("", {}, Exception()), None]

    def step() -> int:
        if trouble := steps.pop(0):
            raise trouble
        stop.set()
        return 0

    monkeypatch.setattr(reader, "step", step)
    reader.run(stop, threading.Event(), every=0)
    assert steps == []
