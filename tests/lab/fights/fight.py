"""What the fights are made of, beside the attacks' kit. They run inside the container as root: `python3 NAME.py NODE`
prepares one while the GPU is booked, and says `ready`; `python3 NAME.py NODE before` is for what comes before the GPU.

A GPU is held by a descriptor with O_PATH: it can be opened again, and no driver is needed for it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

NODE = sys.argv[1]


def hold() -> int:
    """Take the node and keep it."""
    return os.open(NODE, os.O_PATH)


def leave(body: Callable[[Callable[[], None]], None]) -> int:
    """Leave a process that does `body`, which calls what it is given once it is ready; its id."""
    ready, told = os.pipe()
    if pid := os.fork():
        os.close(told)
        said = os.read(ready, 1 << 16).decode()
        if said != "ready":
            raise SystemExit(said or "it ended")
        return pid
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for fd in (0, 1, 2):
        os.dup2(os.open("/dev/null", os.O_RDWR), fd)
    try:
        body(lambda: os.close(told) if os.write(told, b"ready") else None)
    except BaseException:  # noqa: BLE001 - told, and then it is over
        os.write(told, traceback.format_exc().encode())
    os._exit(1)


def wait(ready: Callable[[], None]) -> None:
    """Be ready, and do nothing for ever."""
    ready()
    while True:
        time.sleep(600)


def keeper() -> int:
    """Leave a process that keeps the node."""

    def body(ready: Callable[[], None]) -> None:
        kept = hold()
        wait(ready)
        os.close(kept)

    return leave(body)


def done() -> None:
    """It is prepared."""
    print("ready", flush=True)
