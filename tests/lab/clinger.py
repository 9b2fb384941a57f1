"""The first process of a machine that does not want to let go of GPUs: opens whatever can be opened, and keeps it.

`python3 -I clinger.py LOGS MODE MINOR …`, standard library only. A child opens each GPU's nodes every few milliseconds,
closes them at once, and writes down what could be opened, in the form of `resident.py` (which only asks): a line
`[moment of the look before, moment, [minor, …]]` in `LOGS/NAME.START.log` for each change and after each pause, and the
latest look's moment in `LOGS/NAME.START.beat`. Mode `clinging`: another child, deaf to every signal but SIGKILL, takes
the first GPU that can be opened and keeps it open; when it is killed, the next one does so. Mode `obedient`: it waits
for datagrams to `LOGS/NAME.sock`: `hold` (a child opens all that can be opened, deaf), `path` (with O_PATH, for which
nobody asks whether it may), `grab` (the first process itself opens it).
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import socket
import stat
import struct
import sys
import time
from contextlib import suppress

PERIOD = 0.004  # seconds between two looks
LATE = 0.1  # seconds after which it is said that there was no look in between
TAKE_EVERY = 0.02  # seconds between two tries to take a GPU


def device(path: str, flags: int) -> int:
    """A descriptor of the device. Where a node is being mounted or unmounted, there is an empty file for a moment."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISCHR(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileNotFoundError(path)


def opens(path: str) -> bool:
    """Whether the kernel lets it be opened: no driver answers behind an emulated card, and then it says ENXIO."""
    try:
        os.close(device(path, os.O_RDONLY))
    except OSError as error:
        return error.errno == errno.ENXIO
    return True


def taken(minors: list[int], flags: int) -> list[int]:
    """Descriptors of all that can be opened."""
    found = []
    for path in (f"/dev/{name}{minor}" for minor in minors for name in ("dri/card", "nvidia")):
        with suppress(OSError):
            found.append(device(path, flags))
    return found


def probe(stem: str, minors: list[int]) -> None:
    log = os.open(f"{stem}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    file = os.open(f"{stem}.beat", os.O_RDWR | os.O_CREAT, 0o666)
    os.ftruncate(file, 8)
    beat = mmap.mmap(file, 8)
    last, known = time.time(), None
    while True:
        found = [minor for minor in minors if opens(f"/dev/dri/card{minor}") or opens(f"/dev/nvidia{minor}")]
        at = time.time()
        if found != known or at - last > LATE:
            os.write(log, f"{json.dumps([last, at, found])}\n".encode())
            known = found
        beat[:8] = struct.pack("d", at)
        last = at
        time.sleep(PERIOD)


def cling(minors: list[int]) -> None:
    while not any(taken([minor], os.O_RDONLY) for minor in minors):
        time.sleep(TAKE_EVERY)
    while True:
        signal.pause()


def hold(minors: list[int], flags: int) -> None:
    if taken(minors, flags):
        while True:
            signal.pause()


def child(what: object, *arguments: object) -> int:
    """A process of its own that is deaf to whatever signal can be ignored."""
    if pid := os.fork():
        return pid
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    with suppress(BaseException):
        what(*arguments)  # type: ignore[operator]
    os._exit(0)


def main() -> None:
    logs, mode, *texts = sys.argv[1:]
    minors, name = [int(text) for text in texts], os.uname().nodename
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPWR):  # LXD stops machines with these
        signal.signal(number, lambda *_: os._exit(0))
    child(probe, f"{logs}/{name}.{time.time():.3f}", minors)
    taker = child(cling, minors) if mode == "clinging" else 0
    orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with suppress(OSError):
        os.unlink(f"{logs}/{name}.sock")  # noqa: PTH108
    orders.bind(f"{logs}/{name}.sock")
    orders.settimeout(TAKE_EVERY)
    kept = []
    while True:
        with suppress(OSError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid == taker:
                    taker = child(cling, minors)
        with suppress(TimeoutError):
            match orders.recv(64).decode():
                case "hold":
                    child(hold, minors, os.O_RDONLY)
                case "path":
                    child(hold, minors, os.O_PATH)
                case "grab":
                    kept += taken(minors, os.O_RDONLY)


main()
