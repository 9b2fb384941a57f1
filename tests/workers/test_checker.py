"""The agent's check of its host: what it keeps, and what it does when the host or the database is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from app import create_core
from app.drivers.base import GiveUp
from app.drivers.facts import HostFacts
from app.drivers.fake import FakeLxd
from app.extensions import db, transaction
from app.models import AuditEvent, Gpu, Host, User
from app.services import alarms, inventory, news, notices
from tests.conftest import settings_for
from tests.factories import make_admin, make_host
from tests.runtime.running import wait_for
from workers.checker import Checker


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Flask:
    app = create_core(settings_for(fresh_db, tmp_path))
    with app.app_context(), transaction():
        inventory.add_host("test", "ws1", "sim:", FakeLxd(tmp_path / "ws1.json", gpus=2, pace=0))
    return app


@pytest.fixture
def host(core: Flask, tmp_path: Path) -> FakeLxd:
    return FakeLxd(tmp_path / "ws1.json")


def kept(core: Flask) -> tuple[list[dict[str, str]], bool]:
    """What is in the host's row, and whether it has a time."""
    with core.app_context():
        row = inventory.host("ws1")
        return row.findings, row.checked_at is not None


def test_a_faultless_host_has_nothing_to_keep(core: Flask, host: FakeLxd) -> None:
    found = Checker(core, "ws1", host).step()
    assert all(one.ok for one in found)
    assert kept(core) == ([], True)


def test_what_is_wrong_is_kept_until_it_is_right(core: Flask, host: FakeLxd) -> None:
    host.report(fence="", apparmor=False)
    checker = Checker(core, "ws1", host)
    checker.step()
    rows, _ = kept(core)
    assert [(row["level"], row["what"]) for row in rows] == [("bad", "fence"), ("warn", "AppArmor")]
    assert all(row.keys() == {"level", "what", "detail", "fix"} and row["fix"] for row in rows)
    host.report(fence="v1", apparmor=True)
    checker.step()
    assert kept(core) == ([], True)


@pytest.mark.parametrize("error", [None, GiveUp("Examine the host", "LXD said \x1b[31mno", "Ask again.")])
def test_a_host_that_cannot_be_examined_is_one_finding(core: Flask, host: FakeLxd, error: GiveUp | None) -> None:
    host.report(apparmor=False)
    checker = Checker(core, "ws1", host)
    checker.step()
    if error:
        host.fail_next("examine", error)
    else:
        host.unreachable()
    checker.step()
    [row], _ = kept(core)
    assert (row["level"], row["what"]) == ("bad", "LXD")
    assert row["fix"]
    assert row["detail"].isprintable()


def test_nothing_is_asked_of_the_host_inside_a_transaction(core: Flask, host: FakeLxd) -> None:
    class Watched(FakeLxd):
        def examine(self) -> HostFacts:
            with core.app_context():
                open_ones = "datname = current_database() AND state LIKE 'idle in%'"
                assert db.session.scalar(db.text(f"SELECT count(*) FROM pg_stat_activity WHERE {open_ones}")) == 0
            return super().examine()

    Checker(core, "ws1", Watched(host._path)).step()
    assert kept(core) == ([], True)


@contextmanager
def running(checker: Checker, now: threading.Event) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=checker.run, args=(stop, now, 60, 0))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        now.set()
        thread.join(30)
        assert not thread.is_alive()


def test_it_checks_at_once_and_when_asked_and_survives_trouble(core: Flask, host: FakeLxd) -> None:
    now = threading.Event()

    class Odd(FakeLxd):
        def examine(self) -> HostFacts:
            facts = super().examine()
            return None if self.broken else facts  # type: ignore[return-value]

        broken = False

    odd = Odd(host._path)
    with running(Checker(core, "ws1", odd), now):
        wait_for(lambda: kept(core)[1], why="the first check")
        odd.broken = True
        now.set()
        wait_for(lambda: host.calls().count("examine") == 2, why="a second check")
        odd.broken = False
        host.report(apparmor=False)
        now.set()
        wait_for(lambda: [row["what"] for row in kept(core)[0]] == ["AppArmor"], why="a third one")


def test_a_gpu_that_changed_its_number_is_seen(core: Flask, host: FakeLxd) -> None:
    with core.app_context(), transaction():
        db.session.execute(db.update(Gpu).where(Gpu.minor == 1).values(minor=5))
    Checker(core, "ws1", host).step()
    [row], _ = kept(core)
    assert (row["level"], row["fix"]) == ("bad", "Bring Berth up to date: berth host sync ws1")


def test_a_pool_that_fills_up_is_an_alarm_and_admins_are_told_once(core: Flask, host: FakeLxd) -> None:
    checker = Checker(core, "ws1", host)

    def alarming(**used: int) -> int:
        """How many alarms there are after a check with so much of each pool in use, of 100."""
        with core.app_context():
            with transaction():
                pools = [{"name": name, "driver": "zfs", "used": part, "total": 100} for name, part in used.items()]
                db.session.execute(db.update(Host).values(survey={"pools": pools, "pool": "pool"}))
            checker.step()
            with transaction():
                return alarms.count(timedelta(days=1))

    with core.app_context(), transaction():
        make_admin("root-admin")
        inventory.host("ws1").seen_at = db.func.now()
    assert [alarming(pool=84, unused=99), alarming(pool=85), alarming(pool=86), alarming(pool=96)] == [0, 1, 1, 1]
    assert [alarming(pool=80), alarming(pool=96), alarming(pool=80)] == [0, 1, 0], "no news: once a day"
    with core.app_context(), transaction():
        query = db.select(AuditEvent).where(AuditEvent.action == "host.pool_full").order_by(AuditEvent.id)
        events = db.session.scalars(query)
        said = [event.details["why"].partition(" % ")[0] for event in events.all()]
        assert said == ["storage pool pool: 85", "storage pool pool: 96"]
        news.collect(mail=True)
        admin = db.session.scalars(db.select(User)).one()
        assert [one.event for one in notices.latest(admin)] == ["alarm", "alarm"]


def test_another_hosts_row_is_left_alone(core: Flask, host: FakeLxd) -> None:
    with core.app_context(), transaction():
        make_host("ws2", endpoint="sim:ws2", gpus=1)
    host.report(apparmor=False)
    Checker(core, "ws1", host).step()
    with core.app_context():
        other = db.session.scalars(db.select(Host).where(Host.name == "ws2")).one()
        assert (other.findings, other.checked_at) == ([], None)
