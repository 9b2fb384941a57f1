"""Which machine may move to which host of a cluster, and what that makes of it in the books."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.errors import Conflict, InvalidInput, RuleRefused
from app.extensions import db
from app.models import Host, Instance, InstanceStatus, OperationKind, OperationState, Port, User
from app.services import enforcement, instances, moving, operations, ports
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_user

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def hosts() -> tuple[Host, Host]:
    one, two = (make_host(f"lab0{n}", member=f"m{n}", cluster="c1", first_port=22000 + n * 100) for n in (1, 2))
    make_host("lab03", member="m3", cluster="c2")
    make_host("lab04")
    return one, two


@pytest.fixture
def machine(hosts: tuple[Host, Host]) -> Instance:
    made = make_instance(make_user("liwei"), hosts[0], "gamma", health={"ssh": ""})
    ports.reserve(made, hosts[0])
    db.session.flush()
    return instances.get(None, made.name)


def owner_of(machine: Instance) -> User:
    return db.session.get_one(User, machine.owner_id)


def test_only_a_cluster_has_neighbours(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    assert moving.neighbours(one) == [two]
    assert moving.why_nowhere(one) == ""
    alone = db.session.scalars(db.select(Host).where(Host.name == "lab04")).one()
    assert moving.neighbours(alone) == []
    assert moving.why_nowhere(alone) == "lab04 is in no LXD cluster, so a machine cannot move from there."
    two.enabled = False
    assert moving.why_nowhere(one) == "No other host of lab01's LXD cluster is in Berth and in service."


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lab01", "gamma is there already"),
        ("lab03", "lab01 and lab03 are not members of one LXD cluster"),
        ("lab04", "lab01 and lab04 are not members of one LXD cluster"),
    ],
)
def test_it_goes_nowhere_else(machine: Instance, name: str, said: str) -> None:
    target = db.session.scalars(db.select(Host).where(Host.name == name)).one()
    with pytest.raises(InvalidInput, match=said) as caught:
        moving.request(owner_of(machine), machine, target)
    assert caught.value.field == "host"


@pytest.mark.parametrize("starts", [-1, 24])
def test_a_booking_on_its_host_keeps_it_there(machine: Instance, hosts: tuple[Host, Host], starts: int) -> None:
    owner, begin = owner_of(machine), clock.now() + timedelta(hours=starts)
    booking = make_booking(owner, gpus_of(hosts[0])[:1], begin, begin + timedelta(hours=2))
    with pytest.raises(RuleRefused, match="booking") as caught:
        moving.request(owner, machine, hosts[1])
    assert caught.value.details["rule"] == "booked"
    assert ("running" in caught.value.brief) == (starts < 0)
    booking.cancelled_at = clock.now()
    db.session.flush()
    assert moving.request(owner, machine, hosts[1]).kind == OperationKind.MOVE


def test_a_full_host_is_no_place_to_go_to(machine: Instance, hosts: tuple[Host, Host]) -> None:
    hosts[1].survey = {"memory": 64 << 30, "memory_used": 60 << 30}
    with pytest.raises(RuleRefused, match="lab02 has 4 GiB of memory free"):
        moving.request(owner_of(machine), machine, hosts[1], anyway=True)
    assert moving.request(make_admin("boss"), machine, hosts[1], anyway=True).kind == OperationKind.MOVE


def test_what_is_booked_for_others_or_elsewhere_does_not(machine: Instance, hosts: tuple[Host, Host]) -> None:
    owner, begin = owner_of(machine), clock.now() + timedelta(hours=1)
    make_booking(make_user(), gpus_of(hosts[0])[:1], begin, begin + timedelta(hours=1))
    make_booking(owner, gpus_of(hosts[1])[:1], begin, begin + timedelta(hours=1))
    second = make_instance(owner, hosts[0], "later")
    make_booking(owner, gpus_of(hosts[0])[1:2], begin, begin + timedelta(hours=1), instance_id=second.id)
    make_booking(owner, gpus_of(hosts[0])[2:3], begin - timedelta(days=2), begin - timedelta(days=1))
    moving.request(owner, machine, hosts[1])


@pytest.mark.parametrize("ran", [True, False])
def test_when_it_has_arrived_it_is_the_other_hosts_with_new_ports_and_starts_there(
    machine: Instance, hosts: tuple[Host, Host], ran: bool
) -> None:
    machine.status = InstanceStatus.RUNNING if ran else InstanceStatus.STOPPED
    before = {port.number for port in ports.of_machine(machine.id).values()}
    operation = moving.request(owner_of(machine), machine, hosts[1])
    assert (operation.host_id, operation.details["member"], operation.details["ran"]) == (hosts[0].id, "m2", ran)
    operations.finish(operation.id, "agent:lab01")
    after = db.session.get_one(Instance, machine.id)
    assert (after.host_id, after.status, after.health) == (hosts[1].id, InstanceStatus.STOPPED, {})
    doors = ports.of_machine(machine.id).values()
    assert {port.number for port in doors} == {22200, 22201}
    assert {port.host_id for port in doors} == {hosts[1].id}
    rest = db.session.scalars(db.select(Port).where(Port.released_at.is_not(None)))
    assert {port.number for port in rest} == before
    last = operations.last(machine.id)
    assert (last.kind, last.host_id) == (
        (OperationKind.START, hosts[1].id) if ran else (OperationKind.MOVE, hosts[0].id)
    )


def test_one_that_arrives_takes_no_gpu_away_from_one_that_is_there(machine: Instance, hosts: tuple[Host, Host]) -> None:
    owner, begin = owner_of(machine), clock.now() - timedelta(hours=1)
    make_instance(owner, hosts[1], "younger")
    make_booking(owner, gpus_of(hosts[1])[:1], begin, begin + timedelta(hours=2))
    operations.finish(moving.request(owner, machine, hosts[1]).id, "agent:lab01")
    db.session.expire_all()
    assert [want.instance for want in enforcement.desired(hosts[1]).wants] == ["younger"]


def test_without_a_free_port_there_it_arrives_all_the_same(machine: Instance, hosts: tuple[Host, Host]) -> None:
    hosts[1].first_port = hosts[1].last_port = 22999
    operation = moving.request(None, machine, hosts[1])
    operations.finish(operation.id, "agent:lab01")
    assert db.session.get_one(Instance, machine.id).host_id == hosts[1].id
    assert ports.of_machine(machine.id) == {}


def test_a_move_that_failed_changes_nothing(machine: Instance, hosts: tuple[Host, Host]) -> None:
    operation = moving.request(None, machine, hosts[1])
    with pytest.raises(Conflict):
        moving.request(None, machine, hosts[1])
    operations.finish(operation.id, "agent:lab01", "Move gamma to m2: no space left on device.")
    after = db.session.get_one(Instance, machine.id)
    assert (after.host_id, after.status, len(ports.of_machine(machine.id))) == (hosts[0].id, "running", 2)
    assert operations.last(machine.id).state == OperationState.FAILED
