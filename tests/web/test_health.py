"""What monitors read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app import create_app, queue
from app.models import Gpu, GpuState
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.page import Client

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


@pytest.fixture
def gpus(freeze) -> list[Gpu]:
    freeze(NOW)
    host = make_host("ws1", gpus=3, seen_at=NOW - timedelta(seconds=3), pass_at=NOW - timedelta(seconds=4), pass_ms=56)
    make_host("ws2", gpus=1)
    return gpus_of(host)


def test_healthz(client: Client, gpus: list[Gpu], monkeypatch: pytest.MonkeyPatch) -> None:
    found = client.get("/healthz").response.json
    assert found == {
        "status": "ok",
        "database": "ok",
        "valkey": "away",
        "hosts": [
            {"name": "ws1", "agent": "ok", "seen_seconds_ago": 3},
            {"name": "ws2", "agent": "away", "seen_seconds_ago": None},
        ],
    }
    monkeypatch.setattr(queue, "reachable", lambda: True)
    assert client.get("/healthz").response.json["valkey"] == "ok"


def test_healthz_without_a_database(tmp_path) -> None:
    app = create_app(settings_for("postgresql://nobody@/nothing?host=/nonexistent", tmp_path))
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json["status"], answer.json["database"]) == (503, "away", "away")
    metrics = app.test_client().get("/metrics")
    assert (metrics.status_code, "berth_database_up 0" in metrics.text) == (200, True)


def test_the_api_without_a_database(tmp_path) -> None:
    app = create_app(settings_for("postgresql://nobody@/nothing?host=/nonexistent", tmp_path))
    answer = app.test_client().get("/api/v1/gpus", headers={"Authorization": "Bearer berth_1_" + "a" * 43})
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"]
    assert "nonexistent" not in answer.text


def test_metrics(app: Flask, client: Client, gpus: list[Gpu]) -> None:
    gpus[2].state = GpuState.QUARANTINE
    user = make_user("secretname")
    make_booking(user, gpus[:1], NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    make_booking(user, gpus[:1], NOW + timedelta(hours=1), NOW + timedelta(hours=2))
    page = client.get("/metrics")
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = page.body.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples["berth_bookings_running"] == "1"
    assert samples['berth_gpus{host="ws1",state="in_service"}'] == "2"
    assert samples['berth_gpus{host="ws1",state="quarantine"}'] == "1"
    assert samples['berth_pass_age_seconds{host="ws1"}'] == "4.0"
    assert samples['berth_pass_duration_seconds{host="ws1"}'] == "0.056"
    assert samples["berth_queue_up"] == "0"
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})?', name) for name in samples)
    for name in {name.partition("{")[0] for name in samples}:
        assert f"# TYPE {name} gauge" in lines
    assert "secretname" not in page.body
