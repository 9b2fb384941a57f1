"""Who on this machine holds a device: plain looks at procfs, so that Berth's own scan is not its own judge."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

Number = tuple[int, int]
HOST = "the host"
_CONTAINER = re.compile(r"^\d+:[^:]*:/lxc\.payload\.([^/\n]+)", re.MULTILINE)


def grips(numbers: Collection[Number], instances: Collection[str]) -> set[str]:
    """Every open descriptor and memory map of the devices in these instances and outside of all containers.

    What is in flight or with io_uring is not seen here: only the attack itself can tell.
    """
    return {
        f"{instance or HOST}: {path}"
        for process in Path("/proc").glob("[0-9]*")
        if (instance := _instance(process)) is not None and instance in {"", *instances}
        for path in _files(process)
        if _number(path) in numbers
    }


def _instance(process: Path) -> str | None:
    """The container it is in, "" for none; nothing if it has ended."""
    with suppress(OSError):
        found = _CONTAINER.search((process / "cgroup").read_text())
        return found[1] if found else ""
    return None


def _files(process: Path) -> Iterator[Path]:
    folders = [process / "map_files"]
    with suppress(OSError):  # it ends in this moment, and then it holds nothing
        folders += process.glob("task/*/fd")
    for folder in folders:
        with suppress(OSError):
            yield from folder.iterdir()


def _number(path: Path) -> Number | None:
    with suppress(OSError):
        found = os.stat(path)  # noqa: PTH116 - through the kernel's own link, whatever its text says
        if stat.S_ISCHR(found.st_mode):
            return os.major(found.st_rdev), os.minor(found.st_rdev)
    return None
