"""A machine whose disk fills: its owner is told once for each time, and admins find it at the check-up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app import clock
from app.drivers.facts import HostFacts, InstanceFacts
from app.drivers.survey import HostUse, InstanceUse, PoolUse
from app.extensions import db, transaction
from app.models import AuditEvent, Event, Host, Instance, InstanceStatus, User
from app.services import checkup, findings, full_disks, inventory, news, notice_words, notices, surveys
from app.services.checkup import WARN, Finding
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.services.conftest import NOW, Freeze, waits

SHANGHAI = ZoneInfo("Asia/Shanghai")
GIB = 1 << 30


def use(name: str, gib: float | None) -> InstanceUse:
    used = None if gib is None else int(gib * GIB)
    return InstanceUse(name, "running", name, disk=used, disk_limit="50GiB", pool="pool")


def seen(driver: str = "btrfs", **disks: float | None) -> HostUse:
    """A slow look: by machine, which has the name of its owner, how many GiB of its 50 are used."""
    return HostUse({name: use(name, gib) for name, gib in disks.items()}, (PoolUse("pool", driver),))


@pytest.fixture
def machine(alice: User, host: Host) -> Instance:
    return make_instance(alice, host, "alice")


def look(host: Host, gib: float | None, driver: str = "btrfs") -> int:
    """One slow look at Alice's machine; how often she was told so far."""
    surveys.record(host, seen(driver, alice=gib), {}, clock.now())
    db.session.expire_all()
    news.collect(mail=True)
    query = sa.select(sa.func.count()).select_from(AuditEvent).where(AuditEvent.action == "instance.disk_full")
    owner = db.session.scalars(sa.select(User).where(User.username == "alice")).one()
    told = [notice.event for notice in notices.latest(owner)]
    assert told == [Event.DISK_FULL] * (db.session.scalar(query) or 0)
    return len(told)


def test_its_owner_is_told_once_for_each_time_it_fills(machine: Instance, host: Host, freeze: Freeze) -> None:
    admin = make_admin("root-admin")
    assert look(host, 42) == 0
    assert look(host, 43) == 1
    assert look(host, 50) == 1
    assert look(host, 41) == 1, "a little room is no room"
    assert look(host, 44) == 1
    assert look(host, None) == 1, "not known is not empty"
    assert look(host, 44) == 1
    assert look(host, 37) == 1
    assert look(host, 43) == 1, "within the hour: root in it could do that all day"
    freeze(NOW + timedelta(hours=1))
    assert look(host, 37) == 1
    assert look(host, 42) == 1
    assert look(host, 43) == 2
    assert notices.latest(admin) == []


def test_what_was_done_to_it_counts_and_is_no_second_time(machine: Instance, host: Host, freeze: Freeze) -> None:
    """A larger disk, say; and what is written down after work keeps in mind that its owner knows."""
    assert look(host, 45) == 1
    surveys.record_one(machine.id, seen(alice=46), clock.now())
    assert look(host, 45) == 1
    machine.disk_gib = 200
    surveys.record_one(machine.id, seen(alice=46), clock.now())
    machine.disk_gib = 50
    db.session.flush()
    freeze(NOW + timedelta(hours=1))
    surveys.record_one(machine.id, seen(alice=46), clock.now())
    assert look(host, 46) == 2


@pytest.mark.parametrize("driver", ["dir", "", "lvmcluster"])
def test_a_pool_that_limits_nobody_fills_nobodys_disk(machine: Instance, host: Host, driver: str) -> None:
    assert look(host, 60, driver) == 0


def test_one_that_was_taken_over_without_a_limit_has_no_disk_to_fill(
    machine: Instance, host: Host, alice: User
) -> None:
    free = replace(use("alice", 60), disk_limit="")
    surveys.record(host, HostUse({"alice": free}, (PoolUse("pool", "btrfs"),)), {}, clock.now())
    assert not full_disks.is_full(db.session.get_one(Instance, machine.id, populate_existing=True))
    assert (news.collect(mail=True), notices.latest(alice)) == (0, [])


def test_a_machine_that_goes_elsewhere_takes_along_that_its_owner_knows(machine: Instance, host: Host) -> None:
    assert look(host, 45) == 1
    other = make_host("lab04")
    machine.host_id = other.id
    db.session.flush()
    assert look(other, 45) == 1


def test_the_message_says_what_to_do_and_of_a_machine_that_is_gone_nothing_is_said(
    app: Flask, machine: Instance, host: Host, alice: User, freeze: Freeze
) -> None:
    look(host, 45)
    sent = notice_words.message(alice, notices.latest(alice), "https://b.example", SHANGHAI)
    assert sent.title == "The disk of alice on lab03 is nearly full: 45.0 of 50 GiB"
    assert "Remove files that you do not need, or give it a larger disk: https://b.example/machines/alice" in sent.text
    assert "programs in it cannot write" in sent.text
    look(host, 10)
    freeze(NOW + timedelta(hours=1))
    surveys.record(host, seen(alice=50), {}, clock.now())
    machine.deleted_at = clock.now()
    db.session.flush()
    assert news.collect(mail=True) == 1
    assert len(notices.latest(alice)) == 1


def test_it_is_a_matter_of_choice(machine: Instance, host: Host, alice: User) -> None:
    assert notices.chosen(alice)[Event.DISK_FULL] == ["mail"]
    notices.choose(alice, {})
    surveys.record(host, seen(alice=50), {}, clock.now())
    assert news.collect(mail=True) == 1
    assert notices.latest(alice) == []


def test_admins_find_it_at_the_check_up(machine: Instance, host: Host) -> None:
    make_instance(make_user("bob"), host, "bob")
    surveys.record(host, seen(alice=45, bob=10), {}, clock.now())
    db.session.expire_all()
    facts = HostFacts("5.21.7", instances=tuple(InstanceFacts(name) for name in ("alice", "bob", "old-box")))

    def found() -> list[Finding]:
        return [one for one in checkup.findings(facts, findings.known(host)) if "disk" in one.detail]

    (full,) = found()
    assert (full.level, full.what) == (WARN, "machine alice")
    assert full.detail.startswith("its disk is full or nearly so: 45.0 of 50 GiB")
    assert "Name, size and more" in full.fix
    machine.status = InstanceStatus.MISSING
    db.session.flush()
    assert found() == []


def test_a_look_beside_the_end_of_work_tells_once(core: Flask, aside: Callable[..., Future[Any]]) -> None:
    """Neither forgets what the other one has just written down."""
    with core.app_context():
        with transaction():
            host = make_host("lab03")
            number = make_instance(make_user("alice"), host, "alice").id

        def slow_look() -> None:
            surveys.record(inventory.host("lab03"), seen(alice=45), {}, NOW)

        with transaction():
            slow_look()
            other = aside(surveys.record_one, number, seen(alice=45), NOW)
            waits(core)
        other.result(20)
        with transaction():
            slow_look()
            count = sa.select(sa.func.count()).select_from(AuditEvent).where(AuditEvent.action == "instance.disk_full")
            assert db.session.scalar(count) == 1
