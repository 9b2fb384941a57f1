"""Watches a fault run: what the machines' residents tell, who holds what, and what is booked, until it is closed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, User
from tests.lab.fault_judge import ByHand, Facts, Outage, Right, Span
from tests.lab.lab import Lab
from tests.lab.scene import Scene

POLL = 0.2  # seconds between two looks at the database
LATE = 0.1  # seconds without a look, as `resident.py` has it
FRESH = 1.0  # seconds for which a look is the latest
FOREVER = float("inf")


@dataclass
class _Away:
    """Something that was killed. `again`: when it was there again; `passed`: when a pass showed that all is well."""

    what: str
    begin: float
    again: float
    passed: float = FOREVER


@dataclass
class Watch:
    """While it is open it collects; `facts` says at any time what was seen until then."""

    scene: Scene
    host: Lab
    logs: Path
    zero: float = field(default_factory=time.time)
    by_hand: list[ByHand] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rights: list[Right] = []
        self._away: list[_Away] = []
        self._lines: list[tuple[float, float, dict[str, dict[str, list[int]]]]] = []
        self._over = threading.Event()

    def __enter__(self) -> Self:
        names = rf"[ct]-{os.getpid()}-\d+"  # as `Lab.unique` makes them: other labs have the same devices
        numbers = {f"{a}:{b}": gpu.minor for gpu in self.host.gpus for a, b in gpu.numbers}
        self._eyes = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("fault_eyes.py")), names, json.dumps(numbers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._poll)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._eyes.stdin:
            self._eyes.stdin.close()
        for thread in self._threads:
            thread.join(10)
        self._eyes.kill()
        self._eyes.wait()
        if self._eyes.stdout:
            self._eyes.stdout.close()

    def killed(self, what: str) -> _Away:
        """Note that something is killed now; set `again` when it is known to be there again."""
        away = _Away(what, time.time(), time.time())
        self._away.append(away)
        return away

    def facts(self) -> Facts:
        """What was seen."""
        outages = [Outage(away.what, away.begin, away.passed) for away in list(self._away)]
        boots, opened = self._opened()
        spans = opened + self._held(boots)
        return Facts(spans, list(self._rights), outages, list(self.by_hand), self.zero)

    def now(self) -> set[tuple[str, int]]:
        """Which machine has which GPU, as far as it was told a moment ago."""
        found = {
            (name, int(minor)) for name, minors in (self._lines or [(0, 0, {})])[-1][2].items() for minor in minors
        }
        for path in self.logs.glob("*.log"):
            *lines, (beat, _, _) = _looks(path) or [(0.0, 0.0, frozenset())]
            if lines and beat > time.time() - FRESH:
                found |= {(path.name.partition(".")[0], minor) for minor in lines[-1][2]}
        return found

    def _opened(self) -> tuple[dict[str, list[float]], list[Span]]:
        boots: dict[str, list[float]] = defaultdict(list)
        spans: list[Span] = []
        for path in sorted(self.logs.glob("*.log")):
            machine, _, rest = path.name.removesuffix(".log").partition(".")
            boots[machine].append(float(rest))
            spans += _of_a_life(path, machine, float(rest))
        return boots, spans

    def _held(self, boots: dict[str, list[float]]) -> list[Span]:
        """What was seen in two looks one after the other, from the end of the first to the beginning of the last."""
        since: dict[tuple[str, int], float] = {}
        spans: list[Span] = []

        def close(key: tuple[str, int], end: float) -> None:
            begin = since.pop(key)
            if end > begin:
                boot = max((at for at in boots.get(key[0], ()) if at <= begin), default=0.0)
                spans.append(Span(*key, "held", begin, end, boot))

        last = 0.0
        for before, ended, found in list(self._lines):
            now = {(machine, int(minor)) for machine, minors in found.items() for minor in minors}
            for key in since.keys() - now:
                close(key, before)
            for key in now - since.keys():
                since[key] = ended
            last = before
        for key in list(since):
            close(key, last)
        return spans

    def _read(self) -> None:
        assert self._eyes.stdout is not None
        for line in self._eyes.stdout:
            before, ended, found = json.loads(line)
            self._lines.append((before, ended, found))

    def _poll(self) -> None:
        known: dict[int, Right] = {}
        while not self._over.wait(POLL):
            found = self.scene.ask(self._asked)
            if found is None:
                continue
            passed, rights = found
            for right in rights:
                if known.get(right.allocation) != replace(right, since=known.get(right.allocation, right).since):
                    known[right.allocation] = right
                    self._rights.append(right)
            for away in self._away:
                if away.passed == FOREVER and passed > away.again:
                    away.passed = time.time()

    def _asked(self) -> tuple[float, list[Right]]:
        """When the last pass was written down, and every allocation; what was released is right for no moment."""
        endpoint = Host.endpoint == str(self.host.socket)
        passed: datetime | None = db.session.scalar(db.select(Host.pass_at).where(endpoint))
        at = time.time()
        query = (
            db.select(Allocation, Gpu.minor, User.username)
            .join(Gpu, Gpu.id == Allocation.gpu_id)
            .join(Booking, Booking.id == Allocation.booking_id)
            .join(User, User.id == Booking.user_id)
        )
        rights = [
            Right(
                allocation.id, username, minor, allocation.starts_at.timestamp(),
                0.0 if allocation.released_at else allocation.ends_at.timestamp(), at,
            )
            for allocation, minor, username in db.session.execute(query)
        ]  # fmt: skip
        db.session.rollback()
        return passed.timestamp() if passed else 0.0, rights


def _looks(path: Path) -> list[tuple[float, float, frozenset[int]]]:
    """A resident's lines, and as the last one the moment of its latest look."""
    lines: list[tuple[float, float, frozenset[int]]] = []
    for text in path.read_text().splitlines():
        with suppress(ValueError):  # the line that is being written
            last, at, minors = json.loads(text)
            lines.append((last, at, frozenset(minors)))
    with suppress(OSError, struct.error):
        (beat,) = struct.unpack("d", path.with_suffix(".beat").read_bytes())
        lines.append((beat, beat, frozenset()))
    return lines


def _of_a_life(path: Path, machine: str, boot: float) -> list[Span]:
    """From a machine's start to its end, when it could open which GPU. Where it could not look, nothing is known."""
    spans: list[Span] = []
    for (_, begin, minors), (end, _, _) in pairwise(_looks(path)):
        for minor in minors:
            spans = _joined(spans, Span(machine, minor, "open", begin, max(begin, end), boot))
    return spans


def _joined(spans: list[Span], new: Span) -> list[Span]:
    """With one more, which goes on where an earlier one of the same GPU ended a look before."""
    for place, old in enumerate(spans):
        if old.minor == new.minor and 0 <= new.begin - old.end <= LATE:
            return [*spans[:place], replace(old, end=new.end), *spans[place + 1 :]]
    return [*spans, new]
