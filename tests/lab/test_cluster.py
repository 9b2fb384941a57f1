"""Two hosts whose LXD servers are one cluster: each agent looks after its own instances, and machines move between
them, by the pages' own services and running agents."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.drivers.base import GiveUp, GpuInfo, InstanceSpec, Tag, TryAgain
from app.drivers.lxd import PylxdDriver, backups, move
from app.extensions import transaction
from app.models import Instance, Operation, OperationKind, OperationState
from app.services import accounts, instances, moving, operations, ports, snapshots
from tests.factories import make_user
from tests.lab.cluster import cluster
from tests.lab.lab import Lab
from tests.lab.scene import Scene, scene
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab

NO_PROGRESS = lambda _step, _percent: None  # noqa: E731
SMALL = {"cpus": 1, "memory_gib": 1, "disk_gib": 2}
FIRST = 31000 + os.getpid() % 35 * 50


@pytest.fixture(scope="module")
def members(lab_directory: Path) -> Iterator[tuple[Lab, Lab]]:
    with cluster(lab_directory, "cl1", "cl2") as (one, two):
        yield one, two


@pytest.fixture(scope="module")
def berth(members: tuple[Lab, Lab]) -> Iterator[Scene]:
    with scene(*members) as here:
        with here.app.app_context(), transaction():
            for number, lab in enumerate(members):
                row = here.row(lab)
                row.address, row.listen = "127.0.0.1", "127.0.0.1"
                row.first_port = FIRST + 20 * number
                row.last_port = row.first_port + 19
        yield here


def driver(lab: Lab) -> PylxdDriver:
    return PylxdDriver(str(lab.socket))


def seen(lab: Lab) -> set[str]:
    """The instances that the host's agent takes for its own, by whichever look."""
    looks = driver(lab)
    found = {*looks.observe().instances}
    assert found == {*looks.doorways()} == {*looks.shares()} == {*looks.survey().instances}
    assert found == {one.name for one in looks.examine().instances}
    return found


def make(lab: Lab) -> str:
    name = lab.unique("cl")
    driver(lab).create(InstanceSpec(name, "base", 1, 512, 2, "alice"), NO_PROGRESS)
    return name


def test_each_agent_sees_and_makes_the_instances_of_its_own_member(members: tuple[Lab, Lab]) -> None:
    one, two = members
    names = [make(one), make(one), make(two)]
    try:
        assert seen(one) == set(names[:2]), "made here, though LXD would spread them"
        assert seen(two) == {names[2]}
        assert driver(two).observe(frozenset(names)).instances.keys() == {names[2]}
        assert driver(two).observe(frozenset({names[0]})).instances == {}
        for refused in (
            lambda: driver(two).stop(names[0]),
            lambda: driver(two).attach(names[0], two.gpus[0], Tag(1, 1, 2_000_000_000)),
            lambda: driver(two).create(InstanceSpec(names[0], "base", 1, 512, 2, "alice"), NO_PROGRESS),
        ):
            with pytest.raises(GiveUp):
                refused()
        driver(two).delete(names[0], "alice")
        assert names[0] in seen(one), "what another member has is not this one's to delete"
    finally:
        one.remove(*names)


def test_a_backups_copy_is_made_on_its_own_member_and_one_that_is_elsewhere_taken_away(
    members: tuple[Lab, Lab], tmp_path: Path
) -> None:
    one, _two = members
    names = [make(one), make(one)]  # LXD would put the next one where there is none
    project = "--project", backups.PROJECT

    def back_up(file: Path) -> None:
        assert driver(one).backup(names[0], "", file, 4 << 30, NO_PROGRESS) == file.stat().st_size
        assert one.lxc("list", "-c", "n", "-f", "csv", *project) == ""

    try:
        back_up(tmp_path / "first")
        one.lxc("init", "base", names[0], *project, "--target", "cl2", "-s", "pool",
                "-c", "security.protection.delete=true")  # fmt: skip
        back_up(tmp_path / "second")
    finally:
        one.remove(*names)


class KilledError(Exception):
    """As kill -9 is: nothing is cleaned up."""


