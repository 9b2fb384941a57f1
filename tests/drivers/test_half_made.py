"""What an LXD that died in the middle has left, or another one asks for at once; needs no LXD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.drivers.base import GiveUp, InstanceSpec, TryAgain
from app.drivers.images import Origin, builder_name
from app.drivers.lxd import PylxdDriver, move, turns
from tests.drivers.misbehaving import DONE, RUNNING, Server, instance

BUSY = 'Failed creating instance record: Instance is busy running a "create" operation'
THERE = 'Failed creating instance record: Add instance info to the database: This "instances" entry already exists'


@pytest.mark.parametrize(("words", "still"), [(BUSY, True), (BUSY, False), (THERE, False)])
def test_a_creation_that_somebody_else_asks_for_first_is_joined(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch, words: str, *, still: bool
) -> None:
    """Theirs begins between our look and our request. It may be over when we look again."""
    monkeypatch.setattr(turns, "PAUSE", 0)
    half = instance(config={"user.berth.owner": "alice", "user.berth.making": "true"})
    theirs = {"id": "theirs", "class": "task", "resources": {"instances": ["/1.0/instances/t1"]}}
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [(404, "not found"), half],
        ("GET", "/1.0/operations"): [{}, {"running" if still else "success": [theirs]}],
        ("GET", "/1.0/images"): [[{"type": "container", "aliases": [{"name": "base"}]}]],
        ("GET", "/1.0/networks"): [[]],
        ("GET", "/1.0/profiles/default"): {"devices": {"root": {"type": "disk", "path": "/", "pool": "pool"}}},
        ("POST", "/1.0/instances"): (202, "ours"),
        ("GET", "/1.0/operations/ours/wait"): {"status_code": 400, "err": words},
        ("GET", "/1.0/operations/theirs/wait"): [RUNNING, DONE] if still else DONE,
        ("PATCH", "/1.0/instances/t1"): None,
        ("GET", "/1.0/instances/t1/state"): {"status": "Running", "pid": 5},
    }
    driver.create(InstanceSpec("t1", "base", 1, 256, 1, "alice"), lambda _step, _percent: None)
    asked = [request for request in server.requests if request[0] != "GET"]
    assert asked == [("POST", "/1.0/instances"), ("PATCH", "/1.0/instances/t1")], "the half of it is not removed"
    assert json.loads(server.bodies[server.requests.index(asked[1])])["config"]["user.berth.making"] == ""


def test_half_of_what_lxd_died_at_is_not_taken_for_the_whole(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is back so soon that nobody saw it away, and knows nothing of what it was asked for."""
    monkeypatch.setattr(turns, "PAUSE", 0)
    half = instance(config={"user.berth.owner": "alice", "user.berth.making": "true"})
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [(404, "not found"), half],
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/images"): [[{"type": "container", "aliases": [{"name": "base"}]}]],
        ("GET", "/1.0/networks"): [[]],
        ("GET", "/1.0/profiles/default"): {"devices": {"root": {"type": "disk", "path": "/", "pool": "pool"}}},
        ("POST", "/1.0/instances"): (202, "ours"),
        ("GET", "/1.0/operations/ours/wait"): (404, "not found"),
    }
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        driver.create(InstanceSpec("t1", "base", 1, 256, 1, "alice"), lambda _step, _percent: None)
    assert [method for method, _path in server.requests if method != "GET"] == ["POST"], "the mark stays"


HALF = (500, 'Failed to write backup file: Failed to create file "/var/lib/lxd/containers/t1/backup.yaml"')
GONE, NEW = (404, "not found"), ("POST", "/1.0/instances")


