"""Looks many times a second which processes in which containers have a GPU's device open or mapped.

A program of its own, apart from Berth's scan and from whatever it watches. It looks through the containers' cgroups,
so that a look takes a moment. Arguments: the machines' names as a regular expression, and one JSON object,
"major:minor" of a device: minor of its GPU. A line of JSON per change, and now and then, `[began before, ended,
{name: {minor: [pid, …]}}]`: when the look before began and this one ended. Ends with its input.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

PERIOD = 0.05  # seconds between two looks
TOLD = 0.5  # seconds after which it is said that all is as it was
TREES = [Path("/sys/fs/cgroup/devices"), Path("/sys/fs/cgroup")]

Found = dict[str, dict[int, list[int]]]


def processes(names: re.Pattern[str]) -> dict[str, list[int]]:
    """By machine, what runs in it. LXC adds a number to a group's name where an older one is still there."""
    found: dict[str, list[int]] = {}
    tree = next(tree for tree in TREES if tree.is_dir())
    for group in tree.glob("lxc.payload.*"):
        match = names.match(group.name.removeprefix("lxc.payload."))
        with suppress(OSError):
            if match:
                found.setdefault(match[0], []).extend(map(int, (group / "cgroup.procs").read_text().split()))
    return found


def held(pid: int, numbers: dict[tuple[int, int], int]) -> set[int]:
    """The GPUs that a process holds."""
    found = set()
    for folder in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208 - the cheapest look there is
                with suppress(OSError):
                    seen = os.stat(f"{folder}/{name}")  # noqa: PTH116
                    if stat.S_ISCHR(seen.st_mode):
                        found.add(numbers.get((os.major(seen.st_rdev), os.minor(seen.st_rdev)), -1))
    return found - {-1}


def look(names: re.Pattern[str], numbers: dict[tuple[int, int], int]) -> Found:
    found: Found = {}
    for name, pids in processes(names).items():
        for pid in pids:
            for minor in held(pid, numbers):
                found.setdefault(name, {}).setdefault(minor, []).append(pid)
    return found


def main() -> None:
    names = re.compile(sys.argv[1])
    numbers = {}
    for text, minor in json.loads(sys.argv[2]).items():
        major, _, number = text.partition(":")
        numbers[int(major), int(number)] = minor
    before, told, known = time.time(), 0.0, None
    while not select.select([sys.stdin], [], [], PERIOD)[0]:
        began = time.time()
        found = look(names, numbers)
        if found != known or began - told > TOLD:
            print(json.dumps([before, time.time(), found]), flush=True)
            known, told = found, began
        before = began


if __name__ == "__main__":
    main()
