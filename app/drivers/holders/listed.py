"""Which processes NVML lists on a GPU, for what the look through procfs may have missed.

A second opinion: where NVML is absent, hangs or does not say, the look stands alone, and nothing is raised. The asking
is done by a process that is kept for the next questions and given up when it hangs (`app.drivers.nvml_asked`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.drivers.base import NVIDIA_MAJOR, Number
from app.drivers.holders.cgroups import payload
from app.drivers.holders.nodes import PROC, name_of, start_time
from app.drivers.nvml_asked import NvmlAsked

log = logging.getLogger(__name__)

DRIVER = (NVIDIA_MAJOR, 255)  # /dev/nvidiactl, through which a program has its memory on all GPUs
PATIENCE = 1.0  # seconds for a question: a container may be held still meanwhile

Listing = dict[int, set[Number]]
"""By process, the GPUs that NVML lists it on."""


class Listed(NvmlAsked):
    """Asks NVML. Safe to use from several threads: one question after the other."""

    def __init__(self, patience: float = PATIENCE, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(environment)
        self._patience = patience
        self._lock = threading.Lock()
        self._told: set[str] = set()  # what is in the log already

    def ready(self) -> None:
        """Have NVML started, so that a question asked soon is answered soon."""
        with self._lock:
            if self._child is None or self._ends_soon():
                self._ask(frozenset())

    def on(self, numbers: Collection[Number]) -> Listing:
        """Who is listed on which of these GPUs; nobody where NVML says nothing."""
        minors = frozenset(minor for major, minor in numbers if major == NVIDIA_MAJOR)
        found: Listing = {}
        with self._lock:
            gpus = self._ask(minors) if minors else []
        for gpu in gpus:
            for pid in gpu["pids"]:
                found.setdefault(pid, set()).add((NVIDIA_MAJOR, gpu["minor"]))
        return found

    def close(self) -> None:
        """End the process that asks."""
        with self._lock:
            self._end()

    def _ask(self, minors: Collection[int]) -> list[dict[str, Any]]:
        answer = self._question({"minors": sorted(minors)}, self._patience)
        if answer is None:
            return []
        self._tell(answer["gpus"])
        return list(answer["gpus"])

    def _tell(self, gpus: Collection[dict[str, Any]]) -> None:
        for gpu in gpus:
            line = f"NVML does not say all that runs on GPU {gpu['pci'] or '?'}: {gpu['unknown']}"
            if gpu["unknown"] and line not in self._told:
                log.warning(line)
                self._told.add(line)


def missed(listing: Listing, found: Collection[list[Any]]) -> Iterator[list[Any]]:
    """Those who are listed and that a look did not find, and those who may have memory on a GPU without its node, as
    the look, which has to be for DRIVER and all GPUs too, would have said it.

    A program that closes and unmaps the node keeps its memory there as long as it has the driver open or mapped, and by
    that it is told from who has a dead one's number. NVML lists only those who have it open (seen on an H100), so who
    has the driver and no GPU's node at all may have memory on any of them."""
    held: Listing = {}
    for pid, _start, _group, _name, _how, numbers in found:
        held.setdefault(pid, set()).update((major, minor) for major, minor in numbers)
    told = set()
    for pid, numbers in listing.items():
        has = held.get(pid, set())
        start = start_time(pid)
        if numbers - has and start is not None and not _has_ended(pid):
            told.add(pid)
            yield [pid, start, payload(pid), name_of(pid), "kept" if DRIVER in has else "listed", sorted(numbers - has)]
    for pid, start, group, name, _how, numbers in found:
        if group and numbers and held[pid] == {DRIVER} and pid not in told:
            told.add(pid)
            yield [pid, start, group, name, "kept", []]


def _has_ended(pid: int, proc: Path = PROC) -> bool:
    """Whether it only waits for its parent to notice: then it has nothing any more. NVML may list it for a while."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
        threads = (proc / str(pid) / "task").stat().st_nlink - 2
    except OSError:
        return True
    return threads <= 1 and text[text.rindex(b")") + 1 :].split()[0] in {b"Z", b"X"}
