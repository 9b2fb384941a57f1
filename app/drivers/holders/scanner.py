"""Keeps the scanning process: asks it, gives up on it when it hangs, and says at whom it hung.

A container can make a look at it hang for ever, in a way that even SIGKILL does not end. So the looking is done by a
process that can be abandoned; what it hung at is left out from then on, and counts as a doubt. So does its whole
container for a while: it may have a thousand more of the kind, and every look would wait for each.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from app.drivers.asked import Asked, program
from app.drivers.base import DriverError, Number
from app.drivers.holders.cgroups import payload
from app.drivers.holders.nodes import start_time

log = logging.getLogger(__name__)

PATIENCE = 3.0  # seconds at one process
LEFT_OUT = 30.0  # seconds for which a container is not looked at after a look hung in it
TRIES = 8  # looks that hang or fail before nobody is kept waiting any longer
TURNS = 24  # a look that is not thorough looks deep into one process in so many
ABANDONED_AT_MOST = 8  # processes that hang and cannot be killed; more, and nothing is looked at any more
_PROGRAM = program("app.drivers.holders.scan")


@dataclass(frozen=True)
class Found:
    """What one look showed, as the scanning process says it."""

    found: list[list[Any]] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    processes: int = 0


class _Child(Asked):
    """One scanning process."""

    def __init__(self) -> None:
        memory = os.memfd_create("berth-scan")
        os.ftruncate(memory, mmap.PAGESIZE)
        self._shared = mmap.mmap(memory, mmap.PAGESIZE)
        super().__init__(_PROGRAM, str(memory), descriptors=[memory])
        os.close(memory)

    @property
    def at(self) -> int:
        """The process that it is looking at; 0 for none."""
        return int(memoryview(self._shared).cast("q")[0])

    @property
    def progress(self) -> int:
        """How many processes it has come to."""
        return int(memoryview(self._shared).cast("q")[1])

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


@dataclass(frozen=True)
class _Left:
    """Why a container is not looked at, until when at least; and for as long as the look that hung there hangs on."""

    why: str
    until: float
    child: _Child

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until and self.child.gone


class Scanner:
    """Looks, for several threads at once: who asks while a look is under way gets the next one, together."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._one_at_a_time = threading.Lock()
        self._child: _Child | None = None
        self._abandoned: list[_Child] = []
        self._hung: dict[int, int] = {}  # process → its start: never looked at again
        self._left: dict[str, _Left] = {}  # by cgroup
        self._turn = 0
        self._waiting: _Batch | None = None
        self._joining = threading.Lock()

    def look(self, numbers: Collection[Number], *, thorough: bool) -> Found:
        """A look that began after this call. Raises DriverError when nothing can be looked at any more."""
        with self._joining:
            batch = self._waiting
            if batch is None:
                batch = self._waiting = _Batch()
            batch.askers += 1
            batch.numbers |= set(numbers)
            batch.thorough = batch.thorough or thorough
        with self._one_at_a_time:
            if batch.result is None:
                with self._joining:
                    self._waiting = None
                batch.result = self._look(batch)
        return batch.result

    @property
    def pid(self) -> int | None:
        """The scanning process, once there is one."""
        return self._child.process.pid if self._child is not None else None

    def close(self) -> None:
        """End the scanning process."""
        with self._one_at_a_time:
            if self._child is not None:
                self._child.end()
                self._child = None

    def _look(self, batch: _Batch) -> Found:
        self._abandoned = [child for child in self._abandoned if not child.gone]
        self._left = {group: left for group, left in self._left.items() if not left.over}
        self._hung = {pid: start for pid, start in self._hung.items() if start_time(pid) == start}
        self._turn = (self._turn + 1) % TURNS
        for _ in range(TRIES):
            if len(self._abandoned) >= ABANDONED_AT_MOST:
                raise DriverError(
                    "Look for who holds a GPU", f"{ABANDONED_AT_MOST} looks hang", "Restart the machines at fault."
                )
            if self._child is None:
                self._child = _Child()
            request = {
                "numbers": sorted(batch.numbers), "thorough": batch.thorough, "turn": self._turn, "turns": TURNS,
                "skip": sorted(self._hung), "leave": {group: left.why for group, left in self._left.items()},
            }  # fmt: skip
            answer = self._child.ask(request, self._patience)
            if answer is not None:
                return Found(answer["found"], answer["doubts"], answer["processes"])
            self._give_up(self._child)
        raise DriverError("Look for who holds a GPU", f"{TRIES} looks gave no answer", "The agent tries again.")

    def _give_up(self, child: _Child) -> None:
        """Abandon a look that hangs, and leave out from now on what it hung at."""
        pid, self._child = child.at, None
        if not child.end():
            self._abandoned.append(child)
        start = start_time(pid) if pid else None
        if start is None:  # it died, or what it hung at is gone: the next look will tell
            log.warning("a look for holders of GPUs ended without an answer")
            return
        self._hung[pid] = start
        if group := payload(pid):
            self._left[group] = _Left(f"a look at process {pid} did not end", time.monotonic() + LEFT_OUT, child)
        log.warning("a look for holders of GPUs hung at process %d, which is left out from now on", pid)


class _Batch:
    """Those who wait for the same look."""

    def __init__(self) -> None:
        self.askers = 0
        self.numbers: set[Number] = set()
        self.thorough = False
        self.result: Found | None = None