def test_half_of_what_lxd_died_at_is_removed(server: Server, driver: PylxdDriver) -> None:
    """LXD lifts its protection, and then says that this failed: there is no disk to note it on. What has none is not
    changed: on btrfs LXD would make a directory for the note, and then could not remove that."""
    builder, owner = builder_name(7), {"user.berth.owner": "alice"}
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/images"): None,
        ("GET", "/1.0/networks"): None,
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    for name, config, protected in (
        (builder, {"user.berth.builder": "7"}, "false"),
        ("t1-OLD", owner, "false"),
        ("t1-MOVED", owner, "1"),
    ):
        expanded = config | {"security.protection.delete": protected}
        half = instance(name=name, status="Stopped", config=config, expanded_config=expanded)
        looks = 2 if name == builder else 1
        server.answers["GET", f"/1.0/instances/{name}"] = [*[half] * looks, GONE]
        server.answers["PATCH", f"/1.0/instances/{name}"] = HALF
        server.answers["DELETE", f"/1.0/instances/{name}"] = (202, "op")
    driver.scrap(7)
    driver.delete("t1", "alice")
    asked = [(method, path.rpartition("/")[2]) for method, path in server.requests if method != "GET"]
    assert asked == [("DELETE", builder), ("DELETE", "t1-OLD"), ("PATCH", "t1-MOVED"), ("DELETE", "t1-MOVED")]


def test_what_stays_protected_is_told_with_the_reason(server: Server, driver: PylxdDriver) -> None:
    config = {"user.berth.owner": "alice", "security.protection.delete": "true"}
    server.answers["GET", "/1.0/instances/t1"] = instance(status="Stopped", config=config, expanded_config=config)
    server.answers["PATCH", "/1.0/instances/t1"] = [(400, "Instance is busy running a stop operation"), HALF]
    server.answers["DELETE", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": "Container is protected"}
    with pytest.raises(GiveUp, match="write backup file"):
        driver.delete("t1", "alice")
    assert server.requests.count(("PATCH", "/1.0/instances/t1")) == 2


def test_what_somebody_else_has_done_since_the_look_is_done(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 0)
    gone, ours = (404, "not found"), instance(status="Stopped", config={"user.berth.owner": "alice"})
    busy = 'Failed creating instance snapshot record "s": Instance is busy running a "create" operation'
    deleted = "Failed to create instance delete operation: A matching non-reusable operation has now succeeded"
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/operations/taken/wait"): {"status_code": 400, "err": busy},
        ("GET", "/1.0/operations/deleted/wait"): {"status_code": 400, "err": deleted},
        ("GET", "/1.0/instances/t1"): ours,
        ("POST", "/1.0/instances/t1/snapshots"): (202, "taken"),
        ("GET", "/1.0/instances/t1/snapshots/s"): [gone, {"name": "s"}],
    }
    driver.snapshot("t1", "s")
    server.answers["GET", "/1.0/instances/t1/snapshots/s"] = [{"name": "s"}, gone]
    driver.forget("t1", "s")  # the request itself is answered 404 here, as is that for another name
    server.answers["GET", "/1.0/instances/t1"] = [ours, gone]
    server.answers["GET", "/1.0/instances/t2"] = [gone, ours]
    driver.rename("t1", "t2")
    server.answers["GET", "/1.0/instances/t1"] = [ours, gone]
    server.answers["DELETE", "/1.0/instances/t1"] = (202, "deleted")
    driver.delete("t1", "alice")
    asked = [method for method, _path in server.requests if method != "GET"]
    assert asked == ["POST", "DELETE", "POST", "DELETE"], "each of them once"


def test_what_lxd_is_still_at_is_waited_for_no_longer_than_it_may_take(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 0)
    monkeypatch.setattr(turns, "TRIES", 3)
    server.answers["GET", "/1.0/instances/t1"] = instance(config={"user.berth.owner": "alice"}, status="Stopped")
    server.answers["DELETE", "/1.0/instances/t1"] = (400, 'Instance is busy running a "copy" operation')
    with pytest.raises(TryAgain, match='a "copy" operation'):
        driver.delete("t1", "alice")
    assert server.requests.count(("DELETE", "/1.0/instances/t1")) == 3


