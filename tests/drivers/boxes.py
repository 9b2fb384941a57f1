"""Containers without LXD: cgroups named as LXD names them, processes in them, and devices that can be held."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from app.drivers.base import HostSeen, InstanceSeen, Number
from app.drivers.holders.cgroups import Hierarchies, hierarchies
from tests.runtime.running import wait_for

FULL, ZERO = (1, 7), (1, 5)  # /dev/full and /dev/zero stand for GPUs: they can be opened, and one mapped
NODES = {FULL: "/dev/full", ZERO: "/dev/zero"}
_numbers = itertools.count(1)
_READY = "print('ready', flush=True); sys.stdin.read()"


class Box:
    """A container of this name: its cgroups, its first process, and whatever is run in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        trees = hierarchies()
        self.groups = [
            tree / f"lxc.payload.{name}" for tree in (trees.devices, trees.freezer, trees.unified) if tree is not None
        ]
        for group in self.groups:
            group.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.init = self.run("")

    def run(self, code: str, *, name: str = "") -> int:
        """Start a Python process in there that does `code` and then waits; its id once it has done so."""
        enter = "; ".join(
            ["import os, sys", *(f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))" for group in self.groups)]
        )
        title = f"open('/proc/self/comm', 'w').write({name!r}); " if name else ""
        script = f"{enter}\n{title}\n{code}\n{_READY}"
        process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    def can_open(self, number: Number) -> bool:
        """Whether a process in there can open a device."""
        code = f"import os\ntry: os.close(os.open({NODES[number]!r}, os.O_RDONLY))\nexcept PermissionError: os._exit(9)"
        enter = "".join(f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n" for group in self.groups)
        script = f"import os\n{enter}{code}"
        return subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def alive(self, pid: int) -> bool:
        return any(process.pid == pid and process.poll() is None for process in self.processes)

    def seen(self, status: str = "running") -> InstanceSeen:
        return InstanceSeen(self.name, status, init=self.init)

    def remove(self) -> None:
        for group in self.groups:
            state = group / "freezer.state"
            if state.exists():
                for folder in (group, *[path for path in group.rglob("*") if path.is_dir()]):
                    (folder / "freezer.state").write_text("THAWED")
        for pid in self._members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait(30)
        wait_for(lambda: not self._members(), why="everybody gone")
        for group in self.groups:
            self._remove(group)

    def _members(self) -> set[int]:
        found: set[int] = set()
        for group in self.groups:
            for path in (group, *[inner for inner in group.rglob("*") if inner.is_dir()]):
                with suppress(OSError):
                    found |= {int(line) for line in (path / "cgroup.procs").read_text().split()}
        return found

    @staticmethod
    def _remove(group: Path) -> None:
        deadline = time.monotonic() + 3
        while group.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()


def unique() -> str:
    return f"box-{os.getpid()}-{next(_numbers)}"


def host(*boxes: Box, status: str = "running") -> HostSeen:
    return HostSeen({box.name: box.seen(status) for box in boxes})


def version_2_only() -> Hierarchies:
    """As on a host that has no other cgroups."""
    return Hierarchies(None, None, hierarchies().unified)
