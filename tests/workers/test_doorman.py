"""The doorman over a simulated host: what is missing of ports, keys and accounts is made, and trouble is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from app.drivers.fake import FakeLxd
from app.extensions import db
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState, Purpose
from app.services import access, desktops, instances, machine_passwords, operations, ports, ssh_keys
from tests.factories import make_host, make_instance, make_user
from tests.services.test_ssh_keys import GOOD
from workers import doorman as doormen
from workers import scripts
from workers.doorman import Doorman
from workers.works import Work, _attempt

HOST_KEY = "ssh-ed25519 " + "A" * 68
SETTLED = f"missing sudo\nsettled\nuid 20001\n{HOST_KEY} root@x\n"


class House:
    """A host with Alice's machine, which has its ports."""

    def __init__(self, app: Flask, folder: Path) -> None:
        self.app, self.lxd = app, FakeLxd(folder / "lab.json", pace=0)
        self.host = make_host("lab", images=[{"alias": "base", "description": ""}])
        self.alice = make_user("alice")
        make_instance(self.alice, self.host, "alice")
        ports.reserve(self.machine, self.host)
        self.lxd.add_instance("alice", owner="alice")
        self.lxd.answer("alice", 0, SETTLED)
        self.doorman = Doorman(app, "lab", self.lxd)

    @property
    def machine(self) -> Instance:
        return db.session.scalars(
            db.select(Instance).where(Instance.name == "alice").execution_options(populate_existing=True)
        ).one()

    def port(self, purpose: Purpose = Purpose.SSH):
        db.session.expire_all()
        return ports.of_machine(self.machine.id)[purpose]

    def step(self) -> int:
        db.session.commit()
        return self.doorman.step()

    def work(self) -> Operation:
        """Do what is queued, in this thread: the test's transaction is not one to share."""
        operation = operations.claim(self.host.id)
        assert operation is not None
        operations.finish(operation.id, "agent:lab", _attempt(Work(operation, self.lxd)))
        db.session.expire_all()
        return operation


