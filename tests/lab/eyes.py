"""Looks every few milliseconds which GPUs containers have: the device nodes in their own /dev, as the host sees them.

A program of its own, so that nothing it watches can hold it up. Arguments: one JSON object, name: process id of the
container's init. Writes a line of JSON per change, `[moment, {name: [minor, …]}, shared]`; `shared` are the minors
that two had at one moment. A line of input, `[name, minor, whether it has it, process id]`, sets a trap: the moment
that is seen, the process is killed. Ends with its input, and says how many looks it took and how far apart they were.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import time
from contextlib import suppress

PERIOD = 0.005  # seconds between two looks
NVIDIA, CONTROL = 195, 255

Found = dict[str, list[int]]


def look(folders: dict[str, str]) -> Found:
    found: Found = {}
    for name, folder in folders.items():
        found[name] = []
        with suppress(OSError):  # it has stopped
            for entry in os.listdir(folder):  # noqa: PTH208 - the cheapest look there is
                if entry.startswith("nvidia"):
                    node = os.lstat(f"{folder}/{entry}")
                    if stat.S_ISCHR(node.st_mode) and os.major(node.st_rdev) == NVIDIA:
                        found[name].append(os.minor(node.st_rdev))
        found[name] = sorted(set(found[name]) - {CONTROL})
    return found


def shared(found: Found) -> set[int]:
    every = [minor for minors in found.values() for minor in minors]
    return {minor for minor in every if every.count(minor) > 1}


def main() -> None:
    folders = {name: f"/proc/{pid}/root/dev" for name, pid in json.loads(sys.argv[1]).items()}
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    last, known, gaps, trap = time.time(), None, [], None
    while True:
        if select.select([sys.stdin], [], [], PERIOD)[0]:
            if not (line := sys.stdin.readline()):
                break
            trap = json.loads(line)
        found = look(folders)
        if trap and (trap[1] in found[trap[0]]) == trap[2]:
            os.kill(trap[3], signal.SIGKILL)
            trap = None
        both = shared(found)
        if both:  # one look takes a while, in which a GPU may change hands: only what is so twice was so in between
            found = look(folders)
            both &= shared(found)
        at = time.time()
        gaps.append(at - last)
        last = at
        if found != known or both:
            known = found
            print(json.dumps([at, found, sorted(both)]), flush=True)
    gaps.sort()
    print(json.dumps({"looks": len(gaps), "p99": gaps[len(gaps) * 99 // 100], "max": gaps[-1]}), flush=True)


if __name__ == "__main__":
    main()
