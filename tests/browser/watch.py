"""Watches from the host, apart from Berth, which GPUs a container has: the device nodes in its own /dev."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.lab import Lab

PERIOD = 0.01  # seconds between two looks
LONGEST = 0.5  # seconds without a look before a change whose moment is asked for
NVIDIA = 195


class Watch:
    """While it is open, `changes` grows: moments (as `time.time`) and the minors that were there from then on."""

    def __init__(self, host: Lab, instance: str) -> None:
        state = json.loads(host.lxc("query", f"/1.0/instances/{instance}/state"))
        self.dev = Path(f"/proc/{state['pid']}/root/dev")
        self.minors = host.minors
        self.changes: list[tuple[float, frozenset[int]]] = []
        self.gaps: list[float] = []  # seconds from the look before to each of them
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def now(self) -> frozenset[int]:
        return self.changes[-1][1] if self.changes else frozenset()

    def moment(self, minors: set[int]) -> float:
        """When it came to be exactly these, last."""
        place = max(number for number, (_at, found) in enumerate(self.changes) if found == minors)
        assert self.gaps[place] < LONGEST, "the machine was too busy to measure"
        return self.changes[place][0]

    def _run(self) -> None:
        last = time.time()
        while not self._stop.wait(PERIOD):
            found = self._look()
            at = time.time()
            if not self.changes or self.changes[-1][1] != found:
                self.gaps.append(at - last)
                self.changes.append((at, found))
            last = at

    def _look(self) -> frozenset[int]:
        found = set()
        for minor in self.minors:
            with suppress(OSError):
                node = (self.dev / f"nvidia{minor}").lstat()
                if stat.S_ISCHR(node.st_mode) and node.st_rdev == os.makedev(NVIDIA, minor):
                    found.add(minor)
        return frozenset(found)


def configured(host: Lab, instance: str) -> set[str]:
    """The PCI addresses of the GPU devices that LXD has for the instance."""
    devices = json.loads(host.lxc("query", f"/1.0/instances/{instance}"))["devices"]
    return {device["pci"] for device in devices.values() if device["type"] == "gpu"}
