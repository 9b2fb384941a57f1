"""A process whose first thread has ended: /proc/PID/fd shows nothing, and another thread keeps the descriptor."""

import os
import threading
from collections.abc import Callable

from kit import attack, holder, keeping, libc

EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]  # the system call, which ends one thread


def hold(node: str) -> None:
    def around(body: Callable[[], None]) -> None:
        threading.Thread(target=body).start()
        libc.syscall(EXIT, 0)

    holder("holder", lambda: keeping(os.open(node, os.O_RDONLY)), around)


attack(hold)
