"""The first process of a machine in a fault run: tells at every moment which GPUs can be opened in there, and obeys.

`python3 -I resident.py LOGS MINOR …`, standard library only. Every few milliseconds it asks the kernel (access(2): it
asks cgroup and permissions just as open(2) does, and opens nothing) about each GPU's nodes and about the
copies that were mounted of them. A line `[moment of the look before, moment, [minor, …]]` in `LOGS/NAME.START.log` for
each change and for each look that came late; the latest look's moment is kept in `LOGS/NAME.START.beat`.

What is so in the tenth of a second before Python runs in a machine that starts is not seen.

Datagrams to `LOGS/NAME.sock` are orders, see `Resident.obey`. Holders are its children, with the device open as they
were told; a copy of a machine begins with a greedy one. Signals that LXD stops machines with end it, and all of them.
"""

from __future__ import annotations

import ctypes
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
HOLDERS = 4  # at most, in one machine
PATIENCE = 5.0  # seconds for which a holder waits for something to hold
MS_BIND = 1 << 12
SIGPWR = signal.SIGPWR


def is_device(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISCHR(os.stat(path).st_mode)  # noqa: PTH116 - the cheapest look there is
    return False


def opens(path: str) -> bool:
    """Whether root in here could open the node now."""
    return os.access(path, os.R_OK) and is_device(path)


class Resident:
    def __init__(self, logs: str, minors: list[int]) -> None:
        name, start = os.uname().nodename, time.time()
        self.minors = minors
        self.paths = {minor: [f"/dev/nvidia{minor}", f"/dev/dri/card{minor}"] for minor in minors}
        self.log = os.open(f"{logs}/{name}.{start:.3f}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        beat = os.open(f"{logs}/{name}.{start:.3f}.beat", os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(beat, 8)
        self.beat = mmap.mmap(beat, 8)
        self.orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):
            os.unlink(f"{logs}/{name}.sock")  # noqa: PTH108
        self.orders.bind(f"{logs}/{name}.sock")
        self.orders.setblocking(False)
        self.children: list[int] = []
        self.kept = 0
        if name.startswith("c-"):
            self.hold("greedy")

    def look_for_ever(self) -> None:
        last, known = time.time(), None
        while True:
            found = [minor for minor, paths in self.paths.items() if any(opens(path) for path in paths)]
            at = time.time()
            if found != known or at - last > LATE:
                os.write(self.log, f"{json.dumps([last, at, found])}\n".encode())
                known = found
            self.beat[:8] = struct.pack("d", at)
            last = at
            with suppress(OSError):
                self.obey(json.loads(self.orders.recv(4096)))
            time.sleep(PERIOD)

    def obey(self, order: dict[str, str]) -> None:
        """`{"do": "hold", "how": …}`, `{"do": "keep"}` (mount a copy of each node), `{"do": "drop"}` (end holders)."""
        match order["do"]:
            case "hold":
                self.hold(order["how"])
            case "keep":
                self.keep()
            case "drop":
                for pid in self.children:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.children = []

    def hold(self, how: str) -> None:
        self.children = [pid for pid in self.children if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110
        if len(self.children) >= HOLDERS:
            return
        if pid := os.fork():
            self.children.append(pid)
            return
        self.orders.close()
        os.close(self.log)
        for number in (signal.SIGTERM, SIGPWR):
            signal.signal(number, signal.SIG_IGN if how in {"deaf", "greedy"} else signal.SIG_DFL)
        with suppress(BaseException):
            self.grasp(how)
        os._exit(0)

    def grasp(self, how: str) -> None:
        """Take what can be opened, within a while, and hold it for ever; a greedy one goes on taking."""
        held: dict[str, int] = {}
        deadline = time.monotonic() + PATIENCE
        while how == "greedy" or (not held and time.monotonic() < deadline):
            for path in (f"/dev/dri/card{minor}" for minor in self.minors):
                if path not in held and opens(path):
                    with suppress(OSError):
                        held[path] = os.open(path, os.O_PATH if how == "path" else os.O_RDONLY)
            time.sleep(0.002)
        while held:
            signal.pause()

    def keep(self) -> None:
        """Mount each node that is there in another place too."""
        libc = ctypes.CDLL(None)
        for minor in self.minors:
            node = f"/dev/dri/card{minor}"
            if not is_device(node):
                continue
            self.kept += 1
            path = f"/run/kept{self.kept}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
            if libc.mount(node.encode(), path.encode(), None, MS_BIND, None) == 0:
                self.paths[minor] = [*self.paths[minor][:6], path]


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, SIGPWR):
        signal.signal(number, lambda *_: os._exit(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans in here are its own to bury
    Resident(sys.argv[1], [int(text) for text in sys.argv[2:]]).look_for_ever()


main()
