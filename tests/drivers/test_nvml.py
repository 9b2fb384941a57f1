"""What NVML lists: asked of a library made for these tests, never of a real GPU's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.drivers import nvml_asked as asking
from app.drivers.asked import Asked
from app.drivers.holders.listed import Listed, missed
from app.drivers.holders.nodes import start_time
from tests.drivers.nvml_stub import DRIVER_NOT_LOADED, HANGS, LOST, MISMATCH, NOT_SUPPORTED, Gpu, Stub
from tests.runtime.running import wait_for

ALL = frozenset({(195, minor) for minor in (70, 71, 72)} | {(226, 128)})


@pytest.fixture
def nvml(stub: Stub) -> Iterator[Listed]:
    made = stub.listed()
    yield made
    made.close()


def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that are started to ask, as they come."""
    found: list[int] = []
    start = Listed._start

    def counted(self: Listed) -> Asked:
        made = start(self)
        found.append(made.process.pid)
        return made

    monkeypatch.setattr(Listed, "_start", counted)
    return found


def test_it_says_who_is_listed_on_which_gpu(stub: Stub, nvml: Listed) -> None:
    stub.say(Gpu(70, compute=[11, 12], graphics=[12, 13]), Gpu(71, graphics=[11]), Gpu(72), Gpu(73, compute=[14]))
    assert nvml.on(ALL) == {11: {(195, 70), (195, 71)}, 12: {(195, 70)}, 13: {(195, 70)}}
    stub.say(Gpu(70), Gpu(71))
    assert nvml.on(ALL) == {}


def test_addresses_are_spelt_as_lxd_spells_them(stub: Stub, nvml: Listed) -> None:
    stub.say(Gpu(70))
    with nvml._lock:
        (gpu,) = nvml._ask([70])
    assert gpu == {"minor": 70, "pci": "0000:46:00.0", "pids": [], "unknown": ""}


