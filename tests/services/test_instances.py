"""Who may have which machine: names, sizes, whose it is, and what a look at the host says of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.drivers.base import InstanceSpec
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.models import Host, InstanceStatus, Operation, OperationKind, User, UserState
from app.services import bookings, instances, operations, policy
from app.services.claims import Ask
from tests.factories import make_admin, make_host, make_instance, make_user

pytestmark = pytest.mark.usefixtures("app")

SIZE = {"cpus": 2, "memory_gib": 4, "disk_gib": 20}


@pytest.fixture
def host() -> Host:
    return make_host(images=[{"alias": "base", "description": ""}])


def create(actor: User | None, owner: User, host: Host, name: str = "gamma", **values: object) -> Operation:
    return instances.request_create(actor, owner, name=name, host=host, **({"image": "base"} | SIZE | values))


def test_a_machine_is_asked_for_and_described_to_the_driver(host: Host) -> None:
    user = make_user("liwei")
    operation = create(user, user, host)
    assert operation.kind == OperationKind.CREATE
    machine = instances.get(user, "gamma")
    assert machine.status == InstanceStatus.CREATING
    assert instances.spec(machine) == InstanceSpec("gamma", "base", 2, 4096, 20, "liwei")


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "1a", "a_b", "a.b", "a b", "a\n", "new", "é", "a" * 31, "a\0b"])
def test_names_that_no_machine_may_have(host: Host, name: str) -> None:
    user = make_user()
    with pytest.raises(InvalidInput) as refused:
        create(user, user, host, name)
    assert refused.value.field == "name"


@pytest.mark.parametrize("name", ["a", "a1", "li-wei", "a" * 30, "x--y"])
def test_names_that_are_fine(host: Host, name: str) -> None:
    user = make_user()
    assert create(user, user, host, name)


@pytest.mark.parametrize("field", ["cpus", "memory_gib", "disk_gib"])
def test_sizes_within_the_rules_and_for_admins_within_reason(host: Host, field: str) -> None:
    user, admin = make_user(), make_admin()
    most = getattr(policy.current(), f"max_{field}")
    for value in (0, -1, most + 1):
        with pytest.raises(InvalidInput) as refused:
            create(user, user, host, **{field: value})
        assert refused.value.field == field
    create(user, user, host, **{field: most})
    create(admin, user, host, "delta", **{field: most + 1})
    for value in (0, policy.LIMITS[f"max_{field}"][1] + 1, 2**40):
        with pytest.raises(InvalidInput):
            create(admin, user, host, "epsilon", **{field: value})


def test_images_of_the_host_only_and_hosts_that_are_on(host: Host) -> None:
    user = make_user()
    with pytest.raises(InvalidInput, match="has no image other") as refused:
        create(user, user, host, image="other")
    assert refused.value.field == "image"
    host.enabled = False
    with pytest.raises(InvalidInput, match="out of service"):
        create(user, user, host)


def test_whose_machine(host: Host) -> None:
    user, other = make_user(), make_user()
    with pytest.raises(NotAllowed):
        create(user, other, host)
    policy.current().self_service = False
    with pytest.raises(NotAllowed, match="an admin makes"):
        create(user, user, host)
    create(make_admin(), other, host, "one")
    create(None, other, host, "two")
    assert [machine.name for machine in instances.of_user(other)] == ["one", "two"]


def test_how_many(host: Host) -> None:
    user = make_user()
    create(user, user, host, "one")
    create(user, user, host, "two")
    with pytest.raises(RuleRefused) as refused:
        create(user, user, host, "three")
    assert refused.value.details["limit"] == 2
    create(make_admin(), user, host, "three")


def test_the_name_is_one_over_all_hosts(host: Host) -> None:
    make_instance(make_user(), make_host(), "gamma")
    user = make_user()
    with pytest.raises(InvalidInput, match="gamma is taken"):
        create(user, user, host)
    assert create(user, user, host, "delta"), "the transaction goes on"


def test_who_may_see_it(host: Host) -> None:
    owner = make_user()
    make_instance(owner, host, "gamma")
    assert instances.get(owner, "gamma").name == "gamma"
    assert instances.get(make_admin(), "gamma").owner is owner
    assert instances.get(None, "gamma")
    with pytest.raises(NotFound):
        instances.get(make_user(), "gamma")
    with pytest.raises(NotFound):
        instances.get(owner, "delta")


def test_only_a_failed_creation_can_be_repeated(host: Host) -> None:
    user = make_user()
    machine = make_instance(user, host)
    with pytest.raises(Conflict, match="exists already"):
        instances.request(user, machine, OperationKind.CREATE)
    machine.status = InstanceStatus.FAILED
    assert instances.request(user, machine, OperationKind.CREATE)


def test_a_machine_that_has_a_gpu_is_not_deleted(host: Host) -> None:
    user = make_user()
    machine = make_instance(user, host)
    now = clock.now()
    booking = bookings.create(user, Ask(ends_at=now + timedelta(hours=1)), 900)
    with pytest.raises(RuleRefused, match="is running"):
        instances.request(user, machine, OperationKind.DELETE)
    with clock.frozen(booking.ends_at):
        assert instances.request(user, machine, OperationKind.DELETE)


def test_what_the_host_shows_is_written_down(host: Host) -> None:
    user = make_user()
    machines = {name: make_instance(user, host, name) for name in ("runs", "stopped", "gone", "busy", "odd")}
    machines["making"] = make_instance(user, host, "making", status=InstanceStatus.CREATING)
    machines["broken"] = make_instance(user, host, "broken", status=InstanceStatus.FAILED)
    machines["elsewhere"] = make_instance(user, make_host(), "elsewhere")
    operations.enqueue(user, machines["busy"], OperationKind.STOP)
    seen = {"runs": "running", "stopped": "stopped", "busy": "stopped", "odd": "error", "foreign": "running"}
    marked = {(name, user.username): status for name, status in seen.items()}
    by_hand = {("gone", ""): "running", ("broken", ""): "running"}
    instances.record_statuses(host.id, marked | by_hand, clock.now())
    assert {name: str(machine.status) for name, machine in machines.items()} == {
        "runs": "running",
        "stopped": "stopped",
        "gone": "missing",
        "busy": "running",  # its operation will say
        "odd": "running",
        "making": "creating",
        "broken": "failed",
        "elsewhere": "running",
    }
    assert machines["stopped"].status_at is not None
    assert machines["runs"].status_at is None
    db.session.expire_all()
    instances.record_statuses(host.id, {("gone", user.username): "running"}, clock.now())
    assert machines["gone"].status == "running", "what comes back is there again"


def test_a_look_that_is_older_than_what_was_done_says_nothing_of_it(host: Host) -> None:
    machine = make_instance(make_user("li"), host, "mine", status=InstanceStatus.STOPPED)
    mine = {("mine", "li"): "stopped"}
    began = clock.now()
    operation = operations.enqueue(None, machine, OperationKind.START)
    operations.finish(operation.id, "agent:ws1")
    for seen in (mine, {}):
        instances.record_statuses(host.id, seen, began)
        assert machine.status == InstanceStatus.RUNNING
    instances.record_statuses(host.id, mine, clock.now())
    assert machine.status == InstanceStatus.STOPPED
    machine.status, machine.status_at = InstanceStatus.RUNNING, clock.now() + timedelta(hours=8)  # by a clock set since
    instances.record_statuses(host.id, mine, clock.now())
    assert machine.status == InstanceStatus.STOPPED


def test_who_may_own_one() -> None:
    names = {make_user("active").username, make_admin("boss").username}
    make_user("off", state=UserState.DISABLED)
    make_user("new", state=UserState.PENDING)
    assert {user.username for user in instances.possible_owners()} == names
