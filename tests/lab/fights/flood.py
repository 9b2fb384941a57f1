"""A holder that is called something else at every moment, and mounts and unmounts as fast as it can."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from fight import done, hold, leave
from kit import MS_BIND, mount, unmount


def body(ready: Callable[[], None]) -> None:
    kept = hold()

    def shift() -> None:
        while True:
            mount("/root", "/mnt", flags=MS_BIND)
            unmount("/mnt")

    threading.Thread(target=shift, daemon=True).start()
    ready()
    number = 0
    while kept:
        number += 1
        Path("/proc/self/comm").write_bytes(os.urandom(15).replace(b"\0", b")") if number % 2 else b") R 1 1\n(")


leave(body)
done()
