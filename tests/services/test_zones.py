"""Days and months are the lab's, whichever machine counts them: the portal writes its zone down, the others follow."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from app import clock, create_app, create_core
from app.extensions import db, lab_zone, transaction
from app.services import audit, samples, zones
from app.services.reports import report
from app.services.reports.pieces import Scope
from app.services.reports.report import Group
from app.services.reports.spans import Span
from app.services.samples import Part
from tests.conftest import settings_for
from tests.factories import attach, gpus_of, make_booking, make_host, make_user

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MIDNIGHT = datetime(2026, 11, 2, 16, tzinfo=UTC)  # of the third, in Shanghai
LAB = "Asia/Shanghai"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def portal(fresh_db: str, tmp_path: Path) -> Iterator[Flask]:
    app = create_app(settings_for(fresh_db, tmp_path, BERTH_TZ=LAB))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def agent(fresh_db: str, tmp_path: Path) -> Iterator[Flask]:
    """On a workstation that nobody told of the lab's zone."""
    app = create_core(settings_for(fresh_db, tmp_path, BERTH_TZ="UTC"))
    yield app
    with app.app_context():
        db.engine.dispose()


def test_a_night_is_busy_on_the_day_on_which_it_was_attached(
    portal: Flask, agent: Flask, freeze: Callable[[datetime], None]
) -> None:
    freeze(MIDNIGHT + 20 * HOUR)
    with portal.app_context(), transaction():
        zones.write(LAB)
        host = make_host("ws1", gpus=1)
        [gpu] = gpus_of(host)
        booking = make_booking(make_user("li"), [gpu], MIDNIGHT, MIDNIGHT + 8 * HOUR)
        attach(booking)
    night = [Part(gpu.pci_address, MIDNIGHT + n * MINUTE, booking.id, "li", 60_000, 60_000) for n in range(480)]
    with agent.app_context(), transaction():
        assert samples.deliver(host.id, "a", night) == 0
    with portal.app_context():
        span = Span.of(MIDNIGHT - 24 * HOUR, MIDNIGHT + 24 * HOUR, lab_zone(), clock.now())
        rows = [(row.day, row.numbers.attached, row.numbers.busy) for row in report.rows(span, Group.DAY, Scope())]
    assert (date(2026, 11, 3), 28_800, 28_800) in rows
    assert sum(busy for _day, _attached, busy in rows) == 28_800


def test_who_is_not_the_portal_follows_it_and_asks_now_and_then(portal: Flask, agent: Flask) -> None:
    with agent.app_context():
        assert lab_zone() == ZoneInfo("UTC"), "none is written yet"
        for name in (LAB, LAB, "Europe/Berlin"):
            with portal.app_context(), transaction():
                zones.write(name)
        assert lab_zone() == ZoneInfo("Europe/Berlin")
        with portal.app_context(), transaction():
            zones.write(LAB)
            assert lab_zone() == ZoneInfo(LAB), "its own, whatever is written"
            told = [event.details for event in audit.recent(target="policy")]
        assert told == [
            {"zone": LAB, "before": "Europe/Berlin"}, {"zone": "Europe/Berlin", "before": LAB},
            {"zone": LAB, "before": None},
        ]  # fmt: skip
        assert lab_zone() == ZoneInfo("Europe/Berlin"), "not asked again yet"
        agent.extensions["zone"]._until = 0.0
        assert lab_zone() == ZoneInfo(LAB)


def test_what_a_command_says_of_a_moment_is_by_the_labs_clock(portal: Flask, agent: Flask) -> None:
    """Bookings are named by their start."""
    with portal.app_context(), transaction():
        zones.write(LAB)
        booking = make_booking(make_user("li"), gpus_of(make_host("ws1")), MIDNIGHT, MIDNIGHT + 8 * HOUR)
    for app in (portal, agent):
        with app.app_context():
            span = Span.of(MIDNIGHT - 24 * HOUR, MIDNIGHT + 24 * HOUR, lab_zone(), MIDNIGHT + 24 * HOUR)
            [row] = report.rows(span, Group.BOOKING, Scope())
            assert (row.key, row.name) == (booking.id, "ws1, Tue 3 Nov 00:00")


def test_a_portal_of_another_wsgi_server_writes_it_down_and_starts_without_a_database(
    portal: Flask, fresh_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"BERTH_DATA": str(tmp_path), "BERTH_TZ": LAB, "SECRET_KEY": "only for tests"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/nothing?host=/nonexistent")
    runpy.run_path(str(ROOT / "wsgi.py"))
    assert "no database" in caplog.text
    monkeypatch.setenv("DATABASE_URL", fresh_db)
    runpy.run_path(str(ROOT / "wsgi.py"))
    with portal.app_context():
        assert zones.written() == LAB
