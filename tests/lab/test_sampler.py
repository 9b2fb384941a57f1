"""Whose it was what GPUs did: real processes in real containers, started and stopped at random, twenty times as fast.

NVML is an own one that names them by the host's numbers; who they are is found by the sampler, and known here by what
started them. A reading every tenth of a second stands for one every two seconds.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import clock
from app.drivers.base import Tag, device_name
from app.drivers.holders.host import HostKernel
from app.services.attribution import Whose
from app.services.plan import Desired
from app.services.samples import Part
from tests.drivers.nvml_stub import Process, Stub, build, whole
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import Launch, connect
from tests.lab.scene import SLEEPING
from tests.runtime.running import wait_for
from workers.evictor import Evictor
from workers.sampler import EVERY, Sampler

pytestmark = [pytest.mark.lab, pytest.mark.timed]

SPEED = 20
SECONDS = 25.0  # for which processes come and go
ERROR = 2.0  # seconds an hour: of so much shorter a time the root of its share in that, since NVML's whole per cents
#              are as often too much as too little
AHEAD = 50_000  # microseconds by which NVML is told what will be, so that it never says what is not so any more
NEVER = 1 << 60


class Room:
    """A shell in an instance, which starts and ends processes in a moment."""

    def __init__(self, host: Lab, name: str, init: int) -> None:
        self.namespace = Path(f"/proc/{init}/ns/pid").stat().st_ino
        command = ["lxc", "exec", "--force-noninteractive", name, "--", "sh"]
        self._shell = subprocess.Popen(
            command, env=host._env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self) -> int:
        """A process that waits; as the host numbers it."""
        inside = self._say("sleep 1000 > /dev/null & echo $!")
        for place in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name), reverse=True):
            try:
                status = (place / "status").read_text()
                same = (place / "ns/pid").stat().st_ino == self.namespace
            except OSError:
                continue
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if same and numbers[-1] == inside:
                return int(place.name)
        raise AssertionError("it has not started")

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()

    def _say(self, line: str) -> str:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(line + "\n")
        return self._shell.stdout.readline().strip()


@dataclass
class Actor:
    """Somebody who runs one process after the other on a GPU: for so long, with such gaps, at so many per cent."""

    whose: Whose
    gpu: int
    share: int
    runs: tuple[float, float]
    gaps: tuple[float, float]
    room: Room | None = None  # None: the host itself
    pid: int = 0
    due: float = 0.0
    began: int = 0
    busy: float = 0.0  # seconds, of a whole GPU


@dataclass
class Stage:
    """What NVML is told of all of them."""

    stub: Stub
    chance: random.Random
    known: dict[int, set[int]] = field(default_factory=lambda: {0: set(), 1: set()})
    spans: dict[int, list[tuple[int, int, int, int]]] = field(
        default_factory=lambda: {0: [(1, 0, 1, 1)], 1: [(1, 0, 1, 1)]}
    )
    alive: dict[int, set[int]] = field(default_factory=lambda: {0: set(), 1: set()})
    late: float = 0.0  # seconds of a whole GPU for which NVML was not told yet what was so: nobody can know of them

    def turn(self, actor: Actor, *, end: bool = False) -> None:
        """The actor's process begins, or ends."""
        if actor.pid:
            self._end(actor)
            actor.due = time.monotonic() + self.chance.uniform(*actor.gaps)
        elif not end:
            actor.pid = actor.room.start() if actor.room else os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
            self.known[actor.gpu].add(actor.pid)
            self.alive[actor.gpu].add(actor.pid)
            actor.began = _now() + AHEAD
            self.spans[actor.gpu].append((actor.pid, actor.began, NEVER, actor.share))
            self.tell(actor.began, actor.share)
            actor.due = time.monotonic() + self.chance.uniform(*actor.runs)

    def _end(self, actor: Actor) -> None:
        until = _now() + AHEAD
        spans = self.spans[actor.gpu]
        spans[spans.index((actor.pid, actor.began, NEVER, actor.share))] = (actor.pid, actor.began, until, actor.share)
        self.alive[actor.gpu].discard(actor.pid)
        self.tell(until, actor.share)
        actor.busy += (until - actor.began) / 1e6 * actor.share / 100
        time.sleep(max(0.0, until / 1e6 - time.time()))
        os.kill(actor.pid, signal.SIGKILL)
        if actor.room is None:
            os.waitpid(actor.pid, 0)
        actor.pid = 0

    def tell(self, moment: int = NEVER, share: int = 0) -> None:
        """Tell NVML, of what begins or ends at that moment at so many per cent."""
        self.stub.say(*[
            whole(
                gpu + 1, compute=sorted(self.alive[gpu]), spans=self.spans[gpu][-400:],
                known={pid: Process(100, share=0) for pid in sorted(self.known[gpu])[-60:]},
            )
            for gpu in (0, 1)
        ])  # fmt: skip
        self.late += max(0, _now() - moment) / 1e6 * share / 100


