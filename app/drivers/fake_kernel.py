"""The simulated host's kernel: who holds which GPU is kept in the host's file, and can be made difficult by tests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from app import clock
from app.drivers.base import DriverError, HostSeen, InstanceSeen, Number
from app.drivers.fake_gauges import FakeGauges, jobs
from app.drivers.kernel import HOST, Holder, How, Parted, Process, Scan
from app.drivers.simulated import SimulatedHost, State

_FIRST_PID = 1000


class FakeKernel(SimulatedHost):
    """Kernel of the host that `FakeLxd` has in the same file."""

    def fence(
        self, seen: HostSeen, denied: Mapping[str, frozenset[Number]], guarded: frozenset[Number]
    ) -> dict[str, str]:
        """Deny each running instance its numbers."""
        with self._call("fence") as state:
            troubles = {}
            for name, numbers in denied.items():
                if name in state["instances"] and state["instances"][name]["status"] in {"running", "frozen"}:
                    kept = {tuple(number) for number in state.setdefault("denied", {}).get(name, [])} - guarded
                    state["denied"][name] = sorted([list(number) for number in kept | numbers])
                if why := state.get("unfenced", {}).get(name):
                    troubles[name] = why
            return troubles

    def shut(self, instance: str, device: str) -> None:
        """Shut the node."""
        with self._call("shut") as state:
            state.setdefault("shut", []).append([instance, device])

    @contextmanager
    def still(self, seen: HostSeen, instances: Collection[str]) -> Iterator[None]:
        """Nothing moves here by itself."""
        with self._call("still"):
            pass
        yield

    def scan(self, seen: HostSeen, numbers: frozenset[Number], *, thorough: bool = True) -> Scan:
        """Who holds what; processes of an instance that does not run are gone."""
        with self._call("scan") as state:
            _end_of_stopped(state)
            found = [_holder(one, numbers) for one in state.setdefault("processes", [])]
            holders = tuple(holder for holder in found if holder is not None and (thorough or holder.how == How.OPEN))
            return Scan(holders, dict(state.get("doubts", {})), len(found))

    def running(self) -> HostSeen:
        """By the same file."""
        with self._open() as state:
            names = [name for name, one in state["instances"].items() if one["status"] in {"running", "frozen"}]
        return HostSeen({name: InstanceSeen(name, "running", privileged=True) for name in names}, looked=False)

    @property
    def gauges(self) -> FakeGauges:
        """Those of the same host."""
        return FakeGauges(self._path)

    def whose(self, seen: HostSeen, pids: Collection[int]) -> dict[int, Process]:
        """Those that were put there, and those that are made up."""
        with self._open() as state:
            found = {job.pid: Process(job.pid, job.instance, "python") for job in jobs(state, clock.now().timestamp())}
            put = {one["pid"]: Process(one["pid"], one["instance"], one["name"]) for one in state.get("processes", [])}
        return {pid: one for pid, one in (found | put).items() if pid in pids}

    def ask(self, holders: Collection[Holder], seconds: float) -> tuple[Holder, ...]:
        """SIGTERM: stubborn ones stay."""
        with self._call("ask") as state:
            return self._remove(state, holders, "stubborn")

    def kill(self, holders: Collection[Holder], seconds: float) -> tuple[Holder, ...]:
        """SIGKILL: immortal ones stay, as in a system call that does not return."""
        with self._call("kill") as state:
            return self._remove(state, [one for one in holders if not one.first and one.instance != HOST], "immortal")

    def end_on_host(self, holder: Holder, seconds: float) -> Parted:
        """SIGTERM, which one that `lets_go` outlives without its GPUs; SIGKILL."""
        with self._call("end_on_host") as state:
            found = next((one for one in state.get("processes", []) if one["pid"] == holder.pid), None)
            if found is None or found["instance"] != HOST or not _holder(found, holder.numbers):
                raise DriverError(f"End process {holder.pid}", "it does not hold a GPU of this host now")
            if found.get("lets_go"):
                found["numbers"] = []
                return Parted.LET_GO
            return Parted.STAYS if self._remove(state, [holder], "immortal") else Parted.ENDED

    def close(self) -> None:
        """Nothing runs beside this process."""

    def add_process(self, instance: str, *numbers: Number, how: How = How.OPEN, **more: int) -> int:
        """Let a process hold these devices; `stubborn`, `immortal`, `lets_go`, `first` as a real one can be; `pid`: one
        that holds something already does so too. Its id."""
        with self._open() as state:
            processes = state.setdefault("processes", [])
            pid = max((one["pid"] for one in processes), default=state.get("last_pid", _FIRST_PID)) + 1
            state["last_pid"] = pid
            name = "train" if instance else "Xorg"
            values = {"pid": pid, "instance": instance, "name": name, "how": str(how), "numbers": numbers}
            processes.append(values | more)
            return int(processes[-1]["pid"])

    def doubt(self, instance: str, why: str = "") -> None:
        """Let no look see all of an instance, for that reason; without one, no more."""
        with self._open() as state:
            state.setdefault("doubts", {})[instance] = why
            state["doubts"] = {name: text for name, text in state["doubts"].items() if text}

    def processes(self) -> list[int]:
        """Who is alive."""
        with self._open() as state:
            _end_of_stopped(state)
            return [one["pid"] for one in state.get("processes", [])]

    def may_open(self, instance: str, number: Number) -> bool:
        """Whether the fence lets an instance open a device."""
        with self._open() as state:
            return list(number) not in state.get("denied", {}).get(instance, [])

    @staticmethod
    def _remove(state: State, holders: Collection[Holder], stays: str) -> tuple[Holder, ...]:
        named = {holder.pid: holder for holder in holders}
        kept = [one for one in state.get("processes", []) if one["pid"] not in named or one.get(stays)]
        state["processes"] = kept
        return tuple(named[one["pid"]] for one in kept if one["pid"] in named)


def _end_of_stopped(state: State) -> None:
    running = {name for name, item in state["instances"].items() if item["status"] in {"running", "frozen"}} | {HOST}
    state["processes"] = [one for one in state.get("processes", []) if one["instance"] in running]


def _holder(one: dict[str, Any], wanted: frozenset[Number]) -> Holder | None:
    numbers = frozenset((major, minor) for major, minor in one["numbers"])
    if numbers and not numbers & wanted:
        return None
    first = bool(one.get("first"))
    return Holder(one["pid"], one["pid"], one["instance"], one["name"], numbers & wanted, How(one["how"]), first)
