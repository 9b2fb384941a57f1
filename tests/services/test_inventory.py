"""Hosts and GPUs: taken in through a driver, brought up to date, and what is done about one that is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from app import clock
from app.drivers.base import DriverError, HostUnreachable
from app.drivers.fake import FakeLxd
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import db
from app.models import AuditEvent, Gpu, GpuState, Host, UsageMinute
from app.services import attachments, audit, bookings, inventory, samples
from app.services.claims import Ask
from app.services.samples import Part
from tests.factories import gpus_of, make_gpu, make_host, make_instance, make_user

pytestmark = pytest.mark.usefixtures("app")

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


@pytest.fixture
def driver(tmp_path: Path) -> FakeLxd:
    return FakeLxd(tmp_path / "lab01.json", gpus=3, first_minor=4, pace=0)


def change(tmp_path: Path, **values: object) -> None:
    path = tmp_path / "lab01.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_host_comes_with_its_gpus_and_images(driver: FakeLxd) -> None:
    host = inventory.add_host("boss", "lab01", "sim:lab01", driver)
    assert host.simulated
    assert host.lxd_version == "simulated"
    assert [image["alias"] for image in host.images] == ["base", "desktop"]
    found = gpus_of(host)
    assert [(gpu.minor, gpu.pci_address) for gpu in found] == [
        (4, "0000:01:00.0"), (5, "0000:02:00.0"), (6, "0000:03:00.0"),
    ]  # fmt: skip
    assert {gpu.state for gpu in found} == {GpuState.IN_SERVICE}
    assert inventory.models() == ["NVIDIA RTX A6000"]
    assert inventory.host("lab01") is host


@pytest.mark.parametrize("name", ["", "Lab", "lab_1", "-lab", "lab-", "a" * 64, "lab 1", "läb", "lab\n", "lab/1"])
def test_names_that_no_host_may_have(driver: FakeLxd, name: str) -> None:
    with pytest.raises(InvalidInput):
        inventory.add_host("boss", name, "sim:x", driver)
    assert inventory.hosts() == []


def test_one_host_of_a_name(driver: FakeLxd) -> None:
    inventory.add_host("boss", "lab01", "sim:lab01", driver)
    with pytest.raises(InvalidInput, match="already"):
        inventory.add_host("boss", "lab01", "sim:other", driver)


def test_without_an_answer_nothing_is_taken_in(driver: FakeLxd) -> None:
    driver.unreachable()
    with pytest.raises(HostUnreachable):
        inventory.add_host("boss", "lab01", "sim:lab01", driver)
    db.session.rollback()
    assert inventory.hosts() == []


def test_sync_keeps_what_is_gone_but_not_on_offer(driver: FakeLxd, tmp_path: Path) -> None:
    host = inventory.add_host("boss", "lab01", "sim:lab01", driver)
    before = {gpu.pci_address: gpu.id for gpu in gpus_of(host)}
    state = json.loads((tmp_path / "lab01.json").read_text())
    kept = state["gpus"][1:]
    kept[0]["minor"] = 0
    new = {"pci_address": "0000:09:00.0", "model": "NVIDIA H100", "minor": 7, "uuid": ""}
    change(tmp_path, gpus=[*kept, new], images=[])
    for _ in range(2):  # the second time changes nothing
        inventory.sync_host("boss", host, driver)
    found = {gpu.pci_address: gpu for gpu in gpus_of(host)}
    assert found["0000:01:00.0"].state == GpuState.MAINTENANCE
    assert found["0000:02:00.0"].minor == 0
    assert {address: found[address].id for address in before} == before
    assert found["0000:09:00.0"].model == "NVIDIA H100"
    assert host.images == []
    assert inventory.models() == ["NVIDIA H100", "NVIDIA RTX A6000"]
    missing = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "gpu.missing")).all()
    assert [event.details["pci_address"] for event in missing] == ["0000:01:00.0"]


def test_sync_notes_which_gpus_came_later_and_which_are_gone(
    driver: FakeLxd, tmp_path: Path, freeze: Callable[[datetime], None]
) -> None:
    def seen() -> dict[str, tuple[datetime | None, datetime | None]]:
        inventory.sync_host("boss", host, driver)
        return {gpu.pci_address[5:7]: (gpu.added_at, gpu.gone_at) for gpu in gpus_of(host)}

    start = datetime(2026, 11, 2, tzinfo=UTC)
    first, second, third = (start + timedelta(days=days) for days in (1, 2, 3))
    freeze(start)
    host = inventory.add_host("boss", "lab01", "sim:lab01", driver)
    state = json.loads((tmp_path / "lab01.json").read_text())["gpus"]
    freeze(first)
    assert seen() == dict.fromkeys(("01", "02", "03"), (None, None)), "they came with it"
    gpus_of(host)[0].state = GpuState.QUARANTINE
    change(tmp_path, gpus=[*state[2:], {**state[0], "pci_address": "0000:09:00.0"}])
    expected = {"01": (None, first), "02": (None, first), "03": (None, None), "09": (first, None)}
    assert seen() == expected
    freeze(second)
    assert seen() == expected, "they have been gone since then"
    change(tmp_path, gpus=state)
    back = dict.fromkeys(("01", "02", "03"), (None, None))
    assert seen() == {**back, "09": (first, second)}
    freeze(third)
    change(tmp_path, gpus=state[:1])
    assert seen() == {"01": (None, None), "02": (None, third), "03": (None, third), "09": (first, second)}


def test_gpus_of_a_host_that_had_none_came_later(
    driver: FakeLxd, tmp_path: Path, freeze: Callable[[datetime], None]
) -> None:
    assert driver.gpus()
    found = json.loads((tmp_path / "lab01.json").read_text())["gpus"]
    change(tmp_path, gpus=[])
    host = inventory.add_host("boss", "lab01", "sim:lab01", driver)
    change(tmp_path, gpus=found)
    now = datetime(2026, 11, 2, tzinfo=UTC)
    freeze(now)
    inventory.sync_host("boss", host, driver)
    assert [gpu.added_at for gpu in gpus_of(host)] == [now] * 3


def test_sync_does_not_touch_a_quarantine(driver: FakeLxd) -> None:
    host = inventory.add_host("boss", "lab01", "sim:lab01", driver)
    gpus_of(host)[0].state = GpuState.QUARANTINE
    inventory.sync_host("boss", host, driver)
    assert gpus_of(host)[0].state == GpuState.QUARANTINE


def test_a_sync_that_fails_changes_nothing(driver: FakeLxd) -> None:
    host = inventory.add_host("boss", "lab01", "sim:lab01", driver)
    driver.fail_next("gpus", DriverError("List the GPUs", "no answer"))
    with pytest.raises(DriverError, match="no answer"):
        inventory.sync_host("boss", host, driver)
    assert {gpu.state for gpu in gpus_of(host)} == {GpuState.IN_SERVICE}


def test_a_host_that_was_added_by_mistake_is_removed_with_what_it_measured(
    driver: FakeLxd, freeze: Callable[[datetime], None]
) -> None:
    freeze(NOW)
    other, mistaken = make_host("ws2"), inventory.add_host("ana", "ws1", "/s", driver)
    address, start = driver.gpus()[0].pci_address, NOW - timedelta(hours=3)
    parts = [Part(address, start + timedelta(minutes=at), None, "", 60_000, 60_000) for at in range(90)]
    samples.deliver(mistaken.id, "all", parts)
    assert db.session.scalars(sa.select(UsageMinute)).all()
    inventory.remove_host("ana", mistaken)
    assert [host.name for host in inventory.hosts()] == ["ws2"]
    assert {gpu.host_id for gpu in db.session.scalars(sa.select(Gpu))} == {other.id}
    assert not db.session.scalars(sa.select(UsageMinute)).all()
    assert audit.recent(target="host:ws1")[0].action == "host.removed"
    assert inventory.add_host("ana", "ws1", "/s", driver).name == "ws1"


def test_a_host_that_is_on_record_stays(booked: Host) -> None:
    name, gpus = booked.name, len(inventory.gpus(booked.id))
    with pytest.raises(RuleRefused, match=r"is on record, with bookings.* Stop offering it"):
        inventory.remove_host("ana", booked)
    assert len(inventory.gpus(inventory.host(name).id)) == gpus
    assert not [event for event in audit.recent(target=f"host:{name}") if event.action == "host.removed"]


def test_no_such_host() -> None:
    for name in ("lab09", "", "'; drop table hosts; --"):
        with pytest.raises(NotFound):
            inventory.host(name)


def test_what_is_offered() -> None:
    make_host("off", gpus=1, model="Off", enabled=False)
    broken = make_host("broken", gpus=1, model="Broken")
    gpus_of(broken)[0].state = GpuState.QUARANTINE
    make_host("on", gpus=1, model="On")
    assert inventory.models() == ["On"]
    assert [host.name for host in inventory.hosts(enabled_only=True)] == ["broken", "on"]
    assert [host.name for _gpu, host in inventory.gpus()] == ["broken", "off", "on"]


def test_seen() -> None:
    host = make_host()
    assert host.seen_at is None
    inventory.saw_agent(host.id)
    assert host.seen_at == clock.now() or clock.now() - host.seen_at < timedelta(seconds=5)
    inventory.saw_agent(0)


@pytest.fixture
def booked() -> Host:
    """A host with two GPUs: the first in use for an hour, booked again after it; the second free."""
    host, user = make_host("lab05", gpus=2), make_user("liwei")
    make_instance(user, host, "old")
    now = clock.now()
    first = gpus_of(host)[0].id
    bookings.create(user, Ask(ends_at=now + timedelta(hours=1), gpu_ids=(first,)), 900)
    later = now + timedelta(hours=3)
    bookings.create(user, Ask(starts_at=later, ends_at=later + timedelta(hours=1), gpu_ids=(first,)), 900)
    return host


def test_what_counts_on_a_gpu(booked: Host) -> None:
    first, second = gpus_of(booked)
    assert (inventory.booked_after(first.id), inventory.booked_after(second.id)) == (2, 0)
    assert len(attachments.to_come(first.id)) == 2
    assert len(attachments.to_come(first.id, limit=1)) == 1
    with clock.frozen(clock.now() + timedelta(hours=2)):
        assert (inventory.booked_after(first.id), len(attachments.to_come(first.id))) == (1, 1)


def test_who_has_what_now(booked: Host) -> None:
    first, second = gpus_of(booked)
    now = attachments.by_gpu(booked.id)
    assert list(now) == [first.id]
    assert now[first.id].booking.user.username == "liwei"
    assert attachments.by_gpu(booked.id + 1) == {}
    assert attachments.by_gpu() == now
    gpus = [first, second]
    assert attachments.free_gpus(gpus, now) == 1
    gpus.append(make_gpu(booked, minor=2, state=GpuState.MAINTENANCE))
    assert attachments.free_gpus(gpus, now) == 1
    with clock.frozen(clock.now() + timedelta(hours=2)):
        assert attachments.by_gpu() == {}


def test_state_changes_are_on_record(booked: Host) -> None:
    gpu = gpus_of(booked)[0]
    inventory.set_gpu_state("boss", gpu, GpuState.MAINTENANCE)
    inventory.set_enabled("boss", booked, False)
    query = db.select(AuditEvent).where(AuditEvent.actor == "boss").order_by(AuditEvent.id)
    events = [(event.action, event.target, event.details) for event in db.session.scalars(query)]
    assert events == [
        ("gpu.state", f"gpu:{gpu.id}", {"before": "in_service", "after": "maintenance"}),
        ("host.disabled", "host:lab05", {}),
    ]
