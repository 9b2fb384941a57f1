"""The threads of a process, and their tables of descriptors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from app.drivers.holders.syscalls import call

_KCMP_FILES = 2


def single(pid: int) -> bool:
    """Whether the process has one thread: the commonest case, and the cheapest. Raises OSError."""
    return os.stat(f"/proc/{pid}/task").st_nlink == 3


def other_tables(pid: int, check: Callable[[], None]) -> Iterator[str]:
    """The tables of its threads that are not its first one's: a thread may have one of its own.

    `check` is called before each thread; it may raise."""
    try:
        threads = [] if single(pid) else [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return
    for thread in threads:
        check()
        if thread == pid:
            continue
        try:
            if call("kcmp", pid, thread, _KCMP_FILES, 0, 0) == 0:
                continue
        except OSError:
            pass  # the first one has ended, or the kernel cannot compare: look at each
        yield f"/proc/{pid}/task/{thread}/fd"
