"""The real kernel: what holds a device is found in whatever way it is held, nothing else is ended, and no means no."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.base import DriverError, HostSeen, InstanceSeen
from app.drivers.holders import scanner as scanning
from app.drivers.holders.cgroups import hierarchies
from app.drivers.holders.host import HostKernel
from app.drivers.holders.scanner import Found, Scanner
from app.drivers.kernel import HOST, Holder, How
from tests.drivers.boxes import FULL, ZERO, Box, host, version_2_only
from tests.require import need
from tests.runtime.running import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.holds]  # root, and cgroups; holds what a lab's Berth would take for a GPU

BOTH = frozenset({FULL, ZERO})
OPEN_FULL = "f = os.open('/dev/full', os.O_RDONLY)"

# Each leaves /dev/full with a process that does not have it in its first thread's table of descriptors.
WAYS = {
    "o_path": (How.OPEN, "f = os.open('/dev/full', os.O_PATH)"),
    "two tables": (
        How.OPEN,
        """
import ctypes, threading
def own():
    assert ctypes.CDLL(None).unshare(0x400) == 0
    global f
    f = os.open('/dev/full', os.O_RDONLY)
    opened.set(); threading.Event().wait()
opened = threading.Event()
threading.Thread(target=own, daemon=True).start(); opened.wait()
""",
    ),
    "in flight": (
        How.IN_FLIGHT,
        """
import socket
a, b = socket.socketpair(); f = os.open('/dev/full', os.O_RDONLY); socket.send_fds(a, [b'x'], [f]); os.close(f)
""",
    ),
    "in flight in a socket in flight": (
        How.IN_FLIGHT,
        """
import socket
a, b = socket.socketpair(); f = os.open('/dev/full', os.O_RDONLY); socket.send_fds(a, [b'x'], [f]); os.close(f)
c, d = socket.socketpair(); socket.send_fds(c, [b'x'], [b.fileno()]); b.close()
""",
    ),
    "the last of many in flight": (
        How.IN_FLIGHT,
        """
import socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for name in ('/dev/null', '/dev/null', '/dev/full'):
    f = os.open(name, os.O_RDONLY); socket.send_fds(a, [b'x'], [f]); os.close(f)
""",
    ),
}


@pytest.fixture
def kernel() -> Iterator[HostKernel]:
    need("lab", os.geteuid() == 0, "it takes root")
    found = HostKernel(lambda: None)
    yield found
    found.close()


def holders(kernel: HostKernel, *boxes: Box, thorough: bool = True) -> list[Holder]:
    """Who in these holds one of the two devices."""
    names = {box.name for box in boxes}
    return [one for one in kernel.scan(host(*boxes), BOTH, thorough=thorough).holders if one.instance in names]


def test_an_open_descriptor_is_found_and_its_holder_named(kernel: HostKernel, box: Box) -> None:
    pid = box.run(OPEN_FULL, name=") R 1 1\n(")
    (found,) = holders(kernel, box, thorough=False)
    assert (found.pid, found.instance, found.numbers, found.how) == (pid, box.name, {FULL}, How.OPEN)
    assert found.name == ") R 1 1?("
    assert not found.first


@pytest.mark.parametrize("way", WAYS)
def test_it_is_found_in_whatever_way_it_is_held(kernel: HostKernel, box: Box, way: str) -> None:
    how, code = WAYS[way]
    pid = box.run(code)
    (found,) = holders(kernel, box)
    assert (found.pid, found.numbers, found.how) == (pid, {FULL}, how)
    (again,) = holders(kernel, box)
    assert again == found, "looking takes nothing away"


def test_a_map_without_a_descriptor_is_found(kernel: HostKernel, box: Box) -> None:
    code = """  # not with Python's mmap: that keeps a descriptor
import ctypes
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
f = os.open('/dev/zero', os.O_RDWR); assert libc.mmap(None, 4096, 3, 2, f, 0) != 2**64 - 1; os.close(f)
"""
    pid = box.run(code)
    (found,) = holders(kernel, box)
    assert (found.pid, found.numbers, found.how) == (pid, {ZERO}, How.MAPPED)


def test_a_thread_that_outlives_the_first_one_is_found(kernel: HostKernel, box: Box) -> None:
    code = """
