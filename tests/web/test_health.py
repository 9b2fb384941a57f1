"""What monitors read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask

from app import create_app, queue
from app.config import BadSettings, Settings
from app.extensions import db
from app.models import Allocation, Gpu, GpuState, Host
from app.services import inventory, policy
from app.services.samples import Now, show
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.page import Client, Page

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
    monkeypatch.setattr(queue, "reachable", lambda _url="": True)
    assert client.get("/healthz").response.json["valkey"] == "ok"


def test_healthz_without_a_database(tmp_path) -> None:
    app = create_app(settings_for("postgresql://nobody@/nothing?host=/nonexistent", tmp_path))
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json["status"], answer.json["database"]) == (503, "away", "away")
    metrics = app.test_client().get("/metrics")
    assert (metrics.status_code, "berth_database_up 0.0" in metrics.text) == (200, True)


def test_the_api_without_a_database(tmp_path) -> None:
    app = create_app(settings_for("postgresql://nobody@/nothing?host=/nonexistent", tmp_path))
    answer = app.test_client().get("/api/v1/gpus", headers={"Authorization": "Bearer berth_1_" + "a" * 43})
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"]
    assert "nonexistent" not in answer.text


def test_metrics(app: Flask, client: Client, gpus: list[Gpu]) -> None:
    gpus[2].state = GpuState.QUARANTINE
    db.session.scalars(db.select(Host).where(Host.name == "ws2")).one().created_at = NOW - timedelta(minutes=1)
    user = make_user("secretname")
    make_booking(user, gpus[:1], NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    make_booking(user, gpus[:1], NOW + timedelta(hours=1), NOW + timedelta(hours=2))
    page = client.get("/metrics")
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = read(page)
    assert samples["berth_bookings_running"] == 1
    assert samples['berth_gpus{host="ws1",state="in_service"}'] == 2
    assert samples['berth_gpus{host="ws1",state="quarantine"}'] == 1
    assert samples['berth_pass_age_seconds{host="ws1"}'] == 4
    assert samples['berth_pass_duration_seconds{host="ws1"}'] == 0.056
    assert samples['berth_agent_seen_seconds{host="ws1"}'] == 3
    assert samples['berth_agent_seen_seconds{host="ws2"}'] == pytest.approx(60), "never since it was added"
    assert (samples["berth_queue_up"], samples["berth_database_up"]) == (0, 1)
    assert samples['berth_operations{host="ws1",state="queued"}'] == 0
    assert "secretname" not in page.body


def test_nothing_is_silent_of_what_nobody_counts_on(client: Client, gpus: list[Gpu]) -> None:
    """Its alert would have no end."""

    def told() -> set[str]:
        samples = read(client.get("/metrics"))
        names = {
            f'berth_gpu_seen_seconds{{gpu="{n}",host="ws1",model="{gpus[n].model}"}}': f"gpu {n}" for n in range(3)
        }
        names['berth_agent_seen_seconds{host="ws1"}'] = "agent"
        for name in ("host_trouble", "pass_duration_seconds", "pass_age_seconds"):
            assert (f'berth_{name}{{host="ws1"}}' in samples) == ('berth_agent_seen_seconds{host="ws1"}' in samples)
        return {short for name, short in names.items() if name in samples}

    for gpu in gpus:
        show("ws1", [Now(gpu.pci_address, NOW - timedelta(hours=9), {})])
    everything = {"agent", "gpu 0", "gpu 1", "gpu 2"}
    assert told() == everything
    gpus[0].state = GpuState.MAINTENANCE
    gpus[1].state, gpus[1].gone_at = GpuState.QUARANTINE, NOW - timedelta(hours=9)
    assert told() == {"agent", "gpu 2"}
    booking = make_booking(make_user(), gpus[:1], NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    assert told() == {"agent", "gpu 0", "gpu 2"}, "a booking is left on it"
    inventory.host_of(gpus[0].host_id).enabled = False
    assert told() == {"agent", "gpu 0", "gpu 2"}
    booking.settled_at = NOW
    assert told() == set()
    inventory.host_of(gpus[0].host_id).enabled = True
    for gpu in gpus:
        gpu.state, gpu.gone_at = GpuState.IN_SERVICE, None
    assert told() == everything


def test_a_gpu_that_is_gone_takes_no_others_number(client: Client, gpus: list[Gpu]) -> None:
    gpus[0].state, gpus[0].gone_at = GpuState.MAINTENANCE, NOW
    gpus[1].minor = 0
    make_booking(make_user(), [gpus[1]], NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    lines = [line.rsplit(" ", 1) for line in client.get("/metrics").body.splitlines() if not line.startswith("#")]
    names = [name for name, _value in lines]
    assert len(names) == len(set(names))
    assert [f'berth_gpu_booked{{gpu="0",host="ws1",model="{gpus[1].model}"}}', "1.0"] in lines


def test_nothing_is_overdue_while_the_grace_lasts(client: Client, gpus: list[Gpu]) -> None:
    def seconds() -> tuple[float, float]:
        samples = read(client.get("/metrics"))
        return samples['berth_gpus_overdue{host="ws1"}'], samples['berth_gpus_overdue_seconds{host="ws1"}']

    policy.current().grace_seconds = 300
    booking = make_booking(make_user(), gpus[:1], NOW - timedelta(hours=1), NOW - timedelta(seconds=200))
    allocation = db.session.scalars(db.select(Allocation).where(Allocation.booking_id == booking.id)).one()
    allocation.attached_at = booking.starts_at
    assert seconds() == (1, 200), "nothing was on it"
    allocation.asked_at = booking.ends_at
    assert seconds() == (1, 0)
    policy.current().grace_seconds = 50
    assert seconds() == (1, 150)
    policy.current().grace_seconds = 300
    make_booking(make_user(), gpus[:1], booking.ends_at, NOW + timedelta(hours=1))
    assert seconds() == (1, 200), "somebody else comes next: the grace lay before the end"


def test_what_waits_in_the_queues(client: Client, gpus: list[Gpu], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "reachable", lambda _url="": True)
    monkeypatch.setattr(queue, "length", {"ws1": 3, "ws2": None}.get)
    samples = read(client.get("/metrics"))
    assert samples['berth_queue_length{host="ws1"}'] == 3
    assert 'berth_queue_length{host="ws2"}' not in samples, "not known is not 0"


def read(page: Page) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in page.body.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


class TestOfGpus:
    """With a token in the settings."""

    @pytest.fixture
    def settings(self, shared_db: str, tmp_path: Path) -> Settings:
        return settings_for(shared_db, tmp_path, BERTH_METRICS_TOKEN="a token for tests".replace(" ", "-"))

    def test_names_are_for_those_with_the_token(self, client: Client, gpus: list[Gpu]) -> None:
        user = make_user("secretname", hours=7)
        booking = make_booking(user, gpus[:1], NOW - timedelta(hours=1), NOW + timedelta(hours=1))
        values = {"utilisation": 83, "memory_used": 1024, "power": 250.5, "temperature": 0}
        stray = {"pid": 1, "instance": "x", "booking": 0, "memory": 1, "utilisation": 1, "name": "x"}
        show("ws1", [Now(gpus[0].pci_address, NOW - timedelta(seconds=5), values, [stray])])
        show("ws1", [Now(gpus[1].pci_address, NOW - timedelta(seconds=90), values)])
        plain, full = '{gpu="0",host="ws1",model="NVIDIA RTX A6000"}', f'{{booking="{booking.id}",gpu="0",host="ws1",'
        full += 'model="NVIDIA RTX A6000",user="secretname"}'
        page = client.get("/metrics")
        assert "secretname" not in page.body
        named = client.get("/metrics", headers={"Authorization": "Bearer a-token-for-tests"})
        for labels, samples in ((plain, read(page)), (full, read(named))):
            assert samples[f"berth_gpu_utilisation_ratio{labels}"] == 0.83
            assert samples[f"berth_gpu_memory_used_bytes{labels}"] == 1 << 30
            assert samples[f"berth_gpu_temperature_celsius{labels}"] == 0
            assert samples[f"berth_gpu_unbooked_processes{labels}"] == 1
            assert (samples[f"berth_gpu_booked{labels}"], samples[f"berth_gpu_attached{labels}"]) == (1, 0)
            assert samples[f"berth_gpu_seen_seconds{labels}"] == 5
        old = '{gpu="1",host="ws1",model="NVIDIA RTX A6000"}'
        assert read(page)[f"berth_gpu_seen_seconds{old}"] == 90
        assert f"berth_gpu_utilisation_ratio{old}" not in read(page)
        assert read(named)['berth_quota_free_seconds{account="secretname"}'] == 5 * 3600

    @pytest.mark.parametrize("sent", ["Bearer another-one", "Basic a-token-for-tests", "a-token-for-tests", "Bearer "])
    def test_a_wrong_token_is_refused(self, client: Client, sent: str) -> None:
        page = client.get("/metrics", headers={"Authorization": sent})
        assert (page.status, page.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "berth_" not in page.body


def test_without_a_token_in_the_settings_none_is_right(client: Client) -> None:
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status == 401
    with pytest.raises(BadSettings, match="16 characters or more"):
        Settings.load({"BERTH_METRICS_TOKEN": "short"})