def _now() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def people(lab: Hosts, launch: Launch) -> Iterator[dict[str, Room]]:
    """Three machines: of two who have a GPU each, and of one who has none."""
    host = lab.ws1
    names = [launch(host, *SLEEPING) for _ in range(3)]
    driver = connect(host)
    for number, (name, gpu) in enumerate(zip(names[:2], host.gpus, strict=True), start=1):
        driver.attach(name, gpu, Tag(number, number, int(time.time()) + 3600))
    seen = driver.observe().instances
    with ExitStack() as stack:
        rooms = {name: Room(host, name, seen[name].init) for name in names}
        for room in rooms.values():
            stack.callback(room.close)
        yield rooms


def test_busy_time_is_whose_processes_it_was(lab: Hosts, people: dict[str, Room], tmp_path: Path) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    alice, bob, carol = people
    stub = Stub(build(tmp_path), tmp_path / "nvml.state")
    stub.environment["NVML_PERIOD"] = "1000"  # microseconds
    stage = Stage(stub, random.Random(20261126))
    stage.tell()
    kernel = HostKernel(driver.devices_dir, gauges=stub.gauges())
    evictor = Evictor(driver, kernel)
    evictor.seen = driver.observe()
    evictor.last = Desired(1, clock.now(), guarded=frozenset(gpu.pci_address for gpu in host.gpus))
    settings: Any = SimpleNamespace(data_dir=tmp_path, run_dir=tmp_path / "run")
    sampler = Sampler(settings, host.name, evictor, every=EVERY / SPEED)
    actors = [
        Actor(Whose(1, alice), 0, 60, (0.15, 1.2), (0.1, 0.8), people[alice]),
        Actor(Whose(2, bob), 1, 80, (0.15, 1.2), (0.1, 0.8), people[bob]),
        Actor(Whose(0, carol), 0, 25, (0.8, 1.6), (0.5, 2.0), people[carol]),
        Actor(Whose(), 0, 10, (0.8, 1.6), (1.0, 2.0)),
    ]
    late = Actor(Whose(0, carol), 1, 70, (0.8, 1.6), (0.1, 0.5), people[carol])
    stop, began = threading.Event(), time.monotonic()
    thread = threading.Thread(target=sampler.run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: len(sampler._moments) == 2, 10, "it reads")
        first = dict(sampler._moments)
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            actor = min(actors, key=lambda one: one.due)
            time.sleep(max(0.0, actor.due - time.monotonic()))
            stage.turn(actor)
            if late not in actors and time.monotonic() - began > SECONDS / 2:
                stage.turn(actors[1], end=True)  # bob's booking is over, and carol takes the GPU
                driver.detach(bob, device_name(host.gpus[1].pci_address))
                evictor.seen = driver.observe()
                looked_at(sampler, host.gpus[1].pci_address)  # what was bob's is his, before somebody else is there
                actors[1].due, actors = float("inf"), [*actors, late]
    finally:
        for actor in actors:
            stage.turn(actor, end=True)
        time.sleep(1.0)
        last = dict(sampler._moments)
        stop.set()
        thread.join(10)
        kernel.close()
    parts = [part for path in sampler.journal.seal() for part in sampler.journal.read(path)]
    for gpu in host.gpus:
        sampled = sum(part.sampled_ms for part in parts if part.pci_address == gpu.pci_address) / 1000
        span = (last[gpu.pci_address] - first[gpu.pci_address]) / 1000
        assert span - 0.1 <= sampled <= span + 3, "all of the time is somebody's, and none of it twice"
    judge(actors, parts, time.monotonic() - began, stage.late)


def looked_at(sampler: Sampler, pci: str) -> None:
    """Wait for a reading of this GPU that begins from now on: the second, as one may be under way."""
    for _ in range(2):
        before = sampler._moments[pci]
        wait_for(lambda before=before: sampler._moments[pci] != before, 10, "it reads")


def judge(actors: list[Actor], parts: list[Part], wall: float, late: float) -> None:
    """Each consumer's busy seconds against what their processes were told to be."""
    found, truth = Counter[Whose](), Counter[Whose]()
    for part in parts:
        found[Whose(part.booking, part.instance)] += part.busy_ms / 1000
    for actor in actors:
        truth[actor.whose] += actor.busy
    errors = {whose: found[whose] - truth[whose] for whose in found.keys() | truth.keys()}
    told = [f"{one.booking} {one.instance}: {truth[one]:.3f} s {error:+.4f} s" for one, error in errors.items()]
    print(
        f"{'; '.join(told)}: {max(map(abs, errors.values())) / wall * 3600:.2f} s an hour at most, "
        f"of {late:.4f} s nobody could know"
    )
    assert truth.keys() == found.keys()
    allowed = ERROR * (wall * SPEED / 3600) ** 0.5 / SPEED
    most = {whose: allowed * (1 if whose.booking else 2) + late for whose in errors}
    assert {whose: error for whose, error in errors.items() if abs(error) > most[whose]} == {}
