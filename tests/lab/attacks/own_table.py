"""A thread with a table of descriptors of its own: /proc/PID/fd, its process's, shows nothing."""

import os
import threading
from collections.abc import Callable

from kit import CLONE_FILES, attack, holder, keeping, unshare


def hold(node: str) -> None:
    def around(body: Callable[[], None]) -> None:
        def apart() -> None:
            unshare(CLONE_FILES)
            body()

        thread = threading.Thread(target=apart)
        thread.start()
        thread.join()

    holder("holder", lambda: keeping(os.open(node, os.O_RDONLY)), around)


attack(hold)
