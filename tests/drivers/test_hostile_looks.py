"""A look at containers that make looking hard: it costs them their GPU at most, and nobody else anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from app.drivers.holders import scanner as scanning
from app.drivers.holders.host import HostKernel
from app.drivers.kernel import Scan
from tests.drivers.boxes import FULL, Box, host, unique
from tests.require import need

pytestmark = [pytest.mark.lab, pytest.mark.timed]  # root, and cgroups

OPEN_FULL = "f = os.open('/dev/full', os.O_RDONLY)"
SIXTY = "for _ in range(60):\n    if not os.fork(): import time; time.sleep(600)\n"
MANY = """
import resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
f = os.open('/dev/null', os.O_RDONLY)
for _ in range(most - 99): os.dup(f)
"""
IN_FLIGHT = """
import socket
a, b = socket.socketpair(); f = os.open('/dev/null', os.O_RDONLY)
for _ in range(8): socket.send_fds(a, [b'x'], [f] * 250)
f = os.open('/dev/full', os.O_RDONLY); socket.send_fds(a, [b'x'], [f]); os.close(f)
"""
WITHIN_EACH_OTHER = """
import socket
pairs = [socket.socketpair() for _ in range(6)]
for (a, _), (_, inner) in zip(pairs, pairs[1:]):
    for _ in range(4): socket.send_fds(a, [b'x'], [inner.fileno()] * 50)
f = os.open('/dev/null', os.O_RDONLY); socket.send_fds(pairs[-1][0], [b'x'], [f])
"""
ROUND = """
import socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
socket.send_fds(a, [b'x'], [b.fileno()])
for name in ('/dev/null', '/dev/full'):
    f = os.open(name, os.O_RDONLY); socket.send_fds(a, [b'x'], [f]); os.close(f)
"""


@pytest.fixture
def boxes() -> Iterator[tuple[Box, Box]]:
    need("lab", os.geteuid() == 0, "it takes root")
    made = Box(unique()), Box(unique())
    yield made
    for box in made:
        box.remove()


@pytest.fixture
def kernel() -> Iterator[HostKernel]:
    found = HostKernel(lambda: None)
    yield found
    found.close()


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostKernel]:
    """One whose looking process may have as few descriptors as a service usually has."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)); "
    monkeypatch.setattr(scanning, "_PROGRAM", few + scanning._PROGRAM)
    found = HostKernel(lambda: None)
    yield found
    found.close()


def look(kernel: HostKernel, *boxes: Box, thorough: bool = True) -> tuple[Scan, float]:
    began = time.monotonic()
    return kernel.scan(host(*boxes), frozenset({FULL}), thorough=thorough), time.monotonic() - began


def test_what_is_in_flight_does_not_make_the_look_blind(poor: HostKernel, boxes: tuple[Box, Box]) -> None:
    hostile, other = boxes
    held = other.run(OPEN_FULL)
    sender = hostile.run(IN_FLIGHT)
    for _ in range(3):
        found, _ = look(poor, *boxes)
        assert held in [one.pid for one in found.holders]
        assert sender in [one.pid for one in found.holders]
        assert found.doubts == {}


@pytest.mark.parametrize(("code", "thorough"), [(MANY, True), (MANY, False), (WITHIN_EACH_OTHER, True)])
def test_a_container_with_too_much_to_look_at_is_the_one_in_doubt(
    kernel: HostKernel, boxes: tuple[Box, Box], code: str, *, thorough: bool
) -> None:
    hostile, other = boxes
    hostile.run(code + SIXTY)
    held = other.run(OPEN_FULL)
    for _ in range(2):
        found, seconds = look(kernel, *boxes, thorough=thorough)
        assert set(found.doubts) == {hostile.name}
        assert held in [one.pid for one in found.holders]
        assert seconds < 3


def test_a_socket_on_its_way_to_itself_hides_nothing(kernel: HostKernel, boxes: tuple[Box, Box]) -> None:
    pid = boxes[0].run(ROUND)
    (found,) = [one for one in look(kernel, *boxes)[0].holders if one.instance]
    assert (found.pid, found.numbers) == (pid, {FULL})


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], HostKernel]:
    """A kernel whose look hangs whenever it comes to one of these processes."""

    def make(pids: list[int]) -> HostKernel:
        program = scanning._PROGRAM.replace(
            "main()",
            "scan = sys.modules['app.drivers.holders.scan']; old = scan.Look._at; import time; "
            f"scan.Look._at = lambda self, pid, **more: time.sleep(60) if pid in {pids} else old(self, pid, **more); "
            "main()",
        )
        monkeypatch.setattr(scanning, "_PROGRAM", program)
        return HostKernel(lambda: None, scanning.Scanner(patience=0.5))

    return make


def test_many_processes_at_which_a_look_hangs_cost_one_hang(
    boxes: tuple[Box, Box], hanging: Callable[[list[int]], HostKernel]
) -> None:
    hostile, other = boxes
    kernel = hanging([hostile.run("") for _ in range(12)])
    held = other.run(OPEN_FULL)
    try:
        found, seconds = look(kernel, *boxes)
        assert (set(found.doubts), [one.pid for one in found.holders if one.instance]) == ({hostile.name}, [held])
        assert seconds < 2
        again, seconds = look(kernel, *boxes)
        assert (set(again.doubts), seconds < 0.5) == ({hostile.name}, True)
    finally:
        kernel.close()


def test_a_look_that_cannot_be_made_is_not_tried_for_ever(
    boxes: tuple[Box, Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_PROGRAM", "raise SystemExit(1)")
    kernel = HostKernel(lambda: None)
    with pytest.raises(Exception, match="no answer"):
        look(kernel, *boxes)
    kernel.close()
