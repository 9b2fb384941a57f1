"""Processes that have not run since they were looked at: what they held then, they hold still.

Only a process itself changes its table of descriptors, or one that shares it and runs, and is looked at. One that
changed somebody's table and ended before the next look is missed until it is the turn of the one with the table; a
thorough look asks nobody here. The kernel counts how long and how often each process has run; to read that from a file
that is kept open costs a twentieth of a look.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from app.drivers.holders import threads

_MOST = 8000  # processes that are remembered: each takes a descriptor
_UNCOUNTED = b"0 0 0"  # of a kernel that does not count, or of a process that has yet to run

Ways = dict[str, set[int]]
"""How a process holds which devices."""


@dataclass
class Known:
    """A process: the file that counts its runs, what it said before the last look, and what that look found."""

    handle: int
    count: bytes
    ways: Ways | None = None


class Idle:
    """Remembers, from look to look, for one set of devices."""

    def __init__(self) -> None:
        self._known: dict[int, Known] = {}
        self._wanted: frozenset[int] = frozenset()

    def begin(self, wanted: Collection[int], pids: Collection[int]) -> None:
        """A look for these devices, over these processes. What was found of other devices is of no use to it."""
        same = self._wanted == frozenset(wanted)
        self._wanted = frozenset(wanted)
        self._forget(self._known.keys() - set(pids) if same else list(self._known))

    def findings(self, pid: int) -> Ways | None:
        """What the process was seen to hold, if it has not run since; None: look."""
        known = self._known.get(pid)
        if known is None or known.ways is None:
            return None
        return known.ways if _read(known.handle) == known.count else None

    def before(self, pid: int) -> Known | None:
        """To be called before a look at the process: whatever it does during the look counts as after it."""
        known = self._known.get(pid)
        if known is None:
            if len(self._known) >= _MOST:
                return None
            with suppress(OSError):
                known = self._known[pid] = Known(os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC), b"")
        if known is None:
            return None
        known.count, known.ways = _read(known.handle), None
        if known.count.startswith(_UNCOUNTED) or not known.count:
            self._forget([pid])
            return None
        return known

    def after(self, pid: int, known: Known | None, ways: Ways) -> None:
        """What the look found. Of a process with more threads than one nothing is kept: each would have to be asked."""
        if known is not None:
            with suppress(OSError):
                known.ways = dict(ways) if threads.single(pid) else None

    def _forget(self, pids: Collection[int]) -> None:
        """Let go of these."""
        for pid in pids:
            if known := self._known.pop(pid, None):
                os.close(known.handle)


def _read(handle: int) -> bytes:
    """What the file says; nothing where its process is gone, whoever has its number now."""
    try:
        return os.pread(handle, 64, 0)
    except OSError:
        return b""
