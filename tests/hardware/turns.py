"""A real GPU goes from one machine to another and back, with programs on it that do not let go by themselves."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.drivers.gauges import Gauge, NvmlGauges
from app.extensions import db, transaction
from app.models import Allocation, AuditEvent, Consumer, Gpu, GpuNow, UsageMinute
from app.services import policy
from tests.bench.report import Figure
from tests.hardware.host import INSIDE, Program, Workstation, end, until
from tests.hardware.readings import Nvml, differences, smi
from tests.lab.scene import SLEEPING, Scene, second_from_now

HERE = 20.0  # seconds within which a booked GPU is there
OVER = 20.0  # seconds after an end within which all of it is over
LOOKED = 25.0  # seconds within which what runs is in the database
TOLD = 75.0  # seconds within which what was used is
LENGTH = 40  # seconds of a booking
KEPT = "/root/kept"  # a copy of the node, made by the machine's root
MIB = int(os.environ.get("BERTH_CUDA_MIB", "1024"))  # what each program takes


@dataclass
class Findings:
    """What was seen: figures, and sentences each with whether it is so."""

    figures: list[Figure] = field(default_factory=list)
    facts: list[tuple[bool, str]] = field(default_factory=list)

    def say(self, holds: object, what: str) -> None:
        self.facts.append((bool(holds), what))
        print(f"{'ok  ' if holds else 'FAIL'} {what}", flush=True)


class Turns:
    """One GPU, two machines, and somebody on the host whose program is nobody's business."""

    def __init__(self, host: Workstation, scene: Scene, nvml: Nvml, found: Findings) -> None:
        self.host, self.scene, self.nvml, self.found = host, scene, nvml, found
        with scene.app.app_context(), transaction():
            policy.current().grace_seconds = 1
        self.one, self.other = scene.people(host, 2, SLEEPING)
        self.probes = {name: host.start(name, "probe", host.node, KEPT) for name in (self.one, self.other)}
        self.neighbour = host.start("", "keep", "256")
        self.base = nvml.used
        begin = second_from_now(1)
        self.dues = [begin + LENGTH * turn for turn in range(4)]
        turns = (self.one, self.other, self.one)
        self.bookings = [self._book(name, at, at + LENGTH) for name, at in zip(turns, self.dues, strict=False)]

    def all(self) -> None:
        try:
            self._first()
            self._second()
            self._usage(self.bookings[0])
        finally:
            end(self.neighbour, *self.probes.values())

    def _first(self) -> None:
        """Programs of all kinds, and a copy of the node."""
        host, say = self.host, self.found.say
        self._here(self.one, self.dues[0])
        host.run(self.one, "touch", KEPT)
        host.run(self.one, "mount", "--bind", host.node, KEPT)
        say(self._computes(self.one) == "right", "a kernel in a machine computes what it should")
        listed = host.run(self.one, "/usr/local/nvidia/bin/nvidia-smi", "-L")
        say("GPU 0:" in listed, f"nvidia-smi in the machine: {listed.strip()[:200]}")
        programs = self._start(self.one, "busy", "keep", "managed", "node", "shared")
        os.kill(programs["keep"].pid, signal.SIGSTOP)
        self._read(programs, self.bookings[0])
        self._over(0, programs)
        self._here(self.other, self.dues[1])
        say(self._computes(self.other) == "right", "the next machine computes on it")
        said = self._computes(self.one)
        say(said != "right", f"the first machine cannot any more: {said}")

    def _second(self) -> None:
        """Programs that keep their memory on the GPU without a descriptor of it."""
        programs = self._start(self.other, "thin", "bare", "busy")
        listed = {mode for mode, one in programs.items() if one.pid in self.nvml.pids}
        self.found.say(listed == {"thin", "busy"}, f"NVML lists who has the driver open: {sorted(listed)}")
        self._over(1, programs)
        self._here(self.one, self.dues[2])
        said = self._computes(self.one)
        self.found.say(said == "right", f"back in the first machine: {said}")

    def _book(self, name: str, begin: float, finish: float) -> int:
        number = self.scene.book(name, self.host, 0, begin, finish)
        self.scene.wake(self.host)
        return number

    def _computes(self, machine: str) -> str:
        return self.host.run(machine, INSIDE, "once", timeout=40).strip()

    def _start(self, machine: str, *modes: str) -> dict[str, Program]:
        before = self.nvml.used
        with ThreadPoolExecutor(len(modes)) as pool:
            started = list(pool.map(lambda mode: self.host.start(machine, mode, str(MIB)), modes))
        self.found.figures += [Figure(f"{one.mode}: ready after", (one.ready_ms,), "ms") for one in started]
        taken = self.nvml.used - before
        self.found.say(taken > 2 * MIB, f"the programs take {taken} MiB of the GPU")
        for one in started:
            print(f"     {one.mode} ({one.pid}): {_nodes(one.pid)}")
        return {one.mode: one for one in started}

    def _here(self, machine: str, due: float) -> None:
        """Wait until the machine can open it."""

        def opened() -> list[float]:
            rows = [line.split() for line in self.probes[machine].said]
            return [float(row[0]) for row in rows if row[1:] == [self.host.node, "0"] and float(row[0]) >= due]

        try:
            until(lambda: bool(opened()), HERE)
        except RuntimeError:
            self.found.say(False, f"the GPU is in {machine}: {self._why()}")
            raise
        self.found.figures.append(Figure(f"{machine} can open it, from its start", (opened()[0] - due,), "s", most=2))

    def _why(self) -> str:
        query = db.select(Gpu.state, Allocation.trouble, Allocation.trouble_text).join(Allocation.gpu)
        return str(self.scene.ask(lambda: db.session.execute(query).all()))

    def _read(self, programs: dict[str, Program], booking: int) -> None:
        """What the pages show of it, against what is so."""
        say, computing = self.found.say, {programs[mode].pid for mode in ("busy", "keep", "managed")}
        listed = {one.pid for one in programs.values()} & self.nvml.pids
        say(listed == computing, f"NVML lists them by the host's numbers: {sorted(listed)} of {sorted(computing)}")
        began, rows, memory = time.time(), dict[int, dict[str, Any]](), [0]
        # A look between a program's start and its memory is right, too, and the next one comes in time.
        while time.time() - began < LOOKED and not (computing <= rows.keys() and min(memory) >= MIB):
            now = self.scene.ask(lambda: db.session.scalars(db.select(GpuNow)).first())
            rows = {row["pid"]: row for row in now.processes} if now else {}
            memory = [rows.get(programs[mode].pid, {}).get("memory") or 0 for mode in ("busy", "keep")]
            time.sleep(0.2)
        whose = {(row["instance"], row["booking"]) for pid, row in rows.items() if pid in computing}
        took = f"within {time.time() - began:.0f} s"
        say(computing <= rows.keys() and whose == {(self.one, booking)}, f"each is the booking's {took}: {whose}")
        mine = rows.get(self.neighbour.pid, {})
        say((mine.get("instance"), mine.get("booking")) == ("", 0), f"the host's program is the host's: {mine}")
        say(min(memory) >= MIB, f"what they take, MiB: {memory}")
        gauge, theirs = self._gauge(), smi(self.host.card)
        unlike = differences(gauge, theirs)
        say(not unlike, f"values as nvidia-smi has them: {dict(gauge.values)} {'; '.join(unlike)}")
        say((gauge.busy or 0) > 0.9, f"kernels without end keep it busy: {gauge.busy}")

    def _gauge(self) -> Gauge:
        gauges = NvmlGauges()
        try:
            gauges.read([self.host.card.pci_address], processes=True)
            time.sleep(2.0)
            return gauges.read([self.host.card.pci_address], processes=True)[0]
        finally:
            gauges.close()

    def _over(self, turn: int, programs: dict[str, Program]) -> None:
        """The end of a booking: who is gone when, and when the memory is free."""
        due, say, gone = self.dues[turn + 1], self.found.say, dict[str, float]()
        query = db.select(Allocation.detached_at).where(Allocation.booking_id == self.bookings[turn])
        free = detached = None
        while time.time() < due + OVER and (len(gone) < len(programs) or free is None or detached is None):
            at = time.time() - due
            gone |= {mode: at for mode, one in programs.items() if mode not in gone and not one.lives}
            if free is None and self._is_free(programs):
                free = at
            if at > 0 and detached is None and (row := self.scene.ask(lambda: db.session.scalar(query))):
                detached = row.timestamp() - due
            time.sleep(0.005)
        left = sorted(programs.keys() - gone.keys())
        times = " ".join(f"{mode} {at:+.3f}" for mode, at in gone.items())
        say(not left, f"who held it is gone, seconds from the end: {times}; left: {left}")
        say(free is not None, f"NVML lists none of them and their memory is free: {free}; {self.nvml.used} MiB in use")
        say(detached is not None, f"proven free: {detached}; {'' if detached else self._why()}")
        say(self.neighbour.lives and self.neighbour.pid in self.nvml.pids, "the host's program goes on")
        named = {"proven free, from the end": detached, "memory free, from the end": free}
        self.found.figures += [Figure(name, (at,), "s", most=2) for name, at in named.items() if at is not None]
        for name, one in self.probes.items():
            print(f"     {name} could open (seconds from the end, path, errno): {_changes(one, due)}")
        ended = db.select(AuditEvent.details).where(AuditEvent.action == "gpu.process_ended")
        print(f"     on record: {self.scene.ask(lambda: db.session.scalars(ended).all())}")

    def _is_free(self, programs: dict[str, Program]) -> bool:
        return not {one.pid for one in programs.values()} & self.nvml.pids and self.nvml.used < self.base + MIB // 2

    def _usage(self, booking: int) -> None:
        """That the booking has used it is written down."""
        sums = (db.func.sum(column) for column in (UsageMinute.busy_ms, UsageMinute.sampled_ms, UsageMinute.energy_j))
        query = db.select(*sums).join(Consumer, Consumer.id == UsageMinute.consumer_id)
        began, row = time.time(), None
        while time.time() - began < TOLD and not (row and row[0]):
            row = self.scene.ask(lambda: db.session.execute(query.where(Consumer.booking_id == booking)).one())
            time.sleep(0.5)
        self.found.say(row and row[0], f"written down as the booking's (busy ms, sampled ms, J): {row}")


def _nodes(pid: int) -> str:
    """Which of NVIDIA's nodes a process has open and mapped, and how often."""
    folder, opened = Path(f"/proc/{pid}"), Counter[str]()
    for entry in (folder / "fd").iterdir():
        with suppress(OSError):
            opened[str(entry.readlink())] += 1
    mapped = Counter(line.split(maxsplit=5)[-1] for line in (folder / "maps").read_text().splitlines())
    said = [{name: count for name, count in some.items() if "/dev/nv" in name} for some in (opened, mapped)]
    return f"open {said[0]}, mapped {said[1]}"


def _changes(probe: Program, due: float) -> str:
    rows = [line.split() for line in probe.said]
    return " ".join(f"{float(row[0]) - due:+.3f} {row[1]} {row[2]};" for row in rows if len(row) == 3)
