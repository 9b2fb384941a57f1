"""`python -m tests.runtime.hurried agent HOST`: a simulated host's agent, as `berth agent` starts it, that reads GPUs
through NVML and finds out by cgroups whose processes run on them, as on a real host.

For what measures, time goes HURRIED_SPEED times as fast, from HURRIED_FROM (seconds since 1970) on, and begins with the
first reading. That waits until a pass has seen a GPU plugged in: passes take their time, and readings have less of it.
What a busy machine may take for a reading stays as it is. When it began is in the file HURRIED_BEGAN, by the monotonic
clock. NVML_LIBRARY is where the library is, NVML_STUB what it says.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.drivers.base import HostSeen
from app.drivers.fake_kernel import FakeKernel
from app.drivers.gauges import Gauge, NvmlGauges
from app.drivers.holders.host import HostKernel
from app.drivers.kernel import Process
from app.services.attribution import owners
from workers import __main__ as program
from workers import agent, beside, delivery, sampler

SPEED = float(os.environ["HURRIED_SPEED"])
FROM = float(os.environ["HURRIED_FROM"])


class Clock:
    """The time of what measures. It stands still until it is started."""

    def __init__(self) -> None:
        self._began = 0.0

    def start(self) -> None:
        self._began = time.monotonic()
        new = Path(os.environ["HURRIED_BEGAN"] + ".new")
        new.write_text(repr(self._began))
        new.rename(os.environ["HURRIED_BEGAN"])

    def monotonic(self, real: float | None = None) -> float:
        """What the monotonic clock would show, seconds; at a `real` moment of it, or now."""
        passed = (time.monotonic() if real is None else real) - self._began
        return self._began + passed * SPEED

    def now(self) -> datetime:
        return datetime.fromtimestamp(FROM + (time.monotonic() - self._began) * SPEED, UTC)


CLOCK = Clock()


class Gauges:
    """NVML's, read at moments of our clock."""

    def __init__(self, real: NvmlGauges) -> None:
        self.real = real

    def read(self, addresses: Collection[str], *, processes: bool) -> tuple[Gauge, ...]:
        found = self.real.read(addresses, processes=processes)
        return tuple(replace(one, moment=CLOCK.monotonic(one.moment)) for one in found)

    @property
    def own(self) -> frozenset[int]:
        return self.real.own

    def close(self) -> None:
        self.real.close()


class Kernel(FakeKernel):
    """Simulated, but for who does what on the GPUs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        library, said = os.environ["NVML_LIBRARY"], os.environ["NVML_STUB"]
        real = NvmlGauges({"LD_LIBRARY_PATH": library, "NVML_STUB": said, "NVML_OPENS": ""})
        real.patience = 20.0
        self._gauges = Gauges(real)
        self._host = HostKernel(lambda: None)

    @property
    def gauges(self) -> Any:
        return self._gauges

    def whose(self, seen: HostSeen, pids: Collection[int]) -> dict[int, Process]:
        return self._host.whose(seen, pids)


class Event:
    """Of the same, waited for in our time."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event
        self.is_set = event.is_set

    def wait(self, seconds: float | None = None) -> bool:
        return self._event.wait(None if seconds is None else seconds / SPEED)


class Sampler(sampler.Sampler):
    """In our time."""

    def run(self, stop: threading.Event) -> None:
        while not owners(self._evictor.seen):
            if stop.wait(0.02):
                return
        kernel = self._evictor.kernel
        assert isinstance(kernel, Kernel)
        kernel.gauges.real.read(self._addresses(), processes=True)  # what asks NVML takes its time to start, too
        CLOCK.start()
        super().run(Event(stop))  # type: ignore[arg-type] - what of it is used


def main() -> int:
    sampler.time = CLOCK  # type: ignore[assignment]
    sampler.clock = SimpleNamespace(now=CLOCK.now)  # type: ignore[assignment]
    sampler.LONGEST *= SPEED
    sampler._SET = 3_600_000  # nobody sets our clock; a thread that had to wait between two looks at it has not either
    delivery.SHOW_EVERY, delivery.DELIVER_EVERY = 0.5, 60 / SPEED
    beside.Sampler = Sampler  # type: ignore[misc]
    agent.kernel_of = lambda _driver, _endpoint, name, folder: Kernel(folder / "sim" / f"{name}.json")
    return program.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
