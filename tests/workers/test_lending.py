"""The host's NVIDIA libraries for a machine that was made without them, as its host's agent gives them to it."""

from __future__ import annotations

import pytest
from flask import Flask

from app.drivers.base import GiveUp
from app.drivers.libraries import Way
from app.errors import Conflict
from app.extensions import db
from app.models import OperationKind, OperationState
from app.services import instances, inventory, lending, operations, upkeep
from app.services.lending import Source
from tests.workers.house import House, Now
from tests.workers.test_lifecycle import Home


@pytest.fixture
def home(app: Flask, house: House, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("workers.works.threading.Thread", Now)  # the test has one connection only
    return Home(app, house)


def bring(home: Home, way: Way | None) -> None:
    """As the agent's librarian does, and a slow look afterwards."""
    inventory.record_libraries(home.machine.host, home.lxd.bring_libraries(way))
    home.survey()


def test_a_machine_that_runs_has_a_mounted_directory_at_once(home: Home, house: House) -> None:
    bring(home, Way.MOUNT)
    before = lending.of(home.machine)
    assert before is not None
    assert (before.source, before.fit, before.may_lend) == (Source.NONE, None, True)
    lending.lend(house.alice, home.machine)
    done = home.do()
    assert (done.kind, done.state, done.details) == (OperationKind.LIBRARIES, OperationState.DONE, {"due": False})
    after = lending.of(home.machine)
    assert after is not None
    assert (after.source, after.version, after.fit) == (Source.MOUNT, "580.95.05", True)
    assert not after.due
    assert not after.may_lend
    lending.lend(house.alice, home.machine)
    assert (home.do().state, lending.of(home.machine)) == (OperationState.DONE, after)
    assert (home.status(), home.machine.status) == ("running", "running")


@pytest.mark.parametrize("switch", [OperationKind.RESTART, OperationKind.START])
def test_by_nvidia_runtime_they_come_with_its_next_start(home: Home, house: House, switch: OperationKind) -> None:
    if switch == OperationKind.START:
        instances.request(house.alice, home.machine, OperationKind.STOP)
        home.do()
    bring(home, Way.RUNTIME)
    lending.lend(house.alice, home.machine)
    assert home.do().details == {"due": True}
    found = lending.of(home.machine)
    assert found is not None
    assert (found.source, found.due, found.fit) == (Source.RUNTIME, True, None)
    instances.request(house.alice, home.machine, switch)
    assert home.do().state == OperationState.DONE
    for _look in range(2):  # at once, and as the next slow look sees it
        started = lending.of(home.machine)
        assert started is not None
        assert (started.due, started.fit) == (False, True)
        home.survey()


def test_one_that_only_goes_on_has_not_started(home: Home, house: House) -> None:
    bring(home, Way.RUNTIME)
    lending.lend(house.alice, home.machine)
    home.do()
    home.lxd.freeze("alice")
    home.lxd.start("alice")
    home.survey()
    found = lending.of(home.machine)
    assert found is not None
    assert (found.due, found.fit) == (True, None)


def test_one_that_is_stopped_has_a_mounted_directory_from_its_next_start_on(home: Home, house: House) -> None:
    bring(home, Way.MOUNT)
    instances.request(house.alice, home.machine, OperationKind.STOP)
    home.do()
    lending.lend(house.alice, home.machine)
    assert home.do().details == {"due": True}
    found = lending.of(home.machine)
    assert found is not None
    assert (found.source, found.due) == (Source.MOUNT, True)


def test_it_goes_on_after_an_agent_was_killed_at_it(home: Home, house: House) -> None:
    bring(home, Way.MOUNT)
    operation = lending.lend(house.alice, home.machine)
    db.session.commit()
    assert operations.claim(home.machine.host_id) is not None
    home.lxd.lend_libraries("alice")  # as far as it came
    assert home.do().state == OperationState.DONE
    assert operation.details == {"due": False}


def test_a_host_that_went_down_meanwhile_starts_it_first(home: Home, house: House) -> None:
    bring(home, Way.MOUNT)
    operation = lending.lend(house.alice, home.machine)
    db.session.commit()
    assert upkeep.after_reboot(home.machine.host_id) > 0
    db.session.refresh(operation)
    assert operation.details["start"]


def test_another_ones_is_left_alone(home: Home, house: House) -> None:
    bring(home, Way.MOUNT)
    lending.lend(house.alice, home.machine)
    home.lxd.add_instance("alice", owner="mallory")
    failed = home.do()
    assert failed.state == OperationState.FAILED
    assert "nvidia-lib" not in home.lxd.survey().instances["alice"].devices


def test_where_and_when_it_cannot_be(home: Home, house: House) -> None:
    assert lending.of(home.machine) is None, "nobody has looked yet"
    bring(home, Way.INSTALL)
    found = lending.of(home.machine)
    assert found is not None
    assert not found.may_lend
    with pytest.raises(Conflict, match="brings no NVIDIA libraries"):
        lending.lend(house.alice, home.machine)
    bring(home, Way.MOUNT)
    home.set(status="frozen")
    with pytest.raises(Conflict, match="paused"):
        lending.lend(house.alice, home.machine)
    home.set(status="running")
    home.lxd.fail_next("lend_libraries", GiveUp("Give alice NVIDIA's libraries", "the instance is privileged", ""))
    lending.lend(house.alice, home.machine)
    assert "privileged" in home.do().error