@pytest.fixture
def house(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(doormen, "CALM", 0.0)
    monkeypatch.setattr(doormen, "AGAIN", 0.0)
    return House(app, tmp_path)


def test_what_is_missing_is_made_once(house: House) -> None:
    assert house.step() == 1
    health = house.machine.health
    assert (health["account"], health["missing"], health["host_keys"]) == ("ok", ["sudo"], [HOST_KEY])
    assert health["uid"] == 20001
    assert house.lxd.doorways()["alice"].doors.keys() == {"ssh", "rdp"}
    assert (house.port().trouble, health["ssh"], health["rdp"]) == ("", "", "closed")
    ran = len(house.lxd.ran("alice"))
    house.step()
    assert len(house.lxd.ran("alice")) == ran, "settled once, and no keys to write"


def test_nothing_is_asked_of_lxd_while_no_machine_has_doors(house: House) -> None:
    ports.release(house.machine.id)
    before = house.lxd.calls()
    assert house.step() == 0
    assert house.lxd.calls() == before


def test_machines_under_work_are_left_alone(house: House) -> None:
    operations.enqueue(None, house.machine, OperationKind.STOP)
    assert house.step() == 0


def test_keys_are_written_whenever_they_change(house: House) -> None:
    house.step()
    key = ssh_keys.add("test", house.alice, GOOD)
    house.step()
    assert house.lxd.given("alice") == GOOD
    assert access.has_keys(house.machine.id)
    ran = len(house.lxd.ran("alice"))
    house.step()
    assert len(house.lxd.ran("alice")) == ran
    ssh_keys.remove("test", house.alice, key.id)
    assert not access.has_keys(house.machine.id)
    house.step()
    assert access.has_keys(house.machine.id)
    house.lxd.answer("alice", 4)
    ssh_keys.add("test", house.alice, GOOD)
    house.step()
    assert not access.has_keys(house.machine.id), "it did not work, and is done again"


def test_a_snapshot_put_back_brings_no_removed_key_back(house: House) -> None:
    key = ssh_keys.add("test", house.alice, GOOD)
    house.step()
    house.lxd.snapshot("alice", "hand-1")
    ssh_keys.remove("test", house.alice, key.id)
    house.step()
    assert access.has_keys(house.machine.id)
    instances.request(None, house.machine, OperationKind.RESTORE, snapshot="hand-1", ran=True)
    assert [argv[-1] for argv in _ran(house, house.work)] == [scripts.KEYS], "before anybody can come by the old one"
    assert not access.has_keys(house.machine.id), "nothing is held to be on that disk"
    assert [argv[-1] for argv in _ran(house, house.step)] == [scripts.SETTLE, scripts.KEYS]
    assert access.has_keys(house.machine.id)


def test_a_machine_without_ways_in_gets_no_keys_by_a_restore(house: House) -> None:
    ssh_keys.add("test", house.alice, GOOD)
    ports.release(house.machine.id)
    house.lxd.snapshot("alice", "hand-1")
    instances.request(None, house.machine, OperationKind.RESTORE, snapshot="hand-1", ran=True)
    assert _ran(house, house.work) == []
    assert house.lxd.restored("alice") == "hand-1"


def test_a_restore_whose_port_is_taken_in_between(house: House) -> None:
    house.step()
    house.lxd.snapshot("alice", "hand-1")
    house.lxd.occupy(house.port().number)
    instances.request(None, house.machine, OperationKind.RESTORE, snapshot="hand-1", ran=True)
    assert house.work().state == OperationState.DONE
    assert house.lxd.observe().instances["alice"].status == "running"


def _ran(house: House, act: Callable[[], object]) -> list[list[str]]:
    """The commands that are run in the machine while that is done."""
    before = len(house.lxd.ran("alice"))
    act()
    return house.lxd.ran("alice")[before:]


def test_a_busy_port_is_said_and_heals(house: House) -> None:
    number = house.port().number
    house.lxd.occupy(number)
    house.step()
    assert house.port().trouble == "busy"
    assert house.lxd.doorways()["alice"].doors.keys() == {"rdp"}
    house.lxd.occupy()
    house.step()
    assert (house.port().trouble, house.port().number) == ("", number)
    assert house.lxd.doorways()["alice"].doors.keys() == {"ssh", "rdp"}


def test_a_stopped_machine_loses_a_door_that_it_could_not_open_and_starts(house: House) -> None:
    house.step()
    house.lxd.stop("alice", force=True)
    house.machine.status = InstanceStatus.STOPPED
    house.lxd.occupy(house.port(Purpose.RDP).number)
    instances.request(None, house.machine, OperationKind.START)
    assert house.work().state == OperationState.DONE
    assert house.lxd.doorways()["alice"].doors.keys() == {"ssh"}
    assert house.port(Purpose.RDP).trouble == "busy"
    assert house.machine.health["ssh"] is None, "nobody has asked since"
    house.lxd.stop("alice", force=True)
    house.lxd.occupy(house.port().number)
    house.step()
    assert not house.lxd.doorways()["alice"].doors, "for whoever starts it by other ways"


def test_a_restart_whose_port_is_taken_in_between(house: House) -> None:
    house.step()
    house.lxd.occupy(house.port().number)
    instances.request(None, house.machine, OperationKind.RESTART)
    assert house.work().state == OperationState.DONE
    assert house.lxd.doorways()["alice"].doors.keys() == {"rdp"}


def test_a_door_that_lxd_lists_and_nobody_keeps_is_made_anew(house: House) -> None:
    house.step()
    house.lxd.silence(("alice", "ssh"))
    house.step()
    assert house.machine.health["ssh"] == "refused"
    opened = house.lxd.calls().count("open_door")
    # the simulated port counts as taken while the machine runs: only one that is free may be opened anew
    house.step()
    assert house.lxd.calls().count("open_door") == opened


def test_a_creation_takes_other_numbers_for_those_that_are_taken(house: House) -> None:
    house.lxd.occupy(22002, 22003)
    operation = instances.request_create(
        None, house.alice, name="fresh", host=house.host, image="base", cpus=1, memory_gib=1, disk_gib=1
    )
    house.lxd.answer("fresh", 127, "sh: not found")
    house.work()
    assert operations.outcome(operation.id) == (OperationState.DONE, ""), "it runs, whatever the image lacks"
    made = instances.get(None, "fresh")
    assert made.health["account"] == "failed"
    assert {port.number for port in ports.of_machine(made.id).values()} == {22004, 22005}
    assert house.lxd.doorways()["fresh"].doors["ssh"]["listen"].endswith(":22004")


@pytest.mark.parametrize(("status", "word"), [(0, "ok"), (3, "taken"), (4, "failed"), (1, "failed")])
def test_what_came_of_the_account(house: House, status: int, word: str) -> None:
    house.lxd.answer("alice", status, "nonsense\nmissing everything\nmissing sshd\n")
    house.step()
    assert (house.machine.health["account"], house.machine.health["missing"]) == (word, ["sshd"])


def test_a_password_goes_in_as_a_hash_and_stays_nowhere(house: House) -> None:
    _operation, password = machine_passwords.request(None, house.machine)
    done = house.work()
    assert (done.state, done.details) == (OperationState.DONE, {})
    assert house.lxd.given("alice").startswith("$6$")
    assert password not in house.lxd.given("alice")
    assert house.machine.password_at is not None
    house.lxd.answer("alice", 1, "chpasswd: no\n")
    machine_passwords.request(None, house.machine)
    failed = house.work()
    assert (failed.state, failed.details) == (OperationState.FAILED, {})
    assert "chpasswd: no" in failed.error


def test_the_workstations_own_desktop_is_tried_where_it_is_offered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doormen, "CALM", 60.0)

    def answer() -> str | None:
        house.step()
        db.session.expire_all()
        return house.host.desktop_answer

    assert answer() is None
    desktops.offer("test", house.host, 3389)
    assert answer() == "refused"
    house.lxd.serve_desktop(3389)
    assert answer() == ""
    house.lxd.serve_desktop()
    assert answer() == "", "one that answered is not asked at each round"
    desktops.offer("test", house.host, None)
    assert answer() is None
