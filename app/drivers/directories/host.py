"""Asks the looking process about directories, and gives it up when a file system makes it hang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from app.drivers.base import DriverError, TryAgain
from app.drivers.shares import BAD, Found, Wish

LOOKER = Path(__file__).with_name("looker.py")
PATIENCE = 10.0  # seconds for one look at all of them
ABANDONED_AT_MOST = 3  # processes that hang and cannot be killed; more, and nothing is looked at any more
WHAT = "Look at the shared directories"


class HostDirectories:
    """The file systems of this machine. `lxd_dir`: LXD's own directory, which is never shared."""

    def __init__(self, lxd_dir: str, patience: float = PATIENCE) -> None:
        self._lxd_dir, self._patience = lxd_dir, patience
        self._abandoned: list[subprocess.Popen[bytes]] = []

    def look(self, wishes: Sequence[Wish]) -> list[tuple[Found, ...]]:
        """What is to be said of each."""
        self._abandoned = [child for child in self._abandoned if child.poll() is None]
        if len(self._abandoned) >= ABANDONED_AT_MOST:
            raise TryAgain(WHAT, "earlier looks still hang", "Find the file system that does not answer: mount, dmesg.")
        asked = {"lxd_dir": self._lxd_dir, "wishes": [asdict(wish) for wish in wishes]}
        child = subprocess.Popen(  # noqa: S603 - our own
            [sys.executable, "-I", "-S", str(LOOKER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            answer, trouble = child.communicate(json.dumps(asked).encode(), self._patience)
        except subprocess.TimeoutExpired:
            child.kill()  # and not waited for: what hangs in the kernel may never end
            self._abandoned.append(child)
            todo = "Find the file system that does not answer: mount, dmesg."
            raise TryAgain(WHAT, f"no answer in {self._patience:.0f} s", todo) from None
        if child.returncode:
            raise DriverError(WHAT, trouble.decode(errors="replace")[-300:], "See the agent's log.")
        return [tuple(Found(*item) for item in found) for found in json.loads(answer)]


class NoDirectories:
    """A host whose agent runs on another machine: nothing can be looked at, so nothing is shared."""

    def look(self, wishes: Sequence[Wish]) -> list[tuple[Found, ...]]:
        """The same for all."""
        return [(Found(BAD, "remote"),) for _wish in wishes]
