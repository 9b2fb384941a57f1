"""Which processes NVML lists on a GPU, for what the look through procfs may have missed.

A second opinion: where NVML is absent, hangs or does not say, the look stands alone, and nothing is raised. The asking
is done by a process that is kept for the next questions and given up when it hangs (`app.drivers.nvml`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.drivers.asked import Asked, program
from app.drivers.base import NVIDIA_MAJOR, Number
from app.drivers.holders.cgroups import payload
from app.drivers.holders.nodes import PROC, name_of, start_time

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds for a question: a container may be held still meanwhile
READY_WITHIN = 4.0  # seconds for NVML to start, which takes long where no daemon keeps the driver awake
AGAIN = 60.0  # seconds before NVML is asked again after it did not answer
ABSENT_AGAIN = 300.0  # likewise where there is none
IDLE = 20.0  # seconds without a question after which that process ends: it keeps the GPUs open
_ENDS_SOON = 15.0  # seconds without one after which it is not relied on any more
_PROGRAM = "import sys; sys.path.append(sys.argv[2]); " + program("app.drivers.nvml")

Listing = dict[int, set[Number]]
"""By process, the GPUs that NVML lists it on."""


class Listed:
    """Asks NVML. Safe to use from several threads: one question after the other."""

    def __init__(self, patience: float = PATIENCE, environment: Mapping[str, str] | None = None) -> None:
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._environment = kept if environment is None else environment
        self._patience = patience
        self._lock = threading.Lock()
        self._child: Asked | None = None
        self._abandoned: Asked | None = None
        self._asked_at = 0.0
        self._silent_until = 0.0
        self._told: set[str] = set()  # what is in the log already

    def ready(self) -> None:
        """Have NVML started, so that a question asked soon is answered soon."""
        with self._lock:
            if self._child is None or self._ends_soon():
                self._ask(frozenset(), READY_WITHIN)

    def on(self, numbers: Collection[Number]) -> Listing:
        """Who is listed on which of these GPUs; nobody where NVML says nothing."""
        minors = frozenset(minor for major, minor in numbers if major == NVIDIA_MAJOR)
        found: Listing = {}
        with self._lock:
            starting = self._child is None or self._ends_soon()
            gpus = self._ask(minors, READY_WITHIN if starting else self._patience) if minors else []
        for gpu in gpus:
            for pid in gpu["pids"]:
                found.setdefault(pid, set()).add((NVIDIA_MAJOR, gpu["minor"]))
        return found

    @property
    def own(self) -> frozenset[int]:
        """The processes of ours that have the GPUs open in order to ask."""
        return frozenset(child.process.pid for child in (self._child, self._abandoned) if child is not None)

    def close(self) -> None:
        """End the process that asks."""
        with self._lock:
            self._end()

    def _ask(self, minors: Collection[int], patience: float) -> list[dict[str, Any]]:
        if time.monotonic() < self._silent_until or self._still_hangs():
            return []
        try:
            if self._child is None or self._ends_soon():
                self._end()
                self._child = self._start()
            answer = self._child.ask({"minors": sorted(minors)}, patience)
        except (OSError, ValueError) as error:
            return self._fall_silent(str(error))
        if answer is None:
            return self._fall_silent("no answer, or not in time")
        if "silent" in answer:
            return self._fall_silent(answer["silent"], absent=answer["absent"])
        self._asked_at = time.monotonic()
        self._tell(answer["gpus"])
        return list(answer["gpus"])

    def _start(self) -> Asked:
        spec = find_spec("pynvml")
        if spec is None or spec.origin is None:
            raise OSError("pynvml is not installed")
        return Asked(_PROGRAM, str(Path(spec.origin).parent), str(IDLE), environment=self._environment)

    def _ends_soon(self) -> bool:
        return time.monotonic() - self._asked_at > _ENDS_SOON

    def _still_hangs(self) -> bool:
        """Whether the process that was given up is still there: another one would only hang beside it."""
        if self._abandoned is not None and self._abandoned.process.poll() is not None:
            self._abandoned = None
        return self._abandoned is not None

    def _fall_silent(self, why: str, *, absent: bool = False) -> list[dict[str, Any]]:
        log.log(logging.DEBUG if absent else logging.WARNING, "NVML says nothing: %s", why)
        self._end()
        self._silent_until = time.monotonic() + (ABSENT_AGAIN if absent else AGAIN)
        return []

    def _end(self) -> None:
        if self._child is not None and not self._child.end():
            self._abandoned = self._child
        self._child = None

    def _tell(self, gpus: Collection[dict[str, Any]]) -> None:
        for gpu in gpus:
            line = f"NVML does not say all that runs on GPU {gpu['pci'] or '?'}: {gpu['unknown']}"
            if gpu["unknown"] and line not in self._told:
                log.warning(line)
                self._told.add(line)


def missed(listing: Listing, found: Collection[list[Any]]) -> Iterator[list[Any]]:
    """Those who are listed and that a look did not find, as the look would have said it."""
    held: Listing = {}
    for pid, _start, _group, _name, _how, numbers in found:
        held.setdefault(pid, set()).update((major, minor) for major, minor in numbers)
    for pid, numbers in listing.items():
        left = numbers - held.get(pid, set())
        start = start_time(pid)
        if left and start is not None and not _has_ended(pid):
            yield [pid, start, payload(pid), name_of(pid), "listed", sorted(left)]


def _has_ended(pid: int, proc: Path = PROC) -> bool:
    """Whether it only waits for its parent to notice: then it has nothing any more. NVML may list it for a while."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
        threads = (proc / str(pid) / "task").stat().st_nlink - 2
    except OSError:
        return True
    return threads <= 1 and text[text.rindex(b")") + 1 :].split()[0] in {b"Z", b"X"}
