"""What other programs take of the cores meanwhile: figures from a machine that is busy with other things say so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def watch() -> Callable[[], float]:
    """Begin to watch; called later, it says how many cores others, or the machine below this one, took since."""
    began, before = time.monotonic(), _others()
    return lambda: max(0.0, _others() - before) / (time.monotonic() - began)


def _others() -> float:
    """CPU seconds of our cores that were not ours; what has ended by now of our own counts among them."""
    every = psutil.cpu_times(percpu=True)
    mine = [every[number] for number in os.sched_getaffinity(0)]
    return sum(sum(core) - core.idle - core.iowait - core.guest - core.guest_nice for core in mine) - _ours()


def _ours() -> float:
    seconds = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds
