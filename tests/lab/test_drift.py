"""What LXD plugs in, or somebody by hand, without a booking: taken away, or fenced off and reported, at LXD's events.

The tick is half a minute away. On a plain LXD and on one that hides its device nodes as a snap does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.drivers.base import device_name
from app.extensions import db, transaction
from app.models import Allocation, AuditEvent, GpuState
from app.services import policy, quarantine
from tests.lab.clinging import ToldApart, tell
from tests.lab.place import HERE, SOON, Place, place
from tests.lab.scene import scene, second_from_now
from tests.runtime.running import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.holds, pytest.mark.apart]

HOSTS = {"plain": (0, 3), "snap": (3, 2)}  # the place of its first GPU among clinging.DEVICES, and how many it has
SWEPT = 40.0  # seconds for a holder without a booking to be found, asked and killed
GIVEN_UP = 40.0  # seconds for a GPU that cannot be freed to be held back
UP = 40.0  # seconds for a machine to run


@pytest.fixture(scope="module")
def places(lab_directory: Path) -> Iterator[dict[str, Place]]:
    """A plain host and one whose device nodes lie hidden, under one Berth."""
    hosts = {
        kind: ToldApart(lab_directory / kind, gpus, first=first, snap=kind == "snap")
        for kind, (first, gpus) in HOSTS.items()
    }
    with ExitStack() as stack:
        for host in hosts.values():
            stack.callback(host.down)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: host.up(), hosts.values()))
        berth = stack.enter_context(scene(*hosts.values(), BERTH_TICK="30"))
        with berth.app.app_context(), transaction():
            policy.current().grace_seconds = 1
        yield {kind: stack.enter_context(place(berth, host)) for kind, host in hosts.items()}


@pytest.fixture(params=["plain", "snap"])
def both(request: pytest.FixtureRequest, places: dict[str, Place]) -> Iterator[Place]:
    yield places[request.param]
    places[request.param].unbook()


@pytest.fixture
def plain(places: dict[str, Place]) -> Iterator[Place]:
    yield places["plain"]
    places["plain"].unbook()


@contextmanager
def no_agent(here: Place) -> Iterator[None]:
    """Meanwhile nobody looks after the host."""
    agent = here.berth.berth.pids(f"workers agent {here.name}")[0]
    os.kill(agent, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent, signal.SIGCONT)


def add(here: Place, name: str, device: str, gpu: int) -> None:
    here.host.lxc("config", "device", "add", name, device, "gpu", f"pci={here.host.gpus[gpu].pci_address}")


def ours(here: Place, gpu: int) -> str:
    return device_name(here.host.gpus[gpu].pci_address)


def test_a_restored_snapshot_does_not_bring_the_gpu_back(both: Place) -> None:
    name = both.person()
    number = both.book(name, 0)
    both.host.lxc("snapshot", name, "with-gpu")
    both.end(name, number)
    both.taken_away(name, 0)
    began = time.time()
    both.host.lxc("restore", name, "with-gpu")
    both.taken_away(name, 0)
    wait_for(lambda: both.lives(name, began), UP, "it runs again")
    both.taken_away(name, 0)


def test_a_copy_does_not_get_the_gpu_and_is_reported(both: Place) -> None:
    name, copy = both.person(), both.host.unique("c")
    both.book(name, 0)
    both.berth.machines.append((both.host, copy))
    with no_agent(both):  # else the device is out of the copy before that starts
        both.host.lxc("copy", name, copy)
        both.host.lxc("start", copy)
        wait_for(lambda: both.lives(copy, 0), UP, "the copy runs")
    both.taken_away(copy, 0)
    told = f"detached {ours(both, 0)} from {copy}"
    wait_for(lambda: told in both.berth.berth.output, SOON, "it is said")
    wait_for(lambda: both.can_open(name, 0), SOON, "who has booked it has it")


def test_a_device_of_our_name_without_a_booking_is_taken_away(both: Place) -> None:
    name = both.person()
    add(both, name, ours(both, 0), 0)
    both.taken_away(name, 0)


def test_our_device_taken_out_by_hand_during_a_booking_is_plugged_in_again(plain: Place) -> None:
    name = plain.person()
    plain.book(name, 0)
    plain.host.lxc("config", "device", "remove", name, ours(plain, 0))
    wait_for(lambda: plain.has(name, 0) and plain.can_open(name, 0), SOON, "plugged in again")


def test_a_restart_keeps_the_gpu_during_the_booking_and_brings_none_afterwards(both: Place) -> None:
    name = both.person()
    number = both.book(name, 0)
    began = time.time()
    both.host.lxc("restart", "--force", name)
    wait_for(lambda: both.lives(name, began) and both.can_open(name, 0), UP, "it has its GPU again")
    both.end(name, number)
    both.taken_away(name, 0)
    with no_agent(both):
        both.host.lxc("stop", "--force", name)
        add(both, name, ours(both, 0), 0)
        began = time.time()
        both.host.lxc("start", name)
        wait_for(lambda: both.lives(name, began), UP, "it runs")
    both.taken_away(name, 0)


def by_hand(here: Place, name: str) -> str:
    add(here, name, "mine", 1)
    return "mine"


def by_profile(here: Place, name: str) -> str:
    here.host.lxc("profile", "create", name)
    here.host.lxc("profile", "device", "add", name, ours(here, 1), "gpu", f"pci={here.host.gpus[1].pci_address}")
    here.host.lxc("profile", "add", name, name)
    return ours(here, 1)


def as_unix_char(here: Place, name: str) -> str:
    node = f"/dev/nvidia{here.host.minors[1]}"
    here.host.lxc("config", "device", "add", name, "mine", "unix-char", f"source={node}", f"path={node}")
    return "mine"


def given(here: Place, *ways: Callable[[Place, str], str]) -> None:
    """A machine for each way: what it is given is there, left, reported, and of no use."""
    names = [here.person() for _ in ways]
    devices = [give(here, name) for give, name in zip(ways, names, strict=True)]
    for name, device in zip(names, devices, strict=True):
        wait_for(lambda name=name, device=device: here.reported(name, "foreign", device), SOON, "it is reported")
        assert here.host.gpu_nodes(name) == {here.host.minors[1]}, "it is there"
        tell(here.logs, name, "path")  # this open asks nobody whether it may
    wait_for(here.awake(lambda: all(here.wrote("gpu.intruder", name) for name in names)), SWEPT, "they are ended")
    for name, device in zip(names, devices, strict=True):
        assert device in here.host.lxc("config", "show", "--expanded", name)
        assert not here.could_ever_open(name, 1)
    here.host.remove(*names)


def test_what_others_give_is_left_reported_and_cannot_be_used(plain: Place) -> None:
    given(plain, by_hand, by_profile, as_unix_char)


def test_the_same_where_the_nodes_lie_hidden(places: dict[str, Place]) -> None:
    given(places["snap"], by_hand, as_unix_char)


def test_a_privileged_machine_gets_none_and_cannot_use_what_it_is_given(plain: Place) -> None:
    name = plain.person("-c", "security.privileged=true")
    begin = second_from_now(0)
    number = plain.berth.book(name, plain.host, 0, begin, begin + 600)
    plain.berth.wake(plain.host)
    query = db.select(Allocation.trouble).where(Allocation.booking_id == number)
    wait_for(lambda: plain.berth.ask(lambda: db.session.scalar(query)) == "privileged", SOON, "it is said why not")
    assert not plain.has(name, 0)
    add(plain, name, "mine", 1)
    wait_for(lambda: plain.reported(name, "foreign", "mine"), SOON, "it is reported")
    wait_for(lambda: not plain.can_open(name, 1), SOON, "it cannot be opened")
    plain.host.remove(name)


def test_a_gpu_out_of_service_is_left_alone(plain: Place) -> None:
    with plain.berth.app.app_context(), transaction():
        plain.row(1).state = GpuState.MAINTENANCE
    plain.berth.wake(plain.host)
    name = plain.person()
    add(plain, name, "mine", 1)
    wait_for(lambda: plain.can_open(name, 1), SOON, "the admin's own device works")
    tell(plain.logs, name, "hold")
    wait_for(plain.awake(lambda: any(one["left_alone"] for one in plain.holders(name))), SWEPT, "its holder is listed")
    wait_for(lambda: plain.can_open(name, 1), SOON, "as before")
    assert plain.wrote("gpu.intruder", name) == []
    with plain.berth.app.app_context(), transaction():
        plain.row(1).state = GpuState.IN_SERVICE
    wait_for(plain.awake(lambda: plain.wrote("gpu.intruder", name)), SWEPT, "in service again, it is nobody's")
    wait_for(lambda: not plain.can_open(name, 1), 2.0, "it cannot be opened")
    plain.host.remove(name)


def stuck(here: Place, name: str) -> int:
    """A booking of GPU 0 whose machine's first process holds it, that has a second left."""
    here.book(name, 0)
    tell(here.logs, name, "grab")
    wait_for(lambda: here.held_by_first(name), SOON, "the first process holds it")
    here.unbook()
    return second_from_now(0)


def test_what_cannot_be_freed_is_given_to_nobody_until_it_is(plain: Place) -> None:
    name, other = plain.person(), plain.person()
    begin = stuck(plain, name)
    number = plain.berth.book(other, plain.host, 0, begin, begin + 600)
    wait_for(plain.awake(lambda: plain.state(0) == GpuState.QUARANTINE), GIVEN_UP, "quarantine")
    query = db.select(Allocation).where(Allocation.booking_id == number)
    wait_for(plain.awake(lambda: plain.berth.ask(lambda: db.session.scalar(query).instead_of_id)), HERE, "another one")
    wait_for(plain.awake(lambda: plain.can_open(other, 1) or plain.can_open(other, 2)), HERE, "that has come")
    with plain.berth.app.app_context(), transaction():
        row = plain.row(0)
        assert quarantine.release_quarantine("some-admin", row, "I looked")
        assert row.state == GpuState.IN_SERVICE
    wait_for(plain.awake(lambda: plain.state(0) == GpuState.QUARANTINE), GIVEN_UP, "held it still is")
    plain.host.lxc("restart", "--force", name)
    wait_for(lambda: plain.state(0) == GpuState.IN_SERVICE, UP, "a clean look releases it")
    released = (
        AuditEvent.action == "gpu.released",
        AuditEvent.target == f"gpu:{plain.berth.ask(lambda: plain.row(0).id)}",
    )
    query = db.select(AuditEvent.actor).where(*released).order_by(AuditEvent.id)
    assert plain.berth.ask(lambda: db.session.scalars(query).all())[-2:] == ["some-admin", f"agent:{plain.name}"]
    plain.book(name, 0)


def test_a_machine_that_does_not_let_go_is_stopped_if_the_rules_say_so(plain: Place) -> None:
    with plain.berth.app.app_context(), transaction():
        policy.current().force_stop = True
    name = plain.person()
    stuck(plain, name)
    wait_for(plain.awake(lambda: plain.audited("instance.force_stopped", f"instance:{name}")), GIVEN_UP, "stopped")
    assert plain.state(0) == GpuState.IN_SERVICE
    assert plain.host.lxc("list", name, "-c", "s", "-f", "csv").strip() == "STOPPED"
