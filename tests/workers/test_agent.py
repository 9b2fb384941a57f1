"""When an agent looks again, and what it does without help from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import inspect, select
from sqlalchemy.exc import DataError, OperationalError, SQLAlchemyError

from app import create_core
from app.drivers.base import DriverError, GiveUp, HostUnreachable, InstanceSpec, TryAgain
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.errors import NotFound
from app.extensions import transaction
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState
from app.services import inventory, operations, upkeep
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_user
from tests.runtime.running import wait_for
from tests.workers.house import full_disk
from workers import agent as agents
from workers import works
from workers.agent import Agent, until_next
from workers.jobs import LOOK, WORK
from workers.locks import Held, exclusive, pass_lock
from workers.works import Work

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("began", "now", "boundary", "wait"),
    [
        (0, 0.1, None, 5),  # nothing comes
        (0, 0.1, 60, 5),  # the tick is sooner
        (0, 0.1, 2.1, 2.003),  # exactly then, a little past
        (0, 0.1, 0.05, 0),  # it came during the pass, which did not see it
        (0, 0.1, 0, 5),  # the pass saw it
        (0, 0.1, -3, 5),  # an old one that cannot be done is no reason to spin
    ],
)
def test_next_pass(began: float, now: float, boundary: float | None, wait: float) -> None:
    moment = None if boundary is None else at(boundary)
    assert until_next(at(began), at(now), moment, 5) == pytest.approx(wait, abs=1e-6)


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Flask:
    app = create_core(settings_for(fresh_db, tmp_path, BERTH_TICK="60"))
    with app.app_context(), transaction():
        make_host("ws1", endpoint="sim:ws1", gpus=2)
    return app


@contextmanager
def working(agent: Agent) -> Iterator[Agent]:
    """The agent's two threads, without its signals and its ear."""
    threads = [threading.Thread(target=agent._passes), threading.Thread(target=agent._operations)]
    LOOK.clear()
    WORK.clear()
    for thread in threads:
        thread.start()
    try:
        yield agent
    finally:
        agent.stop.set()
        LOOK.set()
        WORK.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


def fake(core: Flask) -> FakeLxd:
    path = core.extensions["berth"].data_dir / "sim" / "ws1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FakeLxd(path, gpus=2, pace=0)


def passes(core: Flask) -> int:
    return fake(core).calls().count("observe")


def test_a_wake_is_a_pass_and_one_during_a_pass_is_one_more(core: Flask) -> None:
    driver = fake(core)
    with working(Agent(core, "ws1", driver, None)):
        wait_for(lambda: passes(core) == 1)
        LOOK.set()
        wait_for(lambda: passes(core) == 2)
        time.sleep(0.2)  # and no third: nobody asked
        assert passes(core) == 2


