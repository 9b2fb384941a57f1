"""Machines that fight the agent, several at a time, while an ordinary GPU changes hands beside them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.extensions import db
from app.models import Allocation, AuditEvent, Gpu, GpuState
from tests.lab.attack import at_once
from tests.lab.lab import Lab
from tests.lab.remains import end_processes
from tests.lab.scene import LEADS, SLEEPING, Scene, second_from_now
from tests.lab.watch import Watch
from tests.runtime.running import wait_for

FIGHTS = Path(__file__).with_name("fights")
FUSE = ("-p", "default", "-p", "fuse")
LIMITS = ("-c", "limits.processes=4096", "-c", "limits.memory=2GiB")
LONG, TURN = 3600, 5
OVER = 40.0  # seconds after the end within which the record says what became of each GPU
_UNKNOWN = "nothing"


@dataclass(frozen=True)
class Fight:
    """One of `fights/`. `ends`: what Berth may have written down in the end. `meddle`: what somebody does with `lxc` to
    the machine right after the end. `true`: what the reason of a quarantine says. `stopped`: the rules have its machine
    stopped."""

    name: str
    ends: frozenset[str] = frozenset({"detached"})
    options: tuple[str, ...] = ()
    before: bool = False
    meddle: tuple[tuple[str, ...], ...] = ()
    true: str = ""
    stopped: bool = False

    @property
    def script(self) -> str:
        return self.name.partition("-")[0]


@dataclass
class Agent:
    """How much of the machine the agent uses."""

    kilobytes: int
    threads: int
    children: int
    descriptors: int

    @classmethod
    def of(cls, scene: Scene) -> Agent:
        pid = scene.berth.pids("workers agent")[0]  # beside it, for a moment, a child that is not yet another program
        words = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        children = [
            one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
        memory, threads = int(words["VmRSS"].split()[0]), int(words["Threads"])
        return cls(memory, threads, len(children), len(list(Path(f"/proc/{pid}/fd").iterdir())))


@dataclass
class Seen:
    """What came of a batch. `late`: seconds from each ordinary handover's moment to when the next one had the GPU."""

    ends: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    canaries: list[str] = field(default_factory=list)
    before: Agent | None = None
    after: Agent | None = None
    stopped: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        ends = ", ".join(f"{name} {end} {self.seconds.get(name, 0):.1f} s" for name, end in self.ends.items())
        late = ", ".join(f"{one * 1000:.0f}" for one in self.late)
        return f"{ends}; beside them, ms: {late}; {self.before} → {self.after}; {self.reasons}"


class Canaries:
    """Files of the host and a process of it that nobody may touch."""

    def __init__(self, folder: Path) -> None:
        self.file, self.node = folder / "canary", folder / "node"
        self.file.write_text("untouched")
        self.file.chmod(0o640)
        os.mknod(self.node, stat.S_IFCHR | 0o640, os.makedev(1, 3))
        self.process = subprocess.Popen(["sleep", "infinity"])
        self._before = self._now()

    def _now(self) -> list[object]:
        facts = [path.lstat() for path in (self.file, self.node)]
        return [(one.st_mode, one.st_uid, one.st_gid, one.st_rdev, one.st_mtime_ns, one.st_ctime_ns) for one in facts]

    def harmed(self) -> list[str]:
        """What is not as it was."""
        found = [] if self._now() == self._before and self.file.read_text() == "untouched" else ["a file of the host"]
        return found + ([] if self.process.poll() is None else ["a process of the host"])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for path in (self.file, self.node):
            path.unlink()


