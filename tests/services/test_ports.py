"""Which port of a host leads to which machine: never one to two, never too soon again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from flask import Flask

from app import clock
from app.drivers.doors import Door
from app.errors import RuleRefused
from app.extensions import db
from app.models import Host, Instance, Operation, OperationKind, Port, Purpose
from app.services import instances, operations, ports
from tests.factories import make_admin, make_host, make_instance, make_user

NOW = datetime.fromisoformat("2026-11-03T14:00:00+00:00")


@pytest.fixture
def host(app: Flask) -> Host:
    return make_host(images=[{"alias": "base", "description": ""}], first_port=22000, last_port=22003)


def numbers(instance: Instance) -> list[int]:
    return [ports.of_machine(instance.id)[purpose].number for purpose in Purpose]


def test_two_for_each_machine_of_the_hosts_range_once(host: Host) -> None:
    user = make_user()
    one, two = make_instance(user, host, "one"), make_instance(user, host, "two")
    ports.reserve(one, host)
    ports.reserve(two, host)
    assert numbers(one) == [22000, 22001]
    assert numbers(two) == [22002, 22003]
    ports.reserve(one, host)
    assert numbers(one) == [22000, 22001], "they stay"
    other = make_host()
    ports.reserve(machine := make_instance(user, other, "three"), other)
    assert numbers(machine) == [22000, 22001], "another host has its own"


def test_a_range_that_is_used_up(host: Host) -> None:
    for name in ("one", "two"):
        ports.reserve(make_instance(make_user(), host, name), host)
    user, admin = make_user(), make_admin()
    size = {"cpus": 1, "memory_gib": 1, "disk_gib": 1}
    with pytest.raises(RuleRefused, match="no port left") as refused:
        instances.request_create(admin, user, name="three", host=host, image="base", **size)
    assert "berth host set" in refused.value.hint


def test_a_number_that_was_given_back_rests_for_a_day(host: Host, freeze) -> None:
    freeze(NOW)
    host.last_port = 22001
    first = make_instance(make_user(), host, "one")
    ports.reserve(first, host)
    operation = operations.enqueue(None, first, OperationKind.DELETE)
    operations.finish(operation.id, "test")
    second = make_instance(make_user(), host, "two")
    with clock.frozen(NOW + timedelta(hours=23, minutes=59)), pytest.raises(RuleRefused):
        ports.reserve(second, host)
    with clock.frozen(NOW + timedelta(hours=24, seconds=1)):
        ports.reserve(second, host)
    assert numbers(second) == [22000, 22001]


def test_another_number_in_place_of_one_that_is_taken(host: Host) -> None:
    machine = make_instance(make_user(), host, "one")
    port = ports.reserve(machine, host)[Purpose.SSH]
    assert ports.replace(port.id, host).number == 22002
    assert numbers(machine) == [22002, 22001]
    assert ports.door(ports.of_machine(machine.id)[Purpose.SSH], host) == Door("ssh", host.listen, 22002)


def test_whoever_asks_for_a_machine_gets_its_ports(host: Host) -> None:
    user = make_user()
    made: Operation = instances.request_create(
        user, user, name="one", host=host, image="base", cpus=1, memory_gib=1, disk_gib=1
    )
    found = db.session.scalars(db.select(Port).where(Port.instance_id == made.instance_id)).all()
    assert {port.purpose for port in found} == set(Purpose)
