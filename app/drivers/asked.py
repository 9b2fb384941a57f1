"""A process that is kept beside ours and asked questions, one line of JSON each, and can be given up when it hangs.

For what may never return: a look at what a container can make hang, or a library that waits within a driver.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_POLL = 0.25  # seconds between two looks for progress
GONE = 0.2  # seconds for a killed one to be gone, unless it waits within the kernel
_PACKAGE = Path(__file__).resolve().parents[1]


def program(module: str) -> str:
    """What runs `main` of a module of ours, with `app` as a package without its own code: such a process needs none of
    the portal's libraries, and is there sooner without them."""
    return (
        "import sys, types; package = types.ModuleType('app'); package.__path__ = [sys.argv[1]]; "
        f"sys.modules['app'] = package; from {module} import main; main()"
    )


class Asked:
    """One such process. `descriptors`: those of ours that it keeps."""

    def __init__(
        self,
        code: str,
        *arguments: str,
        descriptors: Collection[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - argv is ours
            [sys.executable, "-I", "-S", "-c", code, str(_PACKAGE), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=tuple(descriptors), cwd="/",
            env=dict(environment or {}), bufsize=0, start_new_session=True,
        )  # fmt: skip

    @property
    def progress(self) -> int:
        """What changes while it is at work on an answer, where that can be seen."""
        return 0

    def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any] | None:
        """Its answer; None when it gave none, nor made any progress, for `patience` seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        parts, last, deadline = [b""], self.progress, time.monotonic() + patience
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            while not parts[-1].endswith(b"\n"):
                if select.select([stdout], [], [], min(patience, _POLL))[0]:
                    parts.append(os.read(stdout.fileno(), 1 << 20))
                    if not parts[-1]:
                        return None
                elif last != (last := self.progress):
                    deadline = time.monotonic() + patience
                elif time.monotonic() > deadline:
                    return None
        except BrokenPipeError:
            return None
        found: dict[str, Any] = json.loads(b"".join(parts))
        return found

    def end(self) -> bool:
        """Kill it; whether it is gone."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(GONE)
        except subprocess.TimeoutExpired:
            return False
        return True