def test_a_copy_that_lxd_died_at_is_removed_and_the_original_stays(server: Server, driver: PylxdDriver) -> None:
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    half = instance(name="t1-MOVED", status="Stopped", location="m2")
    protected = {"security.protection.delete": "true"}
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/cluster/members"): [[{"server_name": "m1"}, {"server_name": "m2"}]],
        ("GET", "/1.0/instances/t1"): instance(status="Stopped", location="m1", config=protected),
        ("GET", "/1.0/instances/t1/snapshots"): None,
        ("POST", "/1.0/instances"): (202, "copy"),  # its wait is answered 404: LXD is back so soon
        ("GET", "/1.0/instances/t1-MOVED"): [GONE, half, GONE],
        ("GET", "/1.0/instances/t1-MOVED/snapshots"): None,
        ("DELETE", "/1.0/instances/t1-MOVED"): (202, "op"),
        ("PATCH", "/1.0/instances/t1"): None,
        ("DELETE", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        driver.move("t1", "m2", lambda *_: None)
    assert [path for method, path in server.requests if method == "DELETE"] == ["/1.0/instances/t1-MOVED"]
    assert protection(server, NEW) == "false", "else half of it could not be removed"


def test_an_original_that_lxd_died_at_removing_is_gone_before_its_copy_has_its_name(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next try would take away the copy, the only whole one."""
    monkeypatch.setattr(move, "_copy", lambda *_: None)
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    there, freed = (
        instance(status="Stopped", location="m1", expanded_config={"security.protection.delete": protected})
        for protected in ("true", "false")
    )
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/cluster/members"): [[{"server_name": "m1"}, {"server_name": "m2"}]],
        ("GET", "/1.0/instances/t1"): instance(status="Stopped", location="m1"),
        ("POST", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/instances/t1-OLD"): [GONE, there, freed, GONE],
        ("PATCH", "/1.0/instances/t1-OLD"): None,
        ("DELETE", "/1.0/instances/t1-OLD"): [(202, "gone"), (202, "op")],
        ("GET", "/1.0/instances/t1-MOVED"): [GONE, instance(name="t1-MOVED", location="m2")],
        ("POST", "/1.0/instances/t1-MOVED"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    driver.move("t1", "m2", lambda *_: None)
    asked = [method for method, _path in server.requests if method != "GET"]
    assert asked == ["POST", "PATCH", "DELETE", "DELETE", "POST"]


@pytest.mark.parametrize("step", ["PUT", "POST"])
def test_a_copy_whose_last_steps_lxd_died_at_is_not_called_moved(
    server: Server, driver: PylxdDriver, step: str
) -> None:
    """Its NICs, or its name, may be missing."""
    config = {move.NICS: "{}", "security.protection.delete": "false"}
    moved = instance(name="t1-MOVED", status="Stopped", location="m2", config=config)
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/instances/t1-OLD"): GONE,
        ("GET", "/1.0/instances/t1-MOVED"): moved,
        ("PUT", "/1.0/instances/t1-MOVED"): (202, "gone" if step == "PUT" else "op"),
        ("POST", "/1.0/instances/t1-MOVED"): (202, "gone"),
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        driver.move("t1", "m2", lambda *_: None)
    assert server.requests[-2][0] == step, "and then its wait"
    assert protection(server, ("PUT", "/1.0/instances/t1-MOVED")) == "true", "as the original had it"


def protection(server: Server, request: tuple[str, str]) -> str:
    """What a request for an instance said of it."""
    config: dict[str, str] = json.loads(server.bodies[server.requests.index(request)])["config"]
    return config["security.protection.delete"]


def backed_up(driver: PylxdDriver) -> object:
    return driver.backup("t1", "", Path(driver._wire.socket).with_name("file"), 1 << 30, lambda *_: None)


def prepared(driver: PylxdDriver, **origin: str) -> object:
    return driver.prepare(7, Origin(**origin), lambda *_: None)


T1, BUILDER = "/1.0/instances/t1", f"/1.0/instances/{builder_name(7)}"
COPIED = {("POST", "/1.0/instances"): (202, "op")}
DISK = {"root": {"type": "disk", "path": "/", "pool": "pool"}}


@pytest.mark.parametrize(
    ("act", "answers", "asked"),
    [
        (lambda driver: driver.snapshot("t1", "s"), {}, [("POST", f"{T1}/snapshots"), ("DELETE", f"{T1}/snapshots/s")]),
        (lambda driver: driver.restore("t1", "s"), {("GET", f"{T1}/snapshots/s"): {"name": "s"}}, [("PUT", T1)]),
        (lambda driver: driver.publish(7, "", lambda *_: None), {}, [("POST", "/1.0/images")]),
        (lambda driver: prepared(driver, alias="base"), {}, [NEW]),
        (lambda driver: prepared(driver, instance="t1"), COPIED, [NEW, ("PUT", BUILDER)]),
        (backed_up, {}, [NEW]),
        (backed_up, COPIED, [NEW, ("PUT", T1)]),
        (backed_up, COPIED | {("PUT", T1): (202, "op")}, [NEW, ("PUT", T1), ("POST", f"{T1}/backups")]),
    ],
    ids=["snapshot", "restore", "publish", "builder", "strip", "copy", "stripped copy", "pack"],
)
def test_half_of_what_lxd_died_at_is_not_gone_on_with(
    server: Server, driver: PylxdDriver, act: Any, answers: dict[tuple[str, str], Any], asked: list[tuple[str, str]]
) -> None:
    """What is answered (202, "gone") is waited for in vain: LXD was restarted and knows nothing of it."""
    more = {"expanded_config": {"nvidia.runtime": "true"}, "expanded_devices": DISK, "status": "Stopped"}
    machine = instance(**more)
    server.answers["GET", "/1.0"]["api_extensions"] = ["projects"]
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/operations/op/wait"): DONE,
        ("GET", "/1.0/images"): [[{"type": "container", "aliases": [{"name": "base"}]}]],
        ("GET", "/1.0/networks"): [[]],
        ("GET", "/1.0/profiles/default"): {"devices": DISK | {"eth0": {"type": "nic"}}},
        ("GET", "/1.0/projects/berth-backups"): {},
        ("GET", "/1.0/instances"): None,
        ("GET", T1): [machine, GONE, *([machine] if answers else []), GONE] if act is backed_up else machine,
        ("GET", f"{T1}/state"): {"disk": {"root": {"usage": 1}}},
        ("GET", BUILDER): instance(name=builder_name(7), **more),
        **{(method, path): (202, "gone") for method in ("POST", "PUT") for path in (T1, BUILDER)},
        **{("POST", path): (202, "gone") for path in ("/1.0/instances", "/1.0/images", f"{T1}/snapshots")},
        ("POST", f"{T1}/backups"): (202, "gone"),
        **answers,
    }  # fmt: skip
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        act(driver)
    assert [request for request in server.requests if request[0] != "GET"] == asked
    assert NEW not in asked or protection(server, NEW) == "false", "else half of it could not be removed"


def test_a_rename_that_lxd_died_at_is_looked_after(server: Server, driver: PylxdDriver) -> None:
    stopped = instance(status="Stopped")
    server.answers["GET", "/1.0/instances/t1"] = [stopped, stopped, GONE]
    server.answers["GET", "/1.0/instances/t2"] = [GONE, GONE, stopped]
    server.answers["POST", "/1.0/instances/t1"] = [(202, "gone"), (202, "op")]
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.rename("t1", "t2")
    assert server.requests.count(("POST", "/1.0/instances/t1")) == 2


def test_what_a_rebuild_or_a_move_has_left_is_deleted_on_whichever_member_it_is(
    server: Server, driver: PylxdDriver
) -> None:
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    for end, status in (("NEW", "Running"), ("MOVED", "Stopped")):
        left = instance(name=f"t1-{end}", status=status, location="m2", config={"user.berth.owner": "alice"})
        looks = 2 if status == "Running" else 1  # the stop looks too
        server.answers["GET", f"/1.0/instances/t1-{end}"] = [*[left] * looks, (404, "not found")]
        server.answers["DELETE", f"/1.0/instances/t1-{end}"] = (202, "op")
    server.answers["PUT", "/1.0/instances/t1-NEW/state"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    there = instance(status="Stopped", location="m2", config={"user.berth.owner": "alice"})
    server.answers["GET", "/1.0/instances/t1"] = there
    server.answers["DELETE", "/1.0/instances/t1"] = (202, "op")
    driver.delete("t1", "alice")
    left = [
        ("PUT", "/1.0/instances/t1-NEW/state"),
        ("DELETE", "/1.0/instances/t1-NEW"),
        ("DELETE", "/1.0/instances/t1-MOVED"),
    ]
    assert [request for request in server.requests if request[0] != "GET"] == left
    server.answers["GET", "/1.0/instances/t1"] = [there, GONE]
    driver.delete("t1", "alice", anywhere=True)  # a move may have come as far as its last step
    assert [request for request in server.requests if request[0] != "GET"] == [*left, ("DELETE", "/1.0/instances/t1")]
