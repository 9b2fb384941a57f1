"""What a simulated host's GPUs are at: whoever has one plugged in computes on it, with gaps, and holds memory.

The same for the same machine, GPU and moment, so that every process that looks sees the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from app import clock
from app.drivers.base import NVIDIA_MAJOR
from app.drivers.gauges import Gauge, Running
from app.drivers.simulated import SimulatedHost, State

TOTAL, LIMIT = 49_140, 300  # MiB and W, as an RTX A6000 has
_IDLE_WATTS, _IDLE_TEMPERATURE = 24, 33
_PIDS = 100_000  # those of made-up jobs begin here
_BY_HAND = 40  # per cent of a GPU that a process takes that was put there by hand


@dataclass(frozen=True)
class Job:
    """A process on a GPU: MiB, per cent."""

    pid: int
    instance: str
    pci_address: str
    memory: int
    utilisation: float


def jobs(state: State, moment: float) -> list[Job]:
    """What runs at this moment (seconds since 1970) on the host."""
    found = [
        job
        for name, item in state["instances"].items()
        if item["status"] == "running"
        for device in item["nodes"]
        if device in item["devices"] and (job := _job(name, item["devices"][device]["pci"], moment)) is not None
    ]
    minors = {(NVIDIA_MAJOR, gpu["minor"]): gpu["pci_address"] for gpu in state["gpus"]}
    for one in state.get("processes", []):
        places = {minors[tuple(number)] for number in one["numbers"] if tuple(number) in minors}
        found += [Job(one["pid"], one["instance"], place, 2048, _BY_HAND) for place in sorted(places)]
    return found


def _job(instance: str, pci: str, moment: float) -> Job | None:
    """A run of some minutes, then a gap, in which it mostly still holds its memory."""
    length = 240 + _dice(instance, pci).randrange(360)
    number, into = divmod(moment, length)
    run = _dice(instance, pci, number)
    level, memory, busy = run.uniform(60, 96), round(TOTAL * run.uniform(0.25, 0.85)), run.uniform(0.65, 0.9)
    pid = _PIDS + run.randrange(900_000)
    if into < busy * length:
        wiggle = 6 * math.sin(into / 7) + _dice(pid, round(into)).uniform(-4, 4)
        return Job(pid, instance, pci, memory, max(0.0, min(100.0, level + wiggle)))
    return Job(pid, instance, pci, memory, 0.0) if run.random() < 0.6 else None


def _dice(*seed: object) -> Random:
    return Random(repr(seed))  # noqa: S311 - nothing is kept secret by it


class FakeGauges(SimulatedHost):
    """Gauges of the host that `FakeLxd` has in the same file."""

    own: frozenset[int] = frozenset()

    def read(self, addresses: Collection[str], *, processes: bool) -> tuple[Gauge, ...]:
        """As it is at this moment."""
        moment = clock.now().timestamp()
        with self._open() as state:
            running, known = jobs(state, moment), {gpu["pci_address"] for gpu in state["gpus"]}
        return tuple(
            _gauge(pci, [job for job in running if job.pci_address == pci], moment, processes=processes)
            if pci in known
            else Gauge(pci, trouble="the simulated host has no such GPU")
            for pci in sorted(addresses)
        )

    def close(self) -> None:
        """Nothing is open."""


def _gauge(pci: str, running: list[Job], moment: float, *, processes: bool) -> Gauge:
    share = min(100.0, sum(job.utilisation for job in running))
    used = min(TOTAL, 420 + sum(job.memory for job in running))
    breath = _dice(pci, round(moment)).uniform(-1.5, 1.5)
    values = {
        "utilisation": round(share),
        "memory_utilisation": round(share * 0.6),
        "memory_used": used,
        "memory_total": TOTAL,
        "power": round(_IDLE_WATTS + (LIMIT - _IDLE_WATTS) * share / 100 * 0.93 + breath, 1),
        "power_limit": LIMIT,
        "temperature": round(_IDLE_TEMPERATURE + share * 0.42),
        "clock_sm": 210 if not share else round(1455 + 3 * share),
        "clock_memory": 405 if not running else 8001,
        "ecc_errors": 0,
        "throttle": "power" if share > 97 else "",
    }
    listed = tuple(Running(job.pid, job.memory, utilisation=round(job.utilisation, 1)) for job in running)
    return Gauge(pci, values, share / 100, listed if processes else None)
