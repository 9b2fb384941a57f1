"""A process that asks NVML for us (`app.drivers.nvml`): kept for the next questions, given up when it hangs.

Where NVML is absent, hangs or says nothing, there is no answer for a while, and nothing is raised.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.drivers.asked import Asked, program

log = logging.getLogger(__name__)

READY_WITHIN = 4.0  # seconds for NVML to start, which takes long where no daemon keeps the driver awake
AGAIN = 60.0  # seconds before NVML is asked again after it did not answer
ABSENT_AGAIN = 300.0  # likewise where there is none
IDLE = 20.0  # seconds without a question after which that process ends: it keeps the GPUs open
_ENDS_SOON = 15.0  # seconds without one after which it is not relied on any more
_PROGRAM = "import sys; sys.path.append(sys.argv[2]); " + program("app.drivers.nvml")


class NvmlAsked:
    """Such a process, for one thread at a time. `why`: why NVML says nothing, "" if it does."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._environment = kept if environment is None else environment
        self._child: Asked | None = None
        self._abandoned: Asked | None = None
        self._asked_at = 0.0
        self._silent_until = 0.0
        self.why = ""

    @property
    def own(self) -> frozenset[int]:
        """The processes of ours that have the GPUs open in order to ask."""
        return frozenset(child.process.pid for child in (self._child, self._abandoned) if child is not None)

    def _question(self, request: dict[str, Any], patience: float, wakes: float = 0.0) -> dict[str, Any] | None:
        """The answer to it; None while NVML says nothing. A process that has to be started is given longer, and `wakes`
        seconds beyond that for the GPUs that it then opens."""
        if time.monotonic() < self._silent_until or self._still_hangs():
            return None
        try:
            if self._child is None or self._ends_soon():
                self._end()
                if self._still_hangs():
                    return None
                self._child, patience = self._start(), max(patience, READY_WITHIN + wakes)
            answer = self._child.ask(request, patience)
        except (OSError, ValueError) as error:
            answer = {"silent": str(error), "absent": False}
        if answer is None:
            answer = {"silent": "no answer, or not in time", "absent": False}
        if "silent" in answer:
            self._fall_silent(answer["silent"], absent=answer["absent"])
            return None
        self._asked_at, self.why = time.monotonic(), ""
        return answer

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

    def _fall_silent(self, why: str, *, absent: bool = False) -> None:
        quiet = absent or why == self.why  # said once
        log.log(logging.DEBUG if quiet else logging.WARNING, "NVML says nothing: %s", why)
        self._end()
        self.why = why
        self._silent_until = time.monotonic() + (ABSENT_AGAIN if absent else AGAIN)

    def _end(self) -> None:
        if self._child is not None and not self._child.end():
            self._abandoned = self._child
        self._child = None