def test_a_move_goes_on_where_it_was_killed_and_brings_no_gpu(
    members: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = members
    name = make(one)
    here, there = driver(one), driver(two)
    try:
        one.run(name, "sh", "-c", "echo kept > /root/note")
        here.attach(name, GpuInfo(one.gpus[0].pci_address, "", one.minors[0]), Tag(1, 1, 2_000_000_000))
        one.lxc("config", "device", "add", name, "port-ssh", "proxy", f"listen=tcp:127.0.0.1:{FIRST + 45}",
                "connect=tcp:127.0.0.1:22")  # fmt: skip
        here.snapshot(name, "before")
        with pytest.raises(TryAgain, match="running"):
            here.move(name, "cl2", NO_PROGRESS)
        here.stop(name, force=True)
        with pytest.raises(GiveUp, match="no such member"):
            here.move(name, "cl9", NO_PROGRESS)
        left = {f"{name}-MOVED"}
        removal, dressing = (move.instances, "remove"), (move, "_dress")
        for step, times, also in ((removal, 1, {name}), (removal, 2, {f"{name}-OLD"}), (dressing, 0, set())):
            with monkeypatch.context() as patch:
                patch.setattr(*step, _after(getattr(*step), times))
                with pytest.raises(KilledError):
                    here.move(name, "cl2", NO_PROGRESS)
            assert seen(one) | seen(two) == left | also
        for _again in range(2):
            here.move(name, "cl2", NO_PROGRESS)
        assert (seen(one), seen(two)) == (set(), {name})
        use = there.survey().instances[name]
        assert (use.owner, use.gpus, [one.name for one in use.snapshots]) == ("alice", (), ["before"])
        assert "port-ssh" not in use.devices
        assert not [key for key in use.config if "gpu" in key or key == move.NICS]
        assert use.config["security.protection.delete"] == "true"
        there.start(name)
        assert two.run(name, "cat", "/root/note").strip() == "kept"
        assert two.gpu_nodes(name) == set()
    finally:
        one.remove(name, f"{name}-MOVED", f"{name}-OLD")


def _after(step, times: int):  # type: ignore[no-untyped-def]
    """The step, killed at its start after it went well so many times."""
    left = [times]

    def run(*arguments: object) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        step(*arguments)

    return run


def test_a_machine_moves_with_its_owner_and_gets_ports_of_its_new_host(members: tuple[Lab, Lab], berth: Scene) -> None:
    one, two = members
    name = one.unique("mv")
    berth.machines.append((one, name))
    with berth.app.app_context(), transaction():
        instances.request_create(None, make_user(name), name=name, host=berth.row(one), image="base", **SMALL)
    berth.wake(one)
    wait_for(lambda: _answers(berth, name), 180, "SSH answers on its first host")
    before = _numbers(berth, name)
    one.run(name, "sh", "-c", "echo mine > /root/note")
    began = time.monotonic()
    with berth.app.app_context(), transaction():
        owner = accounts.get(name)
        moving.request(owner, instances.get(owner, name), berth.row(two))
    berth.wake(one)
    wait_for(lambda: _moved(berth, two, name), 180, "it runs on its new host")
    wait_for(lambda: _answers(berth, name), 90, "SSH answers on its new host")
    print(f"\n  SSH answers {time.monotonic() - began:.1f} s after the click on Move")
    after = _numbers(berth, name)
    assert all(FIRST <= number < FIRST + 20 for number in before)
    assert all(FIRST + 20 <= number < FIRST + 40 for number in after)
    assert two.run(name, "cat", "/root/note").strip() == "mine"
    assert name not in seen(one)
    with berth.app.app_context(), transaction():  # its new agent does the next work on it
        snapshots.take(accounts.get(name), instances.get(None, name))
    berth.wake(two)
    wait_for(lambda: _last(berth, name).state == OperationState.DONE, 60, "a snapshot there")


def _machine(berth: Scene, name: str) -> Instance:
    with berth.app.app_context():
        return instances.get(None, name)


def _last(berth: Scene, name: str) -> Operation:
    with berth.app.app_context():
        found = operations.last(instances.get(None, name).id)
        assert found is not None
        assert found.state != OperationState.FAILED, found.error
        return found


def _answers(berth: Scene, name: str) -> bool:
    return _last(berth, name).state == OperationState.DONE and _machine(berth, name).health.get("ssh") == ""


def _moved(berth: Scene, lab: Lab, name: str) -> bool:
    last = _last(berth, name)
    return (last.kind, last.state) == (OperationKind.START, OperationState.DONE) and name in seen(lab)


def _numbers(berth: Scene, name: str) -> set[int]:
    with berth.app.app_context():
        return {port.number for port in ports.of_machine(instances.get(None, name).id).values()}
