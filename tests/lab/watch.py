"""What was seen from the host, apart from Berth: which GPUs each of several containers had, and when."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.lab import Lab

Have = dict[str, frozenset[int]]
"""By instance, the minors of the GPUs it has."""


@dataclass(frozen=True)
class Sight:
    """From `at` on (as `time.time`) it was so. `shared`: minors that two instances had at one moment."""

    at: float
    have: Have
    shared: frozenset[int] = frozenset()


class Watch:
    """While it is open, `sights` grows; `pace` says afterwards how often it looked."""

    def __init__(self, *instances: tuple[Lab, str]) -> None:
        self.sights: list[Sight] = []
        self.pace: dict[str, float] = {}
        self._changed = threading.Condition()
        self._pids = {name: _init_of(host, name) for host, name in instances}

    def __enter__(self) -> Self:
        self._eyes = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("eyes.py")), json.dumps(self._pids)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.until(lambda _have: True, 30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._eyes.stdin:
            self._eyes.stdin.close()
        self._thread.join(10)
        self._eyes.kill()
        self._eyes.wait()
        if self._eyes.stdout:
            self._eyes.stdout.close()

    def until(self, so: Callable[[Have], bool], seconds: float) -> Sight:
        """The first sight from now on (the present one counts) in which it is so."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (self.sights and so(self.sights[-1].have)):
                left = deadline - time.monotonic()
                assert self._changed.wait(max(0.0, left)) or left > 0, f"not within {seconds} s: {self.sights[-1:]}"
            return self.sights[-1]

    def kill_when(self, name: str, minor: int, *, here: bool, pid: int) -> None:
        """`kill -9` a process at the moment at which the instance is seen to have the GPU, or no longer to have it."""
        assert self._eyes.stdin is not None
        self._eyes.stdin.write(json.dumps([name, minor, here, pid]) + "\n")
        self._eyes.stdin.flush()

    def wait_past(self, moment: float, seconds: float) -> None:
        """Wait until that moment has come and nobody of whom it was not known before has a GPU any more."""
        time.sleep(max(0.0, moment - time.time()))
        held = {name for name, has in self.sights[0].have.items() if has}
        self.until(lambda have: not any(has for name, has in have.items() if name not in held), seconds)

    def came(self, name: str, minor: int, after: float) -> float:
        """When the instance first had the GPU, from a moment on."""
        return next(sight.at for sight in self.sights if sight.at >= after and minor in sight.have[name])

    def went(self, name: str, minor: int, after: float) -> float:
        """When the instance first did not have the GPU, from a moment on."""
        return next(sight.at for sight in self.sights if sight.at >= after and minor not in sight.have[name])

    def ever(self, name: str) -> set[int]:
        """Every GPU that the instance had at some moment."""
        return {minor for sight in self.sights for minor in sight.have[name]}

    @property
    def shared(self) -> list[Sight]:
        """The moments at which two instances had one GPU."""
        return [sight for sight in self.sights if sight.shared]

    def _read(self) -> None:
        assert self._eyes.stdout is not None
        for line in self._eyes.stdout:
            told = json.loads(line)
            if isinstance(told, dict):
                self.pace = told
                return
            at, have, shared = told
            with self._changed:
                self.sights.append(Sight(at, {name: frozenset(has) for name, has in have.items()}, frozenset(shared)))
                self._changed.notify_all()


def _init_of(host: Lab, name: str) -> int:
    return int(json.loads(host.lxc("query", f"/1.0/instances/{name}/state"))["pid"])
