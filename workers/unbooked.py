"""Who uses a GPU without a booking: found by what NVML lists, told of once for each time that it is so.

Ending a machine's processes is the guard's work (`workers.evictor`), and what it ends it puts on record itself. So it
is given the time for a look of its own first, and what it has in hand is not told of a second time. The host's own
processes it leaves alone: of these, those that compute are told of at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from app.drivers.gauges import Running
from app.drivers.kernel import HOST, Process
from workers.evictor import SWEEP_EVERY, Evictor
from workers.jobs import LOOK

JUDGED = 1.0  # seconds after the guard has begun to look, by which it has asked whom it will end
PATIENCE = 3.5  # seconds for it to look


@dataclass(frozen=True)
class Stray:
    """A process on a GPU that is not its instance's, or of the host."""

    pci_address: str
    running: Running
    process: Process

    @property
    def counts(self) -> bool:
        """Whether that is a use: the host's own desktop is none."""
        return self.process.instance != HOST or self.running.computes


class Unbooked:
    """Of one host, from look to look."""

    def __init__(self, evictor: Evictor) -> None:
        self._evictor = evictor
        self._since: dict[tuple[str, str], float] = {}  # GPU and instance: when it was found
        self._told: set[tuple[str, str]] = set()
        self._news: list[Stray] = []
        self._lock = threading.Lock()
        self.found = threading.Event()  # set when there are more news, and at last when the sampler ends

    @property
    def pending(self) -> bool:
        """Whether it is not decided yet of somebody, so that the next look should come soon."""
        return bool(self._since.keys() - self._told)

    def look(self, strays: Iterable[Stray]) -> None:
        """All that are found now."""
        found: dict[tuple[str, str], list[Stray]] = {}
        for stray in strays:
            if stray.counts:
                found.setdefault((stray.pci_address, stray.process.instance), []).append(stray)
        now = time.monotonic()
        if any(key[1] != HOST for key in found.keys() - self._since.keys()):
            self._evictor.swept = min(self._evictor.swept, now - SWEEP_EVERY)  # the guard need not wait for its turn
            LOOK.set()
        self._since = {key: self._since.get(key, now) for key in found}
        self._told &= found.keys()
        for key in found.keys() - self._told:
            if self._is_news(key, found[key], now):
                self._told.add(key)
                with self._lock:
                    self._news.append(min(found[key], key=lambda one: (one.process.start, one.running.pid)))
                self.found.set()

    def news(self) -> list[Stray]:
        """Those that are to be put on record, of each instance and GPU the oldest process; to be `noted` then."""
        with self._lock:
            return list(self._news)

    def noted(self, news: Iterable[Stray]) -> None:
        """They are on record."""
        with self._lock:
            self._news = [one for one in self._news if one not in set(news)]

    def _is_news(self, key: tuple[str, str], strays: list[Stray], now: float) -> bool:
        since = self._since[key]
        if key[1] == HOST:
            return True
        if any((one.running.pid, one.process.start) in self._evictor.asked for one in strays):
            return False  # the guard is at it
        return (self._evictor.swept > since and now - self._evictor.swept >= JUDGED) or now - since >= PATIENCE