class Ring:
    """A host with a Berth, and people with machines of which nothing is known yet."""

    def __init__(self, scene: Scene, host: Lab, canaries: Canaries) -> None:
        self.scene, self.host, self.canaries = scene, host, canaries
        self._gpus = iter(range(len(host.minors)))  # what one batch does to a GPU is nothing to the next

    def fight(self, fights: list[Fight]) -> Seen:
        """Have them all fight at one second, each with a GPU of its own; with the machines gone, all is over."""
        seen = Seen()
        try:
            self._fight(fights, seen)
        finally:
            self._close()
        seen.after = Agent.of(self.scene)
        return seen

    def _fight(self, fights: list[Fight], seen: Seen) -> None:
        host = self.host
        machines = {fight: self.scene.people(host, 1, (*SLEEPING, *LIMITS, *fight.options))[0] for fight in fights}
        first, then, later = self.scene.people(host, 3)
        calm = host.run(first, "sh", "-c", "sleep 9999 >/dev/null 2>&1 & echo $!").strip()
        gpus, ordinary = {fight: next(self._gpus) for fight in fights}, next(self._gpus)
        nodes = {fight: f"/dev/nvidia{host.minors[gpu]}" for fight, gpu in gpus.items()}
        at_once(
            lambda one: self._inside(machines[one], one, nodes[one], first, before=True),
            [f for f in fights if f.before],
        )
        begin = second_from_now(0)
        booked = {f: self.scene.book(machines[f], host, n, begin, begin + LONG) for f, n in gpus.items()}
        plain = self.scene.book(first, host, ordinary, begin, begin + LONG)
        self.scene.wake(host)
        usual = [number for fight, number in booked.items() if not fight.before]
        wait_for(lambda: self._attached([*usual, plain]), 30, "all GPUs are there")
        seen.before = Agent.of(self.scene)
        at_once(lambda one: self._inside(machines[one], one, nodes[one], first), [f for f in fights if not f.before])
        with Watch((host, first), (host, then), (host, later)) as watch:
            due = self._end([*booked.items(), (None, plain)], machines, first)
            self.scene.book(then, host, ordinary, due, due + TURN)
            self.scene.book(later, host, ordinary, due + TURN, due + LONG)
            self.scene.wake(host)
            time.sleep(max(0.0, due - time.time()))
            at_once(lambda one: self._meddle(machines[one], one), [one for one in fights if one.meddle])
            self._await(booked, machines, seen, due)
            time.sleep(max(0.0, due + TURN + 3 - time.time()))
            minor = host.minors[ordinary]
            seen.late = [self._came(watch, then, minor, due), self._came(watch, later, minor, due + TURN)]
        seen.canaries = self.canaries.harmed()
        if host.run(first, "kill", "-0", calm) != "":
            seen.canaries.append("a process of another machine")

    def _close(self) -> None:
        names = {name for _host, name in self.scene.machines}
        end_processes(names)  # what keeps LXD from removing them
        self.host.remove(*names)
        self.scene.machines.clear()
        wait_for(lambda: not self._quarantined(), 40, "with the machines gone, every GPU is proven free")

    def _inside(self, machine: str, fight: Fight, node: str, other: str, *, before: bool = False) -> None:
        more = {"impostors": [str(self.canaries.file), str(self.canaries.node)], "names": [other]}
        command = ["env", "PYTHONPATH=/attacks:/fights", "python3", f"/fights/{fight.script}.py", node]
        command += [*more.get(fight.script, []), *(["before"] if before else [])]
        said = self.host.run(machine, *command, timeout=60).strip()
        assert said == "ready", f"{fight.name}: {said}"

    def _meddle(self, machine: str, fight: Fight) -> None:
        for words in fight.meddle:
            self.host.lxc(*(word.format(machine) for word in words), check=False, timeout=40)

    def _end(self, booked: list[tuple[Fight | None, int]], machines: dict[Fight, str], first: str) -> int:
        return self.scene.end([(machines[fight] if fight else first, number) for fight, number in booked], LEADS)

    def _await(self, booked: dict[Fight, int], machines: dict[Fight, str], seen: Seen, due: float) -> None:
        """Until what has become of each GPU, and that the machines are stopped that are to be, is on record."""
        left = dict(booked)
        while left and time.time() < due + OVER:
            for fight, number in list(left.items()):
                end, why = self._record(number)
                if end != _UNKNOWN and fight.name not in seen.seconds:
                    seen.seconds[fight.name], seen.ends[fight.name] = time.time() - due, end
                    seen.reasons |= {fight.name: why} if why else {}
                if self._was_stopped(machines[fight]):
                    seen.stopped.add(fight.name)
                if end != _UNKNOWN and (fight.name in seen.stopped or not fight.stopped):
                    del left[fight]
            time.sleep(0.1)
        for fight in booked:
            seen.ends.setdefault(fight.name, _UNKNOWN)

    def _record(self, booking: int) -> tuple[str, str]:
        query = db.select(Allocation, Gpu).join(Gpu, Gpu.id == Allocation.gpu_id)
        row = self.scene.ask(lambda: db.session.execute(query.where(Allocation.booking_id == booking)).one())
        if row is None:
            return _UNKNOWN, ""
        allocation, gpu = row
        if gpu.state == GpuState.QUARANTINE:
            return "quarantine", gpu.quarantine_reason
        never = allocation.attached_at is None and allocation.trouble
        return ("detached" if allocation.detached_at else "never attached" if never else _UNKNOWN), ""

    def _attached(self, bookings: list[int]) -> bool:
        there = Allocation.booking_id.in_(bookings), Allocation.attached_at.is_not(None)
        query = db.select(db.func.count()).where(*there)
        return self.scene.ask(lambda: db.session.scalar(query)) == len(bookings)

    def _quarantined(self) -> int:
        query = db.select(db.func.count()).where(Gpu.state == GpuState.QUARANTINE)
        return int(self.scene.ask(lambda: db.session.scalar(query)) or 0)

    def _was_stopped(self, name: str) -> bool:
        found = AuditEvent.action == "instance.force_stopped", AuditEvent.target == f"instance:{name}"
        return bool(self.scene.ask(lambda: db.session.scalar(db.select(db.func.count()).where(*found))))

    @staticmethod
    def _came(watch: Watch, name: str, minor: int, moment: float) -> float:
        return next((one.at - moment for one in watch.sights if minor in one.have[name]), float("inf"))


def furnish(host: Lab, folder: Path, add: Callable[[Lab, Path], None]) -> None:
    """Give every machine the fights, and the attacks, whose kit they use."""
    add(host, folder)
    scripts = folder / "fights"
    shutil.copytree(FIGHTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (scripts, *scripts.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    host.lxc(
        "profile", "device", "add", "default", "fights", "disk", f"source={scripts}", "path=/fights", "readonly=true"
    )
    host.lxc("profile", "create", "fuse")
    host.lxc("profile", "device", "add", "fuse", "answers", "unix-char", "source=/dev/fuse", "path=/dev/answers")