import ctypes, threading
f = os.open('/dev/full', os.O_RDONLY)
threading.Thread(target=lambda: (print('ready', flush=True), threading.Event().wait())).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)
"""
    pid = box.run(code)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z", why="its first thread has ended")
    (found,) = holders(kernel, box, thorough=False)
    assert (found.pid, found.numbers) == (pid, {FULL})


def test_what_waits_in_a_connection_nobody_accepted_cannot_be_told(kernel: HostKernel, box: Box) -> None:
    code = """
import socket
s = socket.socket(socket.AF_UNIX); s.bind('\\0berth-%d' % os.getpid()); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect(s.getsockname())
f = os.open('/dev/full', os.O_RDONLY); socket.send_fds(c, [b'x'], [f]); os.close(f)
"""
    pid = box.run(code)
    (found,) = holders(kernel, box)
    assert (found.pid, found.numbers, found.how) == (pid, frozenset(), How.IN_FLIGHT)


def test_what_io_uring_keeps_cannot_be_told(kernel: HostKernel, box: Box) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
assert ring >= 0
f = os.open('/dev/full', os.O_RDONLY)
assert libc.syscall(427, ring, 2, (ctypes.c_int * 1)(f), 1) == 0
os.close(f)
"""
    pid = box.run(code)
    (found,) = holders(kernel, box)
    assert (found.pid, found.numbers, found.how) == (pid, frozenset(), How.REGISTERED)
    box.run(code.partition("f = os.open")[0])  # a ring that keeps nothing
    assert len(holders(kernel, box)) == 1


def test_ordinary_programs_are_not_suspected(kernel: HostKernel, box: Box) -> None:
    box.run("import socket; a, b = socket.socketpair(); a.send(b'x'); f = open('/dev/null')")
    assert holders(kernel, box) == []


def test_each_is_in_its_own_container_whatever_groups_it_makes(kernel: HostKernel, box: Box, other: Box) -> None:
    inner = [group / f"lxc.payload.{other.name}" for group in box.groups]
    for group in inner:
        group.mkdir()
    moves = "\n".join(f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))" for group in inner)
    pid = box.run(f"{OPEN_FULL}\n{moves}")
    (found,) = holders(kernel, box, other)
    assert (found.pid, found.instance) == (pid, box.name)


