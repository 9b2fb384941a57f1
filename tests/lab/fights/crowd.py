"""More of everything than anybody looks through in a second: groups, threads, descriptors, descriptors in flight."""

import os
import socket
import threading
from collections.abc import Callable
from itertools import pairwise

from fight import done, hold, keeper, leave, wait
from groups import hierarchies
from kit import CLONE_FILES, WORK, unshare

GROUPS, THREADS, TABLES, DESCRIPTORS, SOCKETS = 2500, 600, 60, 19_000, 500


def threads(ready: Callable[[], None]) -> None:
    kept = hold()

    def apart() -> None:
        unshare(CLONE_FILES)
        threading.Event().wait()

    for _ in range(THREADS):
        threading.Thread(target=apart, daemon=True).start()
    wait(ready)
    os.close(kept)


def descriptors(ready: Callable[[], None]) -> None:
    kept = hold()
    for _ in range(DESCRIPTORS):
        os.dup(kept)
    for _ in range(TABLES):
        if not os.fork():
            wait(lambda: None)
    wait(ready)


def in_flight(ready: Callable[[], None]) -> None:
    kept, pairs = hold(), [socket.socketpair() for _ in range(SOCKETS)]
    for (here, _), (_, inner) in pairwise(pairs):
        socket.send_fds(here, [b"x"], [inner.fileno()] * 8 + [kept])
    os.close(kept)
    wait(ready)


WORK.mkdir(parents=True)
for place in hierarchies().values():
    for number in range(GROUPS // 3):
        (place / f"g{number}").mkdir()
        (place / f"g{number}" / "a").mkdir()
        (place / f"g{number}" / "b").mkdir()
for body in (threads, descriptors, in_flight):
    leave(body)
keeper()
done()
