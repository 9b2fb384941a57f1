"""A machine's life as its host's agent does it: on a simulated host, and again after each place where it was killed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import joinedload

from app import clock
from app.drivers.base import DriverError, GiveUp, HostUnreachable, ServerInfo, TryAgain
from app.drivers.fake import FakeLxd
from app.errors import Conflict, InvalidInput
from app.extensions import db
from app.models import Backup, Host, Instance, InstanceStatus, Operation, OperationKind, OperationState, Schedule
from app.services import adoption, care, instances, moving, operations, snapshots, surveys, upkeep
from tests.factories import gpus_of, make_booking, make_host, make_template
from tests.workers.house import NOW, House, Now, full_disk
from workers.surveyor import Surveyor, after_reboot
from workers.works import HANDLERS, run_operations

Freeze = Callable[..., None]


class Home:
    """Alice's machine on the house's host."""

    def __init__(self, app: Flask, house: House) -> None:
        self.app, self.house, self.lxd = app, house, house.lxd
        self.work = threading.Event()
        self.surveyor = Surveyor(app, "lab", house.lxd, self.work)

    @property
    def machine(self) -> Instance:
        db.session.expire_all()
        query = db.select(Instance).where(Instance.owner_id == self.house.alice.id).order_by(Instance.id)
        query = query.options(joinedload(Instance.owner), joinedload(Instance.host))
        return db.session.scalars(query).first()

    def do(self) -> Operation:
        """What is queued, by the agent; the last operation on the machine."""
        db.session.commit()
        run_operations(self.app, "lab", self.lxd)
        db.session.expire_all()
        return operations.last(self.machine.id)

    def survey(self) -> None:
        db.session.commit()
        self.surveyor.step()
        db.session.expire_all()

    def set(self, **values: object) -> None:
        db.session.execute(db.update(Instance).where(Instance.owner_id == self.house.alice.id).values(**values))
        db.session.commit()

    def status(self, name: str = "alice") -> str:
        return self.lxd.observe().instances[name].status

    def snapshots(self) -> list[str]:
        return [one.name for one in self.lxd.survey().instances["alice"].snapshots]


@pytest.fixture
def home(app: Flask, house: House, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("workers.works.threading.Thread", Now)  # the test has one connection only
    return Home(app, house)


def test_pause_and_resize(home: Home, house: House) -> None:
    care.freeze(house.alice, home.machine)
    assert (home.do().state, home.status()) == ("done", "frozen")
    assert home.machine.status == InstanceStatus.FROZEN
    instances.request(house.alice, home.machine, OperationKind.START)
    home.do()
    care.resize(house.alice, home.machine, cpus=2, memory_gib=6, disk_gib=30)
    assert home.do().state == OperationState.DONE
    assert home.lxd.size("alice") == [2, 6144, 30]
    assert (home.machine.cpus, home.machine.observed["cpus"]) == (2, "2")


def test_a_move_stops_it_and_its_new_host_starts_it(home: Home, house: House) -> None:
    home.survey()
    there = FakeLxd(house.lxd._path.with_name("lab2.json"), pace=0)  # its neighbour
    there.gpus()
    target = make_host("lab2", endpoint="sim:", member="lab2", cluster="simulated")
    home.lxd.fail_next("move", GiveUp("Move", "there is no room there", ""))
    moving.request(house.alice, home.machine, target)
    assert "no room" in home.do().error
    assert (home.status(), home.machine.host.name) == ("running", "lab")
    home.lxd.plug("alice", "gpu-0000-01-00-0", "0000:01:00.0")
    backup = Backup(instance_id=home.machine.id, host_id=home.machine.host_id, ready_at=clock.now())
    db.session.add(backup)
    moving.request(house.alice, home.machine, target)
    after = home.do()
    assert (after.kind, after.state, after.host_id) == (OperationKind.START, OperationState.QUEUED, target.id)
    assert "alice" not in home.lxd.observe().instances
    run_operations(home.app, "lab2", there)
    assert (home.machine.host.name, home.machine.status) == ("lab2", InstanceStatus.RUNNING)
    found = there.observe().instances["alice"]
    assert (found.status, found.devices) == ("running", ())
    db.session.refresh(backup)
    assert backup.removed_at is not None, "its file stayed on the other host"


def test_a_move_that_was_killed_after_it_was_done_is_finished(home: Home, house: House) -> None:
    home.survey()
    FakeLxd(house.lxd._path.with_name("lab2.json"), pace=0).gpus()
    target = make_host("lab2", endpoint="sim:", member="lab2", cluster="simulated")
    moving.request(house.alice, home.machine, target)
    home.lxd.stop("alice")
    home.lxd.move("alice", "lab2", lambda *_: None)
    assert home.do().kind == OperationKind.START
    assert home.machine.host.name == "lab2"


def test_a_rename_goes_through_a_stop(home: Home, house: House) -> None:
    care.rename(house.alice, home.machine, "alina")
    assert home.do().state == OperationState.DONE
    assert (home.machine.name, home.status("alina")) == ("alina", "running")
    assert home.lxd.calls().index("stop") < home.lxd.calls().index("rename") < home.lxd.calls().index("start")


def test_a_name_that_the_host_has_not_given_up_yet_is_taken(home: Home, house: House) -> None:
    """Else a new machine of that name would be given the container of the renamed one."""
    house.host.images = [{"alias": "base"}]
    db.session.commit()
    care.rename(house.alice, home.machine, "alina")
    bobs = db.session.scalars(db.select(Instance).where(Instance.name == "bob")).one()

    def create() -> Operation:
        size = {"cpus": 1, "memory_gib": 1, "disk_gib": 4}
        return instances.request_create(None, house.bob, name="alice", host=house.host, image="base", **size)

    for claim in (create, lambda: care.rename(house.bob, bobs, "alice")):
        with pytest.raises(InvalidInput, match="alice is taken"), db.session.begin_nested():
            claim()
    home.do()
    assert create().kind == OperationKind.CREATE


def test_a_rename_that_was_killed_after_it_was_done_is_finished(home: Home, house: House) -> None:
    care.rename(house.alice, home.machine, "alina")
    home.lxd.stop("alice")
    home.lxd.rename("alice", "alina")
    assert home.do().state == OperationState.DONE
    assert home.status("alina") == "running"


def test_a_rename_in_vain_leaves_it_running_under_the_old_name(home: Home, house: House) -> None:
    home.lxd.add_instance("alina")
    care.rename(house.alice, home.machine, "alina")
    assert "of that name" in home.do().error
    assert (home.machine.name, home.status("alice")) == ("alice", "running")


def test_a_stopped_machine_stays_stopped_when_renamed(home: Home, house: House) -> None:
    home.lxd.stop("alice")
    home.set(status=InstanceStatus.STOPPED)
    care.rename(house.alice, home.machine, "alina")
    home.do()
    assert home.status("alina") == "stopped"


def test_a_snapshot_is_made_shown_put_back_and_deleted(home: Home, house: House) -> None:
    home.survey()
    snapshots.take(house.alice, home.machine)
    assert home.do().state == OperationState.DONE
    (made,) = snapshots.of(home.machine)
    home.set(password_at=NOW, keys_at=NOW, health={"account": "ok"})
    home.lxd.plug("alice", "gpu-0000-01-00-0", "0000:01:00.0", tag="v1 1 1 1")
    snapshots.restore(house.alice, home.machine, made.name)
    assert home.do().state == OperationState.DONE
    assert (home.lxd.restored("alice"), home.status()) == (made.name, "running")
    assert home.lxd.observe().instances["alice"].devices == ()
    assert home.machine.status == InstanceStatus.RUNNING
    assert _inside(home.machine) == (None, None, {})
    snapshots.forget(house.alice, home.machine, made.name)
    assert home.do().state == OperationState.DONE
    assert snapshots.of(home.machine) == []


def test_a_restore_that_ended_in_an_error_may_have_put_the_disk_back(home: Home, house: House) -> None:
    home.set(observed={"snapshots": [{"name": "hand-1", "at": 1, "size": None}]})
    home.set(password_at=NOW, keys_at=NOW, health={"account": "ok"})
    home.lxd.snapshot("alice", "hand-1")
    home.lxd.fail_next("start", GiveUp("Start", "its port is taken"))
    snapshots.restore(house.alice, home.machine, "hand-1")
    assert "port is taken" in home.do().error
    assert home.lxd.restored("alice") == "hand-1"
    assert _inside(home.machine) == (None, None, {})


def _inside(machine: Instance) -> tuple[object, ...]:
    """What Berth holds to be on its disk."""
    return machine.password_at, machine.keys_at, machine.health


@pytest.mark.parametrize("kind", [OperationKind.RESTORE, OperationKind.RESTART, OperationKind.REBUILD])
def test_work_that_is_done_again_takes_nothing_back_that_people_did_since(
    home: Home, house: House, monkeypatch: pytest.MonkeyPatch, kind: OperationKind
) -> None:
    home.set(image="base", observed={"snapshots": [{"name": "hand-1", "at": 1, "size": None}]})
    house.host.images = [{"alias": "base"}]
    db.session.commit()
    home.lxd.snapshot("alice", "hand-1")
    finish, away = operations.finish, [OperationalError("UPDATE", {}, Exception("it is gone"))]

    def finish_later(*arguments: str) -> None:
        if away:
            home.lxd.add_instance("alice-OLD", owner="alice")  # nobody came to that
            raise away.pop()
        finish(*arguments)

    monkeypatch.setattr(operations, "finish", finish_later)
    if kind == OperationKind.RESTORE:
        snapshots.restore(house.alice, home.machine, "hand-1")
    elif kind == OperationKind.REBUILD:
        care.rebuild(house.alice, home.machine)
    else:
        instances.request(house.alice, home.machine, kind)
    assert (home.do().state, home.status(), away) == (OperationState.DONE, "running", [])
    done = [home.lxd.calls().count(call) for call in ("stop", "restore", "rebuild")]
    assert done == [kind != OperationKind.REBUILD, kind == OperationKind.RESTORE, kind == OperationKind.REBUILD]
    assert ("alice-OLD" in home.lxd.observe().instances) == (kind != OperationKind.REBUILD)


def test_a_restore_in_vain_starts_it_again(home: Home, house: House) -> None:
    home.set(observed={"snapshots": [{"name": "hand-1", "at": 1, "size": None}]})
    snapshots.restore(house.alice, home.machine, "hand-1")
    assert "no snapshot" in home.do().error
    assert home.status() == "running"


def test_the_host_counts_snapshots_too(home: Home, house: House) -> None:
    for number in range(5):
        home.lxd.snapshot("alice", f"hand-{number}")
    snapshots.take(house.alice, home.machine)  # what is mirrored is older
    assert "it has 5 already" in home.do().error
    assert len(home.snapshots()) == 5


def test_by_schedule_the_oldest_make_room(home: Home, house: House, freeze: Freeze) -> None:
    snapshots.set_schedule(house.alice, home.machine, Schedule.DAILY, keep=2)
    home.lxd.snapshot("alice", "hand-1")
    made = []
    for day in range(4):
        freeze(NOW + timedelta(days=day, minutes=day))
        home.survey()
        home.survey()  # asked for once
        assert home.work.is_set()
        assert home.do().state == OperationState.DONE
        made.append(f"auto-{clock.now():%Y%m%d-%H%M%S}")
        _date(home, made[-1])
    assert sorted(home.snapshots()) == [*made[-2:], "hand-1"]
    db.session.commit()
    home.survey()
    assert upkeep.due(house.host.id) == 0


def _date(home: Home, name: str) -> None:
    """The simulated host's clock is not the frozen one."""
    with home.lxd._open() as state:
        state["instances"]["alice"]["snapshots"][name]["at"] = clock.now().timestamp()