def test_the_hosts_own_are_seen_as_such_and_never_killed(kernel: HostKernel, box: Box) -> None:
    mine = subprocess.Popen(
        [sys.executable, "-c", f"import os, sys; {OPEN_FULL}; print('ready', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert mine.stdout is not None
        mine.stdout.readline()
        (found,) = [one for one in kernel.scan(host(box), BOTH).holders if one.pid == mine.pid]
        assert found.instance == HOST
        assert kernel.kill([found], 0.1) == ()
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()


def test_only_the_holder_is_ended(kernel: HostKernel, box: Box) -> None:
    holder, bystander = box.run(OPEN_FULL), box.run("f = os.open('/dev/null', os.O_RDONLY)")
    assert kernel.kill(holders(kernel, box), 5) == ()
    assert (box.alive(holder), box.alive(bystander)) == (False, True)


def test_who_ignores_being_asked_stays_and_is_told_of(kernel: HostKernel, box: Box) -> None:
    deaf = box.run(f"import signal; signal.signal(15, signal.SIG_IGN); {OPEN_FULL}")
    polite = box.run(OPEN_FULL)
    left = kernel.ask(holders(kernel, box), 2)
    assert [one.pid for one in left] == [deaf]
    assert not box.alive(polite)
    assert kernel.kill(left, 5) == ()


def test_a_number_that_passed_to_another_process_is_left_alone(kernel: HostKernel, box: Box) -> None:
    pid = box.run(OPEN_FULL)
    (found,) = holders(kernel, box)
    assert kernel.kill([replace(found, start=found.start - 1)], 0.1) == ()
    assert box.alive(pid)


def test_more_than_there_are_descriptors_for_are_ended(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    unhurried = (
        "sys.modules['app.drivers.holders.scan'].Shares.left = lambda *_: 60.0; main()"  # not its time is at stake
    )
    monkeypatch.setattr(scanning, "_PROGRAM", scanning._PROGRAM.replace("main()", unhurried))
    kernel = HostKernel(lambda: None, Scanner(patience=60.0))
    box.run(OPEN_FULL + "\nfor _ in range(600):\n    if not os.fork(): import time; time.sleep(600)\n")
    found = holders(kernel, box)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
    try:
        assert len(found) == 601
        assert kernel.kill(found, 30) == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert holders(kernel, box) == []
    kernel.close()


def test_where_there_is_no_descriptor_to_be_had_nobody_is_taken_for_gone(
    kernel: HostKernel, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = box.run(OPEN_FULL)
    (holder,) = holders(kernel, box)

    def none_left(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(DriverError, match="Too many"):
        kernel.kill([holder], 1)
    assert box.alive(pid)


def test_who_left_the_container_is_left_alone(kernel: HostKernel, box: Box, other: Box) -> None:
    pid = box.run(OPEN_FULL)
    (found,) = holders(kernel, box, other)
    for group in other.groups:
        (group / "cgroup.procs").write_text(str(pid))
    assert kernel.kill([found], 0.1) == ()
    assert box.alive(pid)


@pytest.mark.parametrize("depth", [0, 1])
def test_who_is_frozen_dies_and_the_rest_stays_frozen(kernel: HostKernel, box: Box, depth: int) -> None:
    trees = hierarchies()
    need("lab", trees.freezer, "there is no version 1 freezer")
    assert trees.freezer is not None
    holder, bystander = box.run(OPEN_FULL), box.run("")
    found = holders(kernel, box)
    top = trees.freezer / f"lxc.payload.{box.name}"
    group = top / "inner" if depth else top
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text(str(holder))
    (group / "freezer.state").write_text("FROZEN")
    wait_for(lambda: (group / "freezer.state").read_text() == "FROZEN\n", why="frozen")
    assert kernel.kill(found, 5) == ()
    assert not box.alive(holder)
    assert box.alive(bystander)
    if not depth:
        wait_for(lambda: (top / "freezer.state").read_text() == "FROZEN\n", why="as it was")


def test_who_is_stopped_dies(kernel: HostKernel, box: Box) -> None:
    pid = box.run(OPEN_FULL)
    os.kill(pid, signal.SIGSTOP)
    assert kernel.kill(holders(kernel, box), 5) == ()
    assert not box.alive(pid)


TITLE = "[lxc monitor] /var/lib/lxd/containers "
# In a container, somebody who calls itself so, with a child.
LIAR = f"""
import subprocess
liar = subprocess.Popen([{TITLE + "liar"!r}], executable={sys.executable!r}, stdin=subprocess.PIPE)
liar.stdin.write(b"import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)")
liar.stdin.close()
"""


def watched(name: str, code: str) -> subprocess.Popen[bytes]:
    """A program that calls itself as LXC's do that watch over a container, with a child that does `code`."""
    child = f"{code}\nprint('ready', flush=True); import time; time.sleep(600)"
    script = f"import subprocess, time; subprocess.Popen([{sys.executable!r}, '-c', {child!r}]); time.sleep(600)"
    process = subprocess.Popen([TITLE + name], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    with process.stdin:
        process.stdin.write(script.encode())
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def test_what_runs_is_known_without_lxd_by_who_watches_over_it(kernel: HostKernel, box: Box, other: Box) -> None:
    enter = "".join(f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()));" for group in box.groups)
    name = box.name.replace("box", "machine")  # LXC adds a number to a group's name where an older one is there
    monitor = watched(name, f"import os; {enter}")
    other.run(LIAR)
    wait_for(lambda: len(other._members()) == 4, why="the liar has a child")
    holder = box.run(OPEN_FULL)
    try:
        seen = kernel.running()
        assert not seen.looked
        assert seen.instances[name].init in box._members()
        assert "liar" not in seen.instances
        (found,) = [one for one in kernel.scan(seen, BOTH).holders if one.pid == holder]
        assert found.instance == name
        assert kernel.fence(seen, {name: frozenset({FULL})}, BOTH) == {}
        assert not box.can_open(FULL)
        assert kernel.kill([found], 5) == ()
        assert not box.alive(holder)
    finally:
        monitor.kill()
        monitor.wait()


def test_a_containers_first_process_is_known_and_not_killed(kernel: HostKernel, box: Box) -> None:
    box.init = box.run(OPEN_FULL)
    (found,) = holders(kernel, box)
    assert found.first
    assert kernel.kill([found], 0.1) == ()
    assert box.alive(box.init)


# The fence


@pytest.fixture(params=["version 1", "version 2"])
def fencing(request: pytest.FixtureRequest, kernel: HostKernel) -> Iterator[HostKernel]:
    """A kernel that fences with the one or with the other kind of cgroups."""
    trees = hierarchies() if request.param == "version 1" else version_2_only()
    need("lab", trees.devices or trees.unified, "there are no cgroups to fence with")
    made = HostKernel(lambda: None, trees=trees)
    yield made
    made.close()


def test_no_means_no_and_yes_means_yes_again(fencing: HostKernel, box: Box, other: Box) -> None:
    seen = host(box, other)
    assert box.can_open(FULL)
    assert fencing.fence(seen, {box.name: BOTH, other.name: frozenset()}, BOTH) == {}
    assert [box.can_open(FULL), box.can_open(ZERO), other.can_open(FULL)] == [False, False, True]
    assert fencing.fence(seen, {box.name: frozenset({ZERO})}, BOTH) == {}
    assert [box.can_open(FULL), box.can_open(ZERO)] == [True, False]
    assert fencing.fence(seen, {box.name: frozenset()}, BOTH) == {}
    assert [box.can_open(FULL), box.can_open(ZERO)] == [True, True]


def test_groups_within_are_fenced_and_let_go_too(fencing: HostKernel, box: Box) -> None:
    for group in box.groups:
        (group / "inner" / "most").mkdir(parents=True)
    assert fencing.fence(host(box), {box.name: BOTH}, BOTH) == {}
    assert fencing.fence(host(box), {box.name: frozenset()}, BOTH) == {}
    box.groups = [group / "inner" / "most" for group in box.groups]
    try:
        assert box.can_open(FULL)
        fencing.fence(host(box), {box.name: BOTH}, BOTH)
        assert not box.can_open(FULL)
    finally:
        box.groups = [group.parent.parent for group in box.groups]


def test_another_agent_goes_on_where_one_was_killed(fencing: HostKernel, box: Box) -> None:
    fencing.fence(host(box), {box.name: BOTH}, BOTH)
    after = HostKernel(lambda: None, trees=fencing.trees)
    try:
        assert after.fence(host(box), {box.name: frozenset({FULL})}, BOTH) == {}
        assert [box.can_open(FULL), box.can_open(ZERO)] == [False, True]
    finally:
        after.close()


def test_where_there_is_nothing_to_fence_with_it_is_said(box: Box) -> None:
    bare = HostKernel(lambda: None, trees=replace(hierarchies(), devices=None, unified=None))
    try:
        (why,) = bare.fence(host(box), {box.name: BOTH}, BOTH).values()
        assert "no cgroup tree" in why
        assert box.can_open(FULL)
    finally:
        bare.close()


# The look itself


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Scanner]:
    """A scanner whose look hangs when it comes to a process."""

    def make(pid: int) -> Scanner:
        program = scanning._PROGRAM.replace(
            "main()",
            "scan = sys.modules['app.drivers.holders.scan']; old = scan.Look._at; import time; "
            f"scan.Look._at = lambda self, pid, **more: time.sleep(60) if pid == {pid} else old(self, pid, **more); "
            "main()",
        )
        assert program != scanning._PROGRAM
        monkeypatch.setattr(scanning, "_PROGRAM", program)
        return Scanner(patience=1.0)

    return make


def test_a_look_that_hangs_is_given_up_and_the_container_named(
    box: Box, other: Box, hanging: Callable[[int], Scanner]
) -> None:
    hung, held = box.run(""), other.run(OPEN_FULL)
    kernel = HostKernel(lambda: None, hanging(hung))
    try:
        found = kernel.scan(host(box, other), BOTH)
        assert set(found.doubts) == {box.name}
        assert [one.pid for one in found.holders if one.instance == other.name] == [held]
        again = kernel.scan(host(box, other), BOTH)
        assert str(hung) in again.doubts[box.name], "it is left out, and stays a doubt"
    finally:
        kernel.close()


def test_one_whose_processes_pass_for_the_hosts_is_a_doubt(kernel: HostKernel, box: Box) -> None:
    """As on a host whose own first process is in a cgroup: LXC makes its groups below that one."""
    code = f"import os, time\n{OPEN_FULL}\nprint(flush=True); time.sleep(600)"
    astray = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert astray.stdout is not None
        astray.stdout.readline()
        there = HostSeen({**host(box).instances, "astray": InstanceSeen("astray", "running", init=astray.pid)})
        found = kernel.scan(there, BOTH)
        assert set(found.doubts) == {"astray"}
        assert "cannot be told from the host's own" in found.doubts["astray"]
        assert [one.instance for one in found.holders if one.pid == astray.pid] == [HOST]
    finally:
        astray.kill()
        astray.wait()
    gone = kernel.scan(there, BOTH)
    assert gone.doubts == {}, "it was stopped since LXD was asked"


def test_many_who_ask_at_once_share_a_look(kernel: HostKernel, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    looks: list[set[tuple[int, int]]] = []
    first, go_on = Event(), Event()

    def look(self: Scanner, batch: scanning._Batch) -> Found:
        looks.append(set(batch.numbers))
        first.set()
        assert go_on.wait(10)
        return Found()

    monkeypatch.setattr(Scanner, "_look", look)
    scanner = Scanner()
    with ThreadPoolExecutor(9) as pool:
        early = pool.submit(scanner.look, {FULL}, thorough=True)
        assert first.wait(10)
        late = [pool.submit(scanner.look, {ZERO}, thorough=True) for _ in range(8)]
        wait_for(lambda: scanner._waiting is not None and scanner._waiting.askers == 8, why="all wait")
        go_on.set()
        for future in (early, *late):
            future.result(10)
    assert looks == [{FULL}, {ZERO}]


# Looks that remember


def test_a_sweep_sees_what_an_idle_process_holds_each_time(kernel: HostKernel, box: Box) -> None:
    pid = box.run(OPEN_FULL)
    for _ in range(3):
        assert [one.pid for one in holders(kernel, box, thorough=False)] == [pid]


def test_a_sweep_sees_what_a_process_does_after_it_was_looked_at(kernel: HostKernel, box: Box) -> None:
    code = """
import signal
def toggle(*_):
    global f
    f = os.open('/dev/full', os.O_RDONLY) if f is None else os.close(f)
f = None
signal.signal(signal.SIGUSR1, toggle)
"""
    pid = box.run(code)
    assert holders(kernel, box, thorough=False) == []
    for held in (True, False, True):
        os.kill(pid, signal.SIGUSR1)
        wait_for(lambda held=held: bool(holders(kernel, box, thorough=False)) == held, why="seen")


def test_looks_leave_no_descriptors_behind(kernel: HostKernel, box: Box) -> None:
    for thorough in (True, False):
        holders(kernel, box, thorough=thorough)
    folder = Path(f"/proc/{kernel._scanner.pid}/fd")
    before = len(list(folder.iterdir()))
    for _ in range(5):
        holders(kernel, box, thorough=True)
        holders(kernel, box, thorough=False)
    assert abs(len(list(folder.iterdir())) - before) < 20
