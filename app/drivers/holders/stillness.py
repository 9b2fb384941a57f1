"""Holds a container still while it is looked at: else a descriptor can be moved about faster than it is found.

By the version 2 tree where there is one, also beside version 1: who is frozen there can be killed, and LXD, which goes
by version 1 on such hosts, does not take the container for paused. A mark on the cgroup tells the next agent what one
that was killed in between has left frozen.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.drivers.holders.cgroups import Hierarchies

log = logging.getLogger(__name__)

MARK = "trusted.berth.still"  # the container's root can neither set nor remove it
_PATIENCE = 0.3  # seconds; a task in a system call that does not return never freezes, and runs nothing meanwhile
_POLL = 0.002


class Stillness:
    """Freezes and thaws containers by their cgroups' names. Safe to use from several threads."""

    def __init__(self, trees: Hierarchies) -> None:
        self._trees = trees
        self._held: Counter[str] = Counter()
        self._by: dict[str, Path] = {}  # the file by which it is held
        self._lock = threading.Lock()

    @contextmanager
    def of(self, groups: Collection[str]) -> Iterator[None]:
        """Hold these still. Who was frozen before stays so; a host that cannot freeze anything goes on without."""
        ours = [group for group in sorted(set(groups)) if group and self._freeze(group)]
        try:
            yield
        finally:
            for group in ours:
                self._thaw(group)

    def recover(self, group: str) -> None:
        """Thaw what an agent that was killed has left frozen."""
        with self._lock:
            if self._held[group]:
                return
            for file, _still, runs in self._files(group):
                if _marked(file.parent):
                    log.warning("%s was left frozen, thawing it", group)
                    with suppress(OSError):
                        file.write_text(runs)
                        _unmark(file.parent)

    def _freeze(self, group: str) -> bool:
        """Freeze, or join who has frozen it; whether `_thaw` is due afterwards."""
        with self._lock:
            file = self._by.get(group) or self._begin(group)
            if file is None:
                return False
            self._by[group] = file
            self._held[group] += 1
        _await(file)  # without the lock: one that does not freeze keeps nobody else waiting
        return True

    def _begin(self, group: str) -> Path | None:
        for file, still, _runs in self._files(group):
            try:
                if file.read_text().strip() not in {"0", "THAWED"}:
                    return None  # somebody else's
                os.setxattr(file.parent, MARK, b"1")
                file.write_text(still)
            except OSError as error:
                log.warning("%s cannot be held still: %s", group, error)
                continue
            return file
        return None

    def _thaw(self, group: str) -> None:
        with self._lock:
            self._held[group] -= 1
            if self._held[group]:
                return
            del self._held[group], self._by[group]
            for file, _still, runs in self._files(group):
                with suppress(OSError):  # it has ended
                    if _marked(file.parent):
                        file.write_text(runs)
                        _unmark(file.parent)

    def _files(self, group: str) -> Iterator[tuple[Path, str, str]]:
        """The files that freeze a container, best first, and what freezes and thaws."""
        if self._trees.unified and (file := self._trees.unified / group / "cgroup.freeze").exists():
            yield file, "1", "0"
        if self._trees.freezer and (file := self._trees.freezer / group / "freezer.state").exists():
            yield file, "FROZEN", "THAWED"


def _await(file: Path) -> None:
    """Until all of it stands still, for a while."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            if file.name == "freezer.state":
                if file.read_text().strip() == "FROZEN":
                    return
            elif "frozen 1" in (file.parent / "cgroup.events").read_text():
                return
        time.sleep(_POLL)


def _marked(group: Path) -> bool:
    with suppress(OSError):
        return bool(os.getxattr(group, MARK))
    return False


def _unmark(group: Path) -> None:
    with suppress(OSError):
        os.removexattr(group, MARK)
