"""The thread that brings NVIDIA's libraries: again and again, told once, by the admin's choice, on record, and stopped
by nothing that goes wrong."""

from __future__ import annotations

import logging
import threading

import pytest
from flask import Flask

from app.drivers.base import HostUnreachable
from app.drivers.libraries import Brought, Way, Why
from app.extensions import db
from app.models import Host, LibraryChoice
from app.services import inventory
from tests.factories import make_host
from workers import librarian
from workers.librarian import Librarian


class Lxd:
    """Answers in turn, the last answer again and again; what was wanted is kept."""

    def __init__(self, *answers: Way | Exception) -> None:
        self.answers, self.wanted, self.stop = list(answers), list[Way | None](), threading.Event()

    def bring_libraries(self, wanted: Way | None = None) -> Brought:
        self.wanted.append(wanted)
        answer = self.answers.pop(0)
        if not self.answers:
            self.stop.set()
        if isinstance(answer, Exception):
            raise answer
        return Brought(answer, Why.BEST, "580.95.05")


@pytest.fixture
def host(app: Flask) -> Host:
    found = make_host("ws1")
    db.session.commit()
    return found


def fresh(host: Host) -> Host:
    db.session.expire_all()
    return inventory.host(host.name)


def test_it_tells_what_changes_and_goes_on_after_trouble(
    app: Flask, host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(librarian, "EVERY", 0.0)
    away = HostUnreachable("Bring NVIDIA's libraries", "no socket")
    lxd = Lxd(Way.INSTALL, Way.INSTALL, away, RuntimeError("a bug"), Way.MOUNT)
    Librarian(app, "ws1", lxd).run(lxd.stop, threading.Event(), every=0)  # type: ignore[arg-type]
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records if record.levelno == logging.INFO]
    assert told == ["install", "no socket", "mount"]
    assert lxd.answers == []
    seen = fresh(host).libraries_seen
    assert seen == {"way": "mount", "why": "best", "version": "580.95.05", "cdi": False, "choice": "auto"}


def test_another_choice_is_taken_up_at_once_and_nothing_is_done_twice(app: Flask, host: Host) -> None:
    lxd = Lxd(Way.RUNTIME, Way.INSTALL, Way.RUNTIME)
    keeper = Librarian(app, "ws1", lxd)  # type: ignore[arg-type]
    assert keeper.step() is not None
    assert keeper.step() is None
    inventory.set_libraries("boss", fresh(host), LibraryChoice.OWN)
    db.session.commit()
    assert keeper.step() is not None
    assert keeper.step() is None
    assert lxd.wanted == [None, Way.INSTALL]
    assert fresh(host).libraries_seen["choice"] == "own"


def test_while_the_database_is_away_the_last_choice_holds_and_none_is_made_up(
    app: Flask, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    lxd = Lxd(Way.INSTALL, Way.INSTALL, Way.INSTALL)
    early, later = Librarian(app, "ws1", lxd), Librarian(app, "ws1", lxd)  # type: ignore[arg-type]
    inventory.set_libraries("boss", fresh(host), LibraryChoice.OWN)
    db.session.commit()
    assert later.step() is not None

    def away(_name: str) -> Host:
        raise db.exc.OperationalError("", {}, Exception())

    monkeypatch.setattr(librarian.inventory, "host", away)
    later._due = 0.0
    with pytest.raises(db.exc.OperationalError):  # it is done, and is not on record
        later.step()
    assert early.step() is None
    assert lxd.wanted == [Way.INSTALL, Way.INSTALL]