def test_what_is_done_in_vain_is_not_done_without_a_pause(core: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """LXD tells of each attempt, and what it tells is a reason to look again."""
    driver, now = fake(core), datetime.now(UTC).replace(microsecond=0)
    driver.create(InstanceSpec("alice", "base", 1, 1024, 5, "alice"), lambda *_: None)
    with core.app_context(), transaction():
        user, host = make_user("alice"), inventory.host("ws1")
        make_instance(user, host, "alice")
        make_booking(user, gpus_of(host)[:1], now, now + timedelta(hours=1))

    def attach(*_: object) -> None:
        LOOK.set()
        raise TryAgain("Attach", "it does not work")

    monkeypatch.setattr(driver, "attach", attach)
    with working(Agent(core, "ws1", driver, None)):
        wait_for(lambda: passes(core) >= 2)
        before, began = passes(core), time.monotonic()
        time.sleep(0.8)
        more = passes(core) - before
        assert more <= 2 + 2 * (1 + time.monotonic() - began), "two looks a second at most"
        wait_for(lambda: passes(core) > before)


def test_where_holders_cannot_be_looked_for_a_machine_can_still_be_restarted(
    core: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the way out: after a reboot operations wait for a pass that could look, not for one without trouble."""
    driver = fake(core)
    kernel = FakeKernel(core.extensions["berth"].data_dir / "sim" / "ws1.json")
    hangs = DriverError("Look", "8 looks hang", "Restart the machines at fault.")
    monkeypatch.setattr(kernel, "scan", lambda *_, **__: (_ for _ in ()).throw(hangs))
    agent = Agent(core, "ws1", driver, kernel)
    agent.looked.clear()
    with working(agent):
        wait_for(agent.looked.is_set)
    assert not agent.one_pass().ok


def test_a_failing_pass_and_a_host_that_is_away_do_not_end_the_agent(core: Flask) -> None:
    driver = fake(core)
    driver.fail_next("observe", HostUnreachable("observe", "gone"))
    with working(Agent(core, "ws1", driver, None)):
        wait_for(lambda: passes(core) == 1)
        LOOK.set()
        wait_for(lambda: passes(core) == 2)
        with core.app_context():
            wait_for(lambda: _trouble() == "", why="all is well again")


def test_the_agent_of_a_host_that_was_removed_says_so_in_a_line(core: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with core.app_context(), transaction():
        inventory.remove_host("ana", inventory.host("ws1"))
    agent = Agent(core, "ws1", fake(core), None)
    passing = threading.Thread(target=agent._passes)
    LOOK.clear()
    passing.start()
    wait_for(lambda: caplog.records)
    agent.stop.set()
    LOOK.set()
    passing.join(30)
    assert "There is no host ws1. Removed from Berth, it needs no agent" in caplog.text
    assert "Traceback" not in caplog.text


def _trouble() -> str:
    with transaction() as session:
        session.expire_all()
        return inventory.host("ws1").trouble


def test_whether_the_host_was_rebooted_is_asked_until_the_database_answers(
    core: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the database may come up after the agent: no pass may write down first that nothing runs."""
    driver = fake(core)
    driver.create(InstanceSpec("alice", "base", 1, 1024, 5, "alice"), lambda *_: None)
    driver.stop("alice", force=True)
    with core.app_context(), transaction():
        make_instance(make_user("alice"), inventory.host("ws1"), "alice")
    kept = core.extensions["berth"].data_dir / "agents" / "ws1.boot"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("before")
    ask, trouble = upkeep.after_reboot, [OperationalError("SELECT", {}, Exception("the database is starting up"))]

    def starting_up(host_id: int) -> int:
        if trouble:
            raise trouble.pop()
        return ask(host_id)

    monkeypatch.setattr(upkeep, "after_reboot", starting_up)
    agent = Agent(core, "ws1", driver, None)
    assert not agent.one_pass().ok
    assert not agent.looked.is_set(), "and no work is done before it is known"
    with core.app_context(), transaction() as session:
        assert session.scalar(select(Instance.status)) == InstanceStatus.RUNNING
    with working(agent):
        wait_for(lambda: driver.observe().instances["alice"].status == "running", why="started again")


def test_only_one_pass_at_a_time(core: Flask) -> None:
    agent = Agent(core, "ws1", fake(core), None)
    with exclusive(pass_lock(agent.settings.run_dir, "ws1")):
        waiting = threading.Thread(target=agent.one_pass)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert passes(core) == 0
    waiting.join(10)
    assert passes(core) == 1


def test_work_that_lost_its_agent_is_taken_up(core: Flask) -> None:
    with core.app_context(), transaction():
        user, host = make_user("alice"), inventory.host("ws1")
        instance = make_instance(user, host, "alice-ws1", image="base", status=InstanceStatus.CREATING)
        operation = operations.enqueue(user, instance, OperationKind.CREATE)
        operation.state = OperationState.RUNNING  # and then its agent was killed
        operation_id = operation.id
    with working(Agent(core, "ws1", fake(core), None)), core.app_context():

        def state() -> str:
            with transaction() as session:
                return session.get_one(Operation, operation_id, populate_existing=True).state

        wait_for(lambda: state() == OperationState.DONE, why="done")
    assert fake(core).observe().instances["alice-ws1"].status == "running"


def test_long_work_is_not_begun_twice_when_the_database_hiccups(core: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what goes on meanwhile, nor for ever what was taken as the connection broke, and nobody heard of it."""
    with core.app_context(), transaction():
        user, host = make_user("alice"), inventory.host("ws1")
        machines = [make_instance(user, host, name, status=InstanceStatus.CREATING) for name in ("long", "lost")]
        long, lost = [operations.enqueue(user, machine, OperationKind.CREATE).id for machine in machines]
    agent, looks, begun, may_end = Agent(core, "ws1", fake(core), None), [], [], threading.Event()
    apart = list[bool]()

    def create(work: Work) -> None:
        begun.append((work.operation.id, work.instance.name, work.instance.owner.username))
        apart.append(inspect(work.operation).detached)
        if work.operation.id == long:
            may_end.wait(30)

    def hiccup(*arguments: object) -> Operation | None:
        looks.append(claimed := claim(*arguments))
        if len(looks) == 2:
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))
        return claimed

    def ticks() -> None:
        for _tick in range(2):
            with suppress(SQLAlchemyError):
                agent.work(wait=False)

    claim = works._claim
    monkeypatch.setitem(works.HANDLERS, OperationKind.CREATE, create)
    monkeypatch.setattr(works, "_claim", hiccup)
    at_work = threading.Thread(target=ticks)
    at_work.start()
    try:
        wait_for(lambda: (lost, "lost", "alice") in begun and len(looks) > 5, why="what was lost is taken up")
        assert begun == [(long, "long", "alice"), (lost, "lost", "alice")]
    finally:
        may_end.set()
        at_work.join(30)
    assert len(begun) == 2
    assert apart == [True, True], "no rollback and no other thread touches what a thread works at"
    with core.app_context():
        assert [operations.outcome(one) for one in (long, lost)] == [(OperationState.DONE, "")] * 2


@pytest.mark.parametrize("kind", [OperationKind.RESTART, OperationKind.STOP])
def test_what_no_database_takes_fails_once(core: Flask, monkeypatch: pytest.MonkeyPatch, kind: OperationKind) -> None:
    """A machine answers what its root likes; done again for ever, it would take a hand from all others."""
    with core.app_context(), transaction():
        machine = make_instance(make_user("alice"), inventory.host("ws1"), "mine")
        number = operations.enqueue(None, machine, kind).id
    begun, finish = [], operations.finish

    def refused(_work: Work) -> None:
        begun.append(1)
        raise GiveUp("Ask it", "no\0")

    def odd(number: int, actor: str, error: str = "") -> None:
        if kind == OperationKind.STOP and "Ask it" in error:
            raise DataError("UPDATE", {}, Exception("something else that it does not take"))
        finish(number, actor, error)

    monkeypatch.setitem(works.HANDLERS, kind, refused)
    monkeypatch.setattr(operations, "finish", odd)
    at_work = threading.Thread(target=Agent(core, "ws1", fake(core), None).work, kwargs={"wait": False}, daemon=True)
    at_work.start()
    at_work.join(30)
    assert not at_work.is_alive()
    assert begun == [1]
    with core.app_context():
        state, error = operations.outcome(number)
    assert state == OperationState.FAILED
    assert ("Ask it" in error) == (kind == OperationKind.RESTART)


def test_work_whose_end_the_database_did_not_take_is_done_again_beside_long_work(
    core: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with core.app_context(), transaction():
        user, host = make_user("alice"), inventory.host("ws1")
        machines = [make_instance(user, host, name, status=InstanceStatus.CREATING) for name in ("long", "short")]
        long, short = [operations.enqueue(user, machine, OperationKind.CREATE).id for machine in machines]
    may_end, finish, lost = threading.Event(), operations.finish, [short]

    def create(work: Work) -> None:
        assert work.operation.id == short or may_end.wait(30)

    def end(operation_id: int, *words: str) -> None:
        if operation_id in lost:
            lost.remove(operation_id)
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))
        finish(operation_id, *words)

    def outcomes() -> list[str]:
        with core.app_context():
            return [operations.outcome(one)[0] for one in (long, short)]

    monkeypatch.setitem(works.HANDLERS, OperationKind.CREATE, create)
    monkeypatch.setattr(operations, "finish", end)
    at_work = threading.Thread(target=Agent(core, "ws1", fake(core), None).work, kwargs={"wait": False})
    at_work.start()
    try:
        wait_for(lambda: outcomes() == [OperationState.RUNNING, OperationState.DONE], why="the short one is done")
    finally:
        may_end.set()
        at_work.join(30)
    assert (outcomes(), lost) == ([OperationState.DONE] * 2, [])


def test_operations_are_one_process_at_a_time(core: Flask) -> None:
    agent = Agent(core, "ws1", fake(core), None)
    with exclusive(agent.settings.run_dir / "operations-ws1.lock"), pytest.raises(Held):
        agent.work(wait=False)


def test_an_agent_starts_without_the_database_if_it_knows_its_host(core: Flask, tmp_path: Path) -> None:
    assert agents.make(core, "ws1").host_name == "ws1"
    away = create_core(settings_for("postgresql://x@/x?host=/nowhere", tmp_path))
    assert agents.make(away, "ws1").driver.server().version == "simulated"
    with pytest.raises(DriverError, match="agent of ws2"):
        agents.make(away, "ws2")
    with pytest.raises(NotFound):
        agents.make(core, "ws2")


def test_an_agent_starts_on_a_full_disk_and_still_knows_its_host_without_the_database(
    core: Flask, tmp_path: Path
) -> None:
    agents.make(core, "ws1")
    kept = core.extensions["berth"].data_dir / "agents" / "ws1.endpoint"
    with full_disk():
        assert agents.make(core, "ws1").host_name == "ws1"
        with core.app_context(), transaction():
            inventory.host("ws1").endpoint = "sim:"
        assert agents.make(core, "ws1").host_name == "ws1"
    assert kept.read_text() == "sim:ws1", "whole, as it was"
    agents.make(core, "ws1")
    assert kept.read_text() == "sim:"
    away = create_core(settings_for("postgresql://x@/x?host=/nowhere", tmp_path))
    kept.write_text("")  # as an older version left it there
    with pytest.raises(DriverError, match="agent of ws1"):
        agents.make(away, "ws1")


def test_a_name_that_leads_elsewhere_is_no_hosts_whatever_the_database_says(core: Flask) -> None:
    with core.app_context(), transaction():
        inventory.host("ws1").name = "../ws1"
    with pytest.raises(DriverError, match="that is no name of a host"):
        agents.make(core, "../ws1")
    assert not (core.extensions["berth"].data_dir / "ws1.endpoint").exists()