def test_a_look_that_was_slower_than_work_does_not_take_back_what_that_showed(
    home: Home, house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that is due by the calendar would be made twice, and the oldest forgotten for it."""
    snapshots.set_schedule(house.alice, home.machine, Schedule.DAILY, keep=1)
    home.survey()
    server = home.lxd.server

    def meanwhile() -> ServerInfo:
        freeze(NOW + timedelta(seconds=1))
        home.do()
        return server()

    with monkeypatch.context() as patch:
        patch.setattr(home.lxd, "server", meanwhile)
        home.survey()
    assert [one.name for one in snapshots.of(home.machine)] == home.snapshots()
    assert len(home.snapshots()) == 1
    assert home.do().state == OperationState.DONE, "and no other one is asked for"
    assert len(db.session.scalars(db.select(Operation)).all()) == 1
    home.lxd.forget("alice", home.snapshots()[0])
    freeze(NOW + timedelta(seconds=2))
    home.survey()
    assert snapshots.of(home.machine) == [], "a look that began since is believed"


def test_a_schedule_with_no_room_for_more_is_said_and_not_tried_all_the_time(home: Home, house: House) -> None:
    snapshots.set_schedule(house.alice, home.machine, Schedule.WEEKLY, keep=1)
    for number in range(5):
        home.lxd.snapshot("alice", f"hand-{number}")
    home.survey()
    assert "it has 5 already" in home.do().error
    home.survey()
    assert home.do().state == OperationState.FAILED
    assert len(home.snapshots()) == 5


def test_a_deletion_waits_for_its_days(home: Home, house: House, freeze: Freeze) -> None:
    care.request_delete(house.alice, home.machine)
    assert (home.do().kind, home.status()) == (OperationKind.STOP, "stopped")
    freeze(NOW + timedelta(days=6, hours=23))
    home.survey()
    assert home.do().kind == OperationKind.STOP
    assert "alice" in home.lxd.observe().instances
    freeze(NOW + timedelta(days=7, seconds=1))
    home.survey()
    assert home.do().kind == OperationKind.DELETE
    assert "alice" not in home.lxd.observe().instances
    assert home.machine.deleted_at is not None


def test_a_kept_machine_is_not_deleted(home: Home, house: House, freeze: Freeze) -> None:
    care.request_delete(house.alice, home.machine)
    home.do()
    care.keep(house.alice, home.machine)
    freeze(NOW + timedelta(days=8))
    home.survey()
    home.do()
    assert "alice" in home.lxd.observe().instances


def test_a_machine_that_is_kept_at_the_last_moment_is_kept(
    home: Home, house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.set(status=InstanceStatus.STOPPED, delete_at=NOW)
    freeze(NOW + timedelta(seconds=1))
    number, last = home.machine.id, operations.last

    def meanwhile(*arguments: int) -> Operation | None:
        kept = db.update(Instance).where(Instance.id == number).values(delete_at=None)
        db.session.execute(kept, execution_options={"synchronize_session": False})  # by somebody else
        return last(*arguments)

    monkeypatch.setattr(operations, "last", meanwhile)
    assert upkeep.due(house.host.id) == 0
    assert last(number) is None


def test_a_rebuild_leaves_it_running_without_the_password_of_before(home: Home, house: House) -> None:
    home.set(image="base", password_at=NOW, keys_at=NOW, status=InstanceStatus.STOPPED)
    house.host.images = [{"alias": "base"}]
    db.session.commit()
    home.lxd.snapshot("alice", "hand-1")
    home.lxd.stop("alice")
    home.lxd.fail_next("rebuild", GiveUp("Rebuild", "the new disk does not start"))
    care.rebuild(house.alice, home.machine)
    assert home.do().state == OperationState.FAILED
    assert _inside(home.machine) == (None, None, {}), "the disk may be the new one already"
    home.set(password_at=NOW, keys_at=NOW)
    care.rebuild(house.alice, home.machine)
    assert home.do().state == OperationState.DONE
    assert (home.status(), home.machine.status, snapshots.of(home.machine)) == ("running", "running", [])
    assert (home.machine.password_at, home.machine.keys_at) == (None, None)


def fail_to_rebuild(home: Home, house: House, error: DriverError) -> None:
    home.set(image="base")
    house.host.images = [{"alias": "base"}]
    db.session.commit()
    home.lxd.fail_next("rebuild", error)
    care.rebuild(house.alice, home.machine, make_template(house.host, "desktop").id)
    assert error.detail in home.do().error
    assert home.machine.template_id is None, "as far as anybody knows"


@pytest.mark.parametrize("away", [0, 50], ids=["seen at once", "away for two days"])
def test_a_rebuild_that_failed_half_way_is_tried_again_and_another_is_not(
    home: Home, house: House, freeze: Freeze, away: int
) -> None:
    house.run()
    freeze(NOW + timedelta(minutes=1))
    house.alice = instances.possible_owners()[0]
    house.host = home.machine.host
    fail_to_rebuild(home, house, HostUnreachable("Connect to LXD", "it is gone", ""))
    home.lxd.stop("alice")
    home.lxd.rename("alice", "alice-OLD")  # so far it came
    house.host.images = []
    freeze(NOW + timedelta(minutes=2, hours=away))
    house.run()
    house.alice = instances.possible_owners()[0]
    assert home.machine.status == InstanceStatus.MISSING
    with pytest.raises(Conflict, match="not on its host"):
        care.resize(house.alice, home.machine, cpus=1, memory_gib=1, disk_gib=1)
    with pytest.raises(Conflict, match="not on its host"):
        instances.request(house.alice, home.machine, OperationKind.RESTART)
    operations.enqueue(house.alice, home.machine, OperationKind.RESTART)  # asked for before that was known
    assert "no such instance" in home.do().error
    make_booking(house.alice, gpus_of(house.host)[:1], clock.now(), clock.now() + timedelta(hours=1))  # no GPU comes
    again = moving.retry(house.alice, home.machine)
    assert home.do().state == OperationState.DONE
    assert (again.kind, home.machine.status, home.status()) == (OperationKind.REBUILD, "running", "running")
    assert home.machine.made_from == "desktop", "of that the new one was made at the first try"
    home.lxd.delete("alice", "alice")  # by hand
    house.run()
    house.alice = instances.possible_owners()[0]
    with pytest.raises(Conflict, match="not on its host"):
        care.rebuild(house.alice, home.machine)
    with pytest.raises(Conflict, match="exists already"):
        moving.retry(house.alice, home.machine)


def test_a_rebuild_that_failed_and_harmed_nothing_is_not_half_way(home: Home, house: House, freeze: Freeze) -> None:
    fail_to_rebuild(home, house, GiveUp("Rebuild", "the disk is full", ""))
    freeze(NOW + timedelta(minutes=1))
    house.run()
    assert home.machine.status == InstanceStatus.RUNNING
    freeze(NOW + timedelta(days=9))
    home.lxd.delete("alice", "alice")  # by hand
    house.run()
    assert home.machine.status == InstanceStatus.MISSING
    assert care.halfway(home.machine) is None


def test_a_move_that_failed_half_way_goes_on_to_the_same_host_and_is_started_there(home: Home, house: House) -> None:
    home.survey()
    there = FakeLxd(house.lxd._path.with_name("lab2.json"), pace=0)
    there.gpus()
    target, third = (make_host(name, endpoint="sim:", member=name, cluster="simulated") for name in ("lab2", "lab3"))
    home.lxd.fail_next("move", HostUnreachable("Connect to LXD", "it is gone", ""))
    moving.request(house.alice, home.machine, target)
    assert "it is gone" in home.do().error
    there.add_instance("alice-MOVED", "stopped", owner="alice")  # so far it came
    home.lxd.delete("alice", "alice")
    numbers = target.id, third.id
    house.run()
    house.alice = instances.possible_owners()[0]
    assert home.machine.status == InstanceStatus.MISSING
    for refused in (
        lambda: moving.request(house.alice, home.machine, db.session.get_one(Host, numbers[1])),
        lambda: care.rebuild(house.alice, home.machine),
    ):
        with pytest.raises(Conflict, match="not on its host"):
            refused()
    make_booking(house.alice, gpus_of(house.host)[:1], NOW + timedelta(hours=1), NOW + timedelta(hours=2))
    moving.retry(house.alice, home.machine)
    after = home.do()
    assert (after.kind, after.host_id, home.machine.host_id) == (OperationKind.START, numbers[0], numbers[0])
    assert there.observe().instances.keys() == {"alice"}


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "its days are over"])
def test_a_machine_whose_move_failed_when_all_was_done_is_deleted_where_it_is(
    home: Home, house: House, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    home.survey()
    there = FakeLxd(house.lxd._path.with_name("lab2.json"), pace=0)
    there.gpus()
    target = make_host("lab2", endpoint="sim:", member="lab2", cluster="simulated")
    whole = home.lxd.move

    def unheard(*arguments: object) -> None:
        whole(*arguments)
        raise HostUnreachable("Connect to LXD", "it is gone", "")

    monkeypatch.setattr(home.lxd, "move", unheard)
    moving.request(house.alice, home.machine, target)
    assert "it is gone" in home.do().error
    house.run()
    house.alice = instances.possible_owners()[0]
    assert (home.machine.status, there.observe().instances.keys()) == (InstanceStatus.MISSING, {"alice"})
    if asked:
        care.request_delete(house.alice, home.machine)
    else:
        home.set(delete_at=NOW)  # as of a stopped one while its move is under way
        home.survey()
    assert home.do().state == OperationState.DONE
    assert "alice" not in {*home.lxd.observe().instances, *there.observe().instances}


def test_what_was_made_by_hand_is_taken_over(home: Home, house: House) -> None:
    home.lxd.add_instance("by-hand")
    home.survey()
    assert [row.name for row in surveys.listing(owner=surveys.FOREIGN).rows] == ["by-hand"]
    operation = adoption.adopt(house.bob, surveys.find(house.host, "by-hand"), house.bob)
    home.do()
    assert operations.outcome(operation.id) == ("done", "")
    assert home.lxd.survey().instances["by-hand"].owner == "bob"
    assert instances.get(house.bob, "by-hand").status == InstanceStatus.RUNNING
    for _ in range(2):
        assert [row.owner for row in surveys.listing("by-hand").rows] == ["bob"], "once, before the next look too"
        home.survey()


def test_what_turned_privileged_meanwhile_is_left_alone(home: Home, house: House) -> None:
    home.lxd.add_instance("by-hand", privileged=True)
    home.survey()
    row = surveys.find(house.host, "by-hand")
    row.seen["privileged"] = False
    operation = adoption.adopt(house.bob, row, house.bob)
    home.do()
    assert "privileged" in operations.outcome(operation.id)[1]
    assert "privileged" in adoption.failure(house.host, "by-hand")
    assert [row.name for row in surveys.listing(owner=surveys.FOREIGN).rows] == ["by-hand"]


def test_after_a_reboot_what_ran_is_started(home: Home, house: House, tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    for word, expected in (("one", 0), ("one", 0), ("two", 1), ("two", 0)):
        boot.write_text(word)
        db.session.execute(db.update(Instance).values(autostart=Instance.name == "alice"))
        db.session.commit()
        assert after_reboot(home.app, "lab", tmp_path, boot) == expected
        if expected:
            home.lxd.stop("alice")  # as LXD left it
            assert (home.do().kind, home.status()) == (OperationKind.START, "running")
    assert operations.last(db.session.scalar(db.select(Instance.id).where(Instance.name == "bob"))) is None
    boot.write_text("three")
    with full_disk():
        assert after_reboot(home.app, "lab", tmp_path, boot) == 1, "what was asked for is known all the same"


@pytest.mark.parametrize("kind", [OperationKind.SNAPSHOT, OperationKind.FREEZE])
def test_after_a_reboot_a_machine_is_started_before_its_work_goes_on(
    home: Home, house: House, kind: OperationKind
) -> None:
    if kind == OperationKind.SNAPSHOT:
        snapshots.take(house.alice, home.machine)
    else:
        care.freeze(house.alice, home.machine)  # only what runs can be paused
    begun = operations.claim(house.host.id)
    home.lxd.stop("alice")  # as LXD left it
    assert upkeep.after_reboot(house.host.id) == 2, "Bob's too, as ever"
    operations.requeue_interrupted(house.host.id)
    after = home.do()
    assert (after.id, after.state) == (begun.id, OperationState.DONE)
    frozen = kind == OperationKind.FREEZE
    assert home.status() == home.machine.status == ("frozen" if frozen else "running")
    assert len(home.snapshots()) == (not frozen)


def test_after_a_reboot_no_machine_waits_for_anothers_backup(
    home: Home, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is heavy is done one at a time; and what was started for it is not started for it again."""
    seen, snapshot = [], OperationKind.SNAPSHOT
    monkeypatch.setattr(operations, "HEAVY", frozenset({snapshot}))
    monkeypatch.setitem(
        HANDLERS, snapshot, lambda work: seen.append((work.instance.name, home.status(), home.status("bob")))
    )
    bobs = db.session.scalars(db.select(Instance).where(Instance.name == "bob")).one()
    asked = [operations.enqueue(house.alice, one, snapshot).id for one in (home.machine, bobs)]
    assert operations.claim(house.host.id).id == asked[0]
    home.lxd.stop("alice")
    home.lxd.stop("bob")
    assert upkeep.after_reboot(house.host.id) == 2
    home.do()
    assert seen == [("alice", "running", "running"), ("bob", "running", "running")]
    assert home.lxd.calls().count("start") == 2
    assert [operations.outcome(one)[0] for one in asked] == [OperationState.DONE] * 2


def test_after_a_reboot_what_was_being_stopped_stays_off(home: Home, house: House) -> None:
    instances.request(house.alice, home.machine, OperationKind.STOP)
    home.lxd.stop("alice")
    assert upkeep.after_reboot(house.host.id) == 1, "Bob's"
    home.do()
    assert home.status() == home.machine.status == "stopped"
    assert home.lxd.calls().count("start") == 1


@pytest.mark.parametrize("change", [{"autostart": False}, {"delete_at": NOW}, {"status": InstanceStatus.STOPPED}])
def test_after_a_reboot_the_rest_stays_as_it_was(home: Home, house: House, change: dict[str, object]) -> None:
    db.session.execute(db.update(Instance).values(**change))
    assert upkeep.after_reboot(house.host.id) == 0


@pytest.mark.parametrize("error", [GiveUp("Look", "odd"), TryAgain("Look", "slow")])
def test_a_slow_look_in_vain_leaves_what_is_known(home: Home, house: House, error: Exception) -> None:
    home.survey()
    before = home.machine.observed
    assert before["status"] == "running"
    home.lxd.fail_next("survey", error)
    with pytest.raises(type(error)):
        home.survey()
    assert home.machine.observed == before
    home.survey()
    assert home.machine.observed["cpu"] is not None


def test_which_lxd_and_which_images_a_host_has_is_kept_up_to_date(home: Home, house: House) -> None:
    with house.lxd._open() as state:
        state["images"] = [
            {"alias": "noble", "description": "Ubuntu 24.04", "size_bytes": 1},
            {"alias": "berth-template-7", "description": "offered as a template", "size_bytes": 1},
        ]
    home.survey()
    found = db.session.get_one(Host, house.host.id)
    assert found.images == [{"alias": "noble", "description": "Ubuntu 24.04"}]
    assert found.lxd_version == "simulated"
