"""Long work on machines: one at a time, done in order, taken up again after a crash, written down once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from app import create_app
from app.errors import Conflict, InvalidInput, RuleRefused
from app.extensions import db, transaction
from app.models import AuditEvent, Host, Instance, InstanceStatus, OperationKind, OperationState, Port, User
from app.services import instances, operations
from tests.conftest import settings_for
from tests.factories import make_host, make_instance, make_user

pytestmark = pytest.mark.usefixtures("app")


def events(target: str) -> list[str]:
    query = db.select(AuditEvent.action).where(AuditEvent.target == target).order_by(AuditEvent.id)
    return list(db.session.scalars(query))


def test_one_at_a_time_for_a_machine() -> None:
    user, host = make_user(), make_host()
    one, other = make_instance(user, host, "one"), make_instance(user, host, "other")
    first = operations.enqueue(user, one, OperationKind.STOP)
    with pytest.raises(Conflict, match="still under way"):
        operations.enqueue(user, one, OperationKind.START)
    operations.enqueue(user, other, OperationKind.START)
    operations.finish(first.id, "agent")
    operations.enqueue(user, one, OperationKind.START)


def test_claimed_in_order_and_once_and_only_by_their_host() -> None:
    user, host, elsewhere = make_user(), make_host(), make_host()
    first = operations.enqueue(user, make_instance(user, host, "a"), OperationKind.STOP)
    second = operations.enqueue(None, make_instance(user, host, "b"), OperationKind.START)
    assert operations.claim(elsewhere.id) is None
    assert [operations.claim(host.id), operations.claim(host.id), operations.claim(host.id)] == [first, second, None]
    assert first.state == OperationState.RUNNING
    assert first.started_at is not None
    assert first.instance.owner.username == user.username


def test_what_a_dead_agent_left_is_done_again() -> None:
    user, host = make_user(), make_host()
    operation = operations.enqueue(user, make_instance(user, host), OperationKind.STOP)
    operations.claim(host.id)
    assert operations.requeue_interrupted(host.id) == 1
    assert operations.requeue_interrupted(host.id) == 0
    assert operations.claim(host.id) is operation


@pytest.mark.parametrize(
    ("kind", "error", "before", "after"),
    [
        (OperationKind.CREATE, "", "creating", "running"),
        (OperationKind.CREATE, "no space", "creating", "failed"),
        (OperationKind.START, "", "stopped", "running"),
        (OperationKind.START, "no", "stopped", "stopped"),
        (OperationKind.STOP, "", "running", "stopped"),
        (OperationKind.STOP, "it hangs", "running", "running"),
        (OperationKind.RESTART, "", "running", "running"),
        (OperationKind.DELETE, "busy", "stopped", "stopped"),
    ],
)
def test_the_end_of_an_operation_is_written_to_the_machine(
    kind: OperationKind, error: str, before: str, after: str
) -> None:
    user = make_user()
    instance = make_instance(user, make_host(), status=InstanceStatus(before))
    operation = operations.enqueue(user, instance, kind)
    operations.progress(operation.id, "copying", 40)
    operations.finish(operation.id, "agent:x", error)
    assert instance.status == after
    assert operation.state == (OperationState.FAILED if error else OperationState.DONE)
    assert operation.percent == (40 if error else 100)
    assert operation.error == error


def test_deleted_machines_are_gone_and_their_name_is_free() -> None:
    user, host = make_user(), make_host()
    instance = make_instance(user, host, "gamma")
    operations.finish(operations.enqueue(user, instance, OperationKind.DELETE).id, "agent")
    assert instance.deleted_at is not None
    assert instances.of_user(user) == []
    make_instance(user, host, "gamma")


def test_finishing_twice_is_written_once() -> None:
    user = make_user()
    operation = operations.enqueue(user, make_instance(user, make_host(), "gamma"), OperationKind.STOP)
    operations.finish(operation.id, "agent:x")
    operations.finish(operation.id, "agent:x", "too late")
    assert operation.state == OperationState.DONE
    assert events("instance:gamma") == ["instance.stop.asked", "instance.stop"]


def test_the_newest_of_each_machine() -> None:
    user, host = make_user(), make_host()
    one, other, none = (make_instance(user, host, name) for name in ("one", "other", "none"))
    operations.finish(operations.enqueue(user, one, OperationKind.STOP).id, "agent")
    newest = operations.enqueue(user, one, OperationKind.START)
    alone = operations.enqueue(user, other, OperationKind.STOP)
    assert operations.latest([one.id, other.id, none.id]) == {one.id: newest, other.id: alone}
    assert operations.last(one.id) is newest
    assert operations.last(none.id) is None


@pytest.fixture
def portal(fresh_db: str, tmp_path) -> Flask:
    """An application with real commits, for threads."""
    return create_app(settings_for(fresh_db, tmp_path))


def race(portal: Flask, work, count: int = 8) -> list[str]:
    """The work in so many threads at once, each with a transaction of its own: what came out of each."""

    def one(_number: int) -> str:
        with portal.app_context():
            try:
                with transaction():
                    work()
            except (Conflict, InvalidInput, RuleRefused) as error:
                return type(error).__name__
            return "done"

    with ThreadPoolExecutor(count) as pool:
        return sorted(pool.map(one, range(count)))


def test_of_eight_who_want_to_switch_one_machine_one_does(portal: Flask) -> None:
    with portal.app_context(), transaction():
        make_instance(make_user("racer"), make_host("race"), "gamma")

    def switch() -> None:
        instances.request(None, instances.get(None, "gamma"), OperationKind.STOP)

    assert race(portal, switch) == ["Conflict"] * 7 + ["done"]


def test_of_eight_who_want_one_name_one_gets_it(portal: Flask) -> None:
    with portal.app_context(), transaction():
        make_user("racer")
        make_host("race", images=[{"alias": "base", "description": ""}])

    def create() -> None:
        owner = db.session.scalars(db.select(User)).one()
        host = db.session.scalars(db.select(Host)).one()
        instances.request_create(None, owner, name="gamma", host=host, image="base", cpus=1, memory_gib=1, disk_gib=1)

    assert race(portal, create) == ["InvalidInput"] * 7 + ["done"]


def test_one_person_at_eight_forms_gets_as_many_as_allowed(portal: Flask) -> None:
    with portal.app_context(), transaction():
        make_user("racer")
        make_host("race", images=[{"alias": "base", "description": ""}])
    names = iter(f"gamma{number}" for number in range(8))

    def create() -> None:
        owner = db.session.scalars(db.select(User)).one()
        host = db.session.scalars(db.select(Host)).one()
        instances.request_create(
            owner, owner, name=next(names), host=host, image="base", cpus=1, memory_gib=1, disk_gib=1
        )

    assert race(portal, create) == ["RuleRefused"] * 6 + ["done"] * 2
    with portal.app_context():
        assert db.session.scalar(db.select(db.func.count(Instance.id))) == 2


def test_eight_machines_at_once_get_sixteen_ports(portal: Flask) -> None:
    with portal.app_context(), transaction():
        make_user("racer")
        make_host("race", images=[{"alias": "base", "description": ""}])
    names = iter(f"gamma{number}" for number in range(8))

    def create() -> None:
        owner = db.session.scalars(db.select(User)).one()
        host = db.session.scalars(db.select(Host)).one()
        instances.request_create(
            None, owner, name=next(names), host=host, image="base", cpus=1, memory_gib=1, disk_gib=1
        )

    assert race(portal, create) == ["done"] * 8
    with portal.app_context():
        assert sorted(db.session.scalars(db.select(Port.number))) == list(range(22000, 22016))