def test_one_process_is_kept_for_all_questions(stub: Stub, nvml: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    started = starts(monkeypatch)
    assert nvml.own == frozenset()
    nvml.ready()
    nvml.on(ALL)
    nvml.on(ALL)
    assert nvml.own == frozenset(started)
    assert len(started) == 1
    nvml.close()
    assert nvml.own == frozenset()


def test_what_has_no_nvidia_number_is_not_asked_about(nvml: Listed) -> None:
    assert nvml.on({(226, 128)}) == {}
    assert nvml.own == frozenset(), "nothing was started for it"


def test_a_gpu_that_is_not_known_about_leaves_the_others(
    stub: Stub, nvml: Listed, caplog: pytest.LogCaptureFixture
) -> None:
    stub.say(
        Gpu(70, compute=[11], graphics=[12], graphics_error=NOT_SUPPORTED),
        Gpu(71, compute=[13], error=LOST),
        Gpu(72, compute=[14]),
        Gpu(70, compute_error=999),
    )
    for _ in range(2):
        assert nvml.on(ALL) == {11: {(195, 70)}, 14: {(195, 72)}}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3, "each once"
    assert any("GPU is lost" in line for line in said)
    assert any("0000:46:00.0: Not Supported" in line for line in said)


@pytest.mark.parametrize("error", [DRIVER_NOT_LOADED, MISMATCH])
def test_without_a_driver_it_says_nothing_and_is_asked_again_later(
    stub: Stub, nvml: Listed, error: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started = starts(monkeypatch)
    stub.say(Gpu(70, compute=[11]), init=error)
    nvml.ready()
    assert nvml.on(ALL) == {}
    assert (len(started), nvml.own) == (1, frozenset())
    assert bool(caplog.records) == (error == MISMATCH), "that there is none is nothing to tell of"
    stub.say(Gpu(70, compute=[11]))
    nvml._silent_until = 0.0  # a while later
    assert nvml.on(ALL) == {11: {(195, 70)}}


def test_a_driver_that_is_unloaded_meanwhile_is_nothing_to_tell_of(
    stub: Stub, nvml: Listed, caplog: pytest.LogCaptureFixture
) -> None:
    nvml.ready()
    stub.say(init=DRIVER_NOT_LOADED)
    assert nvml.on(ALL) == {}
    assert nvml.own == frozenset(), "nothing is kept that would keep the driver from being loaded anew"
    assert not caplog.records


def test_without_the_library_it_says_nothing(caplog: pytest.LogCaptureFixture, stub: Stub) -> None:
    nvml = Listed(5.0, {"LD_LIBRARY_PATH": "/nonexistent"})
    nvml._environment = stub.environment | {"LD_LIBRARY_PATH": "/nonexistent"}
    assert nvml.on(ALL) == {}
    assert nvml.on(ALL) == {}
    assert not caplog.records


@pytest.mark.parametrize("where", ["start", "list"])
def test_one_that_hangs_is_given_up(
    stub: Stub, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asking, "READY_WITHIN", 1.0 if where == "start" else 5.0)
    started, nvml = starts(monkeypatch), stub.listed(patience=0.3)
    if where == "list":
        nvml.ready()
    stub.say(Gpu(70, compute_error=HANGS), init=HANGS if where == "start" else 0)
    assert nvml.on(ALL) == {}
    assert nvml.on(ALL) == {}, "nobody is asked again so soon"
    assert (len(started), nvml.own) == (1, frozenset())
    assert "NVML says nothing" in caplog.text
    wait_for(lambda: start_time(started[0]) is None, why="it is gone")
    stub.say(Gpu(70, compute=[11]))
    nvml._silent_until = 0.0
    monkeypatch.setattr(asking, "READY_WITHIN", 5.0)
    assert nvml.on(ALL) == {11: {(195, 70)}}
    nvml.close()


def test_beside_one_that_cannot_be_killed_no_other_is_started(
    stub: Stub, nvml: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = starts(monkeypatch)
    nvml.ready()
    end = Asked.end
    monkeypatch.setattr(Asked, "end", lambda _self: False)
    nvml._patience = 0.2
    stub.say(Gpu(70, compute_error=HANGS))
    assert nvml.on(ALL) == {}
    nvml._silent_until = 0.0
    stub.say(Gpu(70, compute=[11]))
    assert nvml.on(ALL) == {}
    assert nvml.own == set(started), "it holds GPUs, and is ours"
    assert nvml._abandoned is not None
    end(nvml._abandoned)
    monkeypatch.undo()
    assert nvml.on(ALL) == {11: {(195, 70)}}


def test_it_ends_when_nobody_asks_and_is_started_anew(
    stub: Stub, nvml: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "IDLE", 0.3)
    monkeypatch.setattr(asking, "_ENDS_SOON", 0.2)
    started = starts(monkeypatch)
    nvml.ready()
    child = nvml._child
    assert child is not None
    wait_for(lambda: child.process.poll() == 0, why="it ends by itself")
    stub.say(Gpu(70, compute=[11]))
    assert nvml.on(ALL) == {11: {(195, 70)}}
    assert len(started) == 2


def test_one_that_dies_costs_its_answer_only(stub: Stub, nvml: Listed) -> None:
    nvml.ready()
    assert nvml._child is not None
    nvml._child.process.kill()
    nvml._child.process.wait()
    assert nvml.on(ALL) == {}


# What is made of it


def test_only_what_the_look_missed_is_added(stub: Stub) -> None:
    me, parent = os.getpid(), os.getppid()
    found = [[me, start_time(me), "", "python", "open", [[195, 70]]]]
    (row,) = missed({me: {(195, 70), (195, 71)}, 2**22 + 1: {(195, 70)}}, found)
    assert row[:3] == [me, start_time(me), ""]
    assert row[3]
    assert row[4:] == ["listed", [(195, 71)]]
    (row,) = missed({parent: {(195, 70)}}, found)
    assert row[0] == parent


def test_who_has_ended_holds_nothing_though_it_is_listed() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _state(child.pid) == "Z", why="it waits to be reaped")
        assert list(missed({child.pid: {(195, 70)}}, [])) == []
    finally:
        child.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
