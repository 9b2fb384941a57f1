"""Work in a process of its own: it has a deadline, ends with the one that started it, and can break nothing else."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

MEMORY = 512 * 1024 * 1024  # bytes more than it had when it began
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_fork = multiprocessing.get_context("fork")

Task = Callable[[], str]


def run_all(tasks: Sequence[Task], deadline: float) -> list[str]:
    """Do all of these side by side, each in a child process; what each returned, in order.

    `died` for one that returned nothing, `too_slow` for one that was not done after `deadline` seconds. Only for a
    process without threads: a child has none of them, whatever they held.
    """
    until = time.monotonic() + deadline
    children = [_started(task) for task in tasks]
    results = []
    for child, end in children:
        results.append(_result(end, until))
        end.close()
        child.kill()
        child.join()
    return results


def _started(task: Task) -> tuple[ForkProcess, Connection]:
    """A child at work, and where its result will be. Its own end is closed here: the next child must not hold it."""
    end, other = _fork.Pipe(duplex=False)
    child = _fork.Process(target=_child, args=(task, other, os.getpid()), daemon=True)
    child.start()
    other.close()
    return child, end


def _result(end: Connection, until: float) -> str:
    try:
        return str(end.recv()) if end.poll(max(until - time.monotonic(), 0)) else "too_slow"
    except EOFError:
        return "died"


def _child(task: Task, end: Connection, parent: int) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it died in between
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    end.send(task())
