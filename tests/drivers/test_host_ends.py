"""The real kernel: what only NVML knows of counts too, and a person may end a process of the host that holds a GPU."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.base import DriverError, HostSeen
from app.drivers.holders.host import HostKernel
from app.drivers.holders.nodes import start_time
from app.drivers.kernel import HOST, Holder, How, Parted
from tests.drivers.boxes import FULL, Box, host
from tests.drivers.nvml_stub import DRIVER_NOT_LOADED, HANGS, Gpu, Stub
from tests.require import need

pytestmark = [pytest.mark.lab, pytest.mark.holds]  # root, and cgroups; holds what a lab's Berth would take for a GPU

ROOT = Path(__file__).parents[2]
GPU = (195, 70)
BOTH = frozenset({FULL, GPU})
OPEN_FULL = "f = os.open('/dev/full', os.O_RDONLY)"
Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def kernel(stub: Stub) -> Iterator[HostKernel]:
    need("lab", os.geteuid() == 0, "it takes root")
    found = HostKernel(lambda: None, nvml=stub.listed())
    yield found
    found.close()


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a process of the host that does something and waits."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        script = f"import os, signal, sys\n{code}\nprint('ready', flush=True); sys.stdin.read()"
        process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def holders(kernel: HostKernel, seen: HostSeen, *pids: int, thorough: bool = True) -> list[Holder]:
    return [one for one in kernel.scan(seen, BOTH, thorough=thorough).holders if one.pid in pids]


# What NVML lists


def test_who_is_listed_though_nothing_is_found_on_it_is_a_holder(kernel: HostKernel, box: Box, stub: Stub) -> None:
    pid = box.run("", name="train")
    stub.say(Gpu(GPU[1], compute=[pid]))
    (found,) = holders(kernel, host(box), pid)
    assert found == Holder(pid, start_time(pid) or 0, box.name, "train", frozenset({GPU}), How.LISTED)
    assert holders(kernel, host(box), pid, thorough=False) == []
    assert kernel.kill([found], 5) == ()
    assert not box.alive(pid)
    assert holders(kernel, host(box), pid) == [], "NVML may list it for a while"


def test_who_has_let_go_of_the_node_keeps_memory_by_the_driver(
    kernel: HostKernel, box: Box, stub: Stub, run: Run, tmp_path: Path
) -> None:
    """As a CUDA program does on a real GPU: it closes and unmaps /dev/nvidiaN, and its memory stays there. NVML lists
    it until it has closed /dev/nvidiactl too, of which its mappings are enough."""
    opens = "f = f{} = os.open({!r}, os.O_PATH)"  # no driver answers behind them here
    driver, elsewhere = (opens.format(minor, str(_node(tmp_path, minor))) for minor in (255, GPU[1] + 1))
    keeper, stranger, at_work = box.run(driver), box.run(""), box.run(f"{driver}\n{elsewhere}")
    on_host = run(driver).pid
    everybody = keeper, stranger, at_work, on_host
    stub.say(Gpu(GPU[1], compute=[keeper, stranger]))
    found = {one.pid: one for one in holders(kernel, host(box), *everybody)}
    assert found.keys() == {keeper, stranger}
    assert (found[keeper].how, found[keeper].numbers, found[keeper].spared) == (How.KEPT, {GPU}, False)
    assert (found[stranger].how, found[stranger].spared) == (How.LISTED, True)
    stub.say(Gpu(GPU[1]))
    (unlisted,) = holders(kernel, host(box), *everybody)
    assert (unlisted.pid, unlisted.how, unlisted.numbers) == (keeper, How.KEPT, set()), "on which GPU, nobody says"
    assert holders(kernel, host(box), *everybody, thorough=False) == []


def _node(folder: Path, minor: int) -> Path:
    """A device node of NVIDIA's."""
    path = folder / f"nvidia{minor}"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(195, minor))
    return path


def test_the_hosts_own_is_listed_as_such(kernel: HostKernel, stub: Stub, run: Run) -> None:
    pid = run("").pid
    stub.say(Gpu(GPU[1], graphics=[pid]))
    (found,) = holders(kernel, HostSeen(), pid)
    assert (found.instance, found.how) == (HOST, How.LISTED)
    assert kernel.kill([found], 0.1) == ()


@pytest.mark.parametrize("trouble", ["absent", "hangs"])
def test_a_look_stands_alone_where_nvml_says_nothing(kernel: HostKernel, box: Box, stub: Stub, trouble: str) -> None:
    pid = box.run(OPEN_FULL)
    kernel._nvml._patience = 0.3
    with kernel.still(host(box), [box.name]):
        stub.say(Gpu(GPU[1], compute=[pid], compute_error=HANGS), init=DRIVER_NOT_LOADED * (trouble == "absent"))
        (found,) = holders(kernel, host(box), pid)
    assert (found.numbers, found.how) == ({FULL}, How.OPEN)


def test_nvml_is_started_before_anybody_is_held_still(kernel: HostKernel, box: Box) -> None:
    assert kernel._nvml.own == frozenset()
    with kernel.still(host(box), [box.name]):
        assert len(kernel._nvml.own) == 1


def test_who_asks_nvml_is_no_holder(kernel: HostKernel, stub: Stub) -> None:
    stub.environment["NVML_OPENS"] = "/dev/full"
    kernel.scan(HostSeen(), BOTH)
    (asks,) = kernel._nvml.own
    assert Path(f"/proc/{asks}/comm").read_text() == "berth-nvml\n"
    assert "/dev/full" in {str(link.readlink()) for link in Path(f"/proc/{asks}/fd").iterdir()}
    assert holders(kernel, HostSeen(), asks) == []
    other = HostKernel(lambda: None)
    try:
        assert len(holders(other, HostSeen(), asks)) == 1, "to others it is"
    finally:
        other.close()


# A person ends a process of the host


def test_a_process_of_the_host_is_ended_for_a_person(kernel: HostKernel, run: Run) -> None:
    process, bystander = run(OPEN_FULL), run(OPEN_FULL)
    (found,) = holders(kernel, HostSeen(), process.pid)
    assert kernel.end_on_host(found, 5) == Parted.ENDED
    assert process.wait(30) == -signal.SIGTERM
    assert bystander.poll() is None


def test_one_that_does_not_listen_is_killed(kernel: HostKernel, run: Run) -> None:
    process = run(f"signal.signal(15, signal.SIG_IGN); {OPEN_FULL}")
    (found,) = holders(kernel, HostSeen(), process.pid)
    assert kernel.end_on_host(found, 0.3) == Parted.ENDED
    assert process.wait(30) == -signal.SIGKILL


def test_one_that_lets_go_may_go_on(kernel: HostKernel, run: Run) -> None:
    process = run(f"{OPEN_FULL}\nsignal.signal(15, lambda *_: os.close(f))")
    (found,) = holders(kernel, HostSeen(), process.pid)
    assert kernel.end_on_host(found, 2.0) == Parted.LET_GO
    assert process.poll() is None


def test_one_that_only_nvml_lists_can_be_ended(kernel: HostKernel, stub: Stub, run: Run) -> None:
    process = run("")
    stub.say(Gpu(GPU[1], graphics=[process.pid]))
    (found,) = holders(kernel, HostSeen(), process.pid)
    assert kernel.end_on_host(found, 5) == Parted.ENDED


def test_nobody_else_is_touched(kernel: HostKernel, box: Box, run: Run) -> None:
    inside, innocent, holds = box.run(OPEN_FULL), run(""), run(OPEN_FULL)
    (member,) = holders(kernel, host(box), inside)
    (mine,) = holders(kernel, host(box), holds.pid)
    nobody = replace(mine, pid=innocent.pid, start=start_time(innocent.pid) or 0)
    passed_on = replace(mine, start=mine.start - 1)
    first = replace(mine, pid=1, start=start_time(1) or 0)
    for wrong in (member, replace(member, instance=HOST), nobody, passed_on, first):
        with pytest.raises(DriverError):
            kernel.end_on_host(wrong, 0.1)
    assert box.alive(inside)
    assert (innocent.poll(), holds.poll()) == (None, None)


def test_one_that_is_gone_is_said_to_be(kernel: HostKernel, run: Run) -> None:
    process = run(OPEN_FULL)
    (found,) = holders(kernel, HostSeen(), process.pid)
    process.kill()
    process.wait()
    with pytest.raises(DriverError, match="No such process"):
        kernel.end_on_host(found, 0.1)


def test_no_pass_can_reach_it() -> None:
    """A process of the host is ended by a person's word alone: the command is the only caller."""
    callers = {
        str(path.relative_to(ROOT))
        for folder in ("app", "workers")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\.end_on_host\b", path.read_text())
    }
    assert callers == {"app/cli/holders.py"}
