"""A process that opens the node, and a copy of it, again and again, and keeps the latest that it got."""

import os
import socket
from contextlib import suppress

from kit import Tries, answer, attack, copy, held, holder, is_device, reopen

PACE = 0.001  # seconds between two tries
COPY = "/root/again"


def hold(node: str) -> None:
    copy(node, COPY)
    kept: dict[str, int] = {}

    def loop(listener: socket.socket, tries: Tries) -> None:
        listener.settimeout(PACE)
        while True:
            for path in (node, COPY):
                with suppress(OSError):
                    fd = os.open(path, os.O_RDONLY)
                    if is_device(fd):
                        fd, kept[path] = kept.get(path, -1), fd
                    os.close(fd)
            with suppress(TimeoutError):
                answer(listener.accept()[0], tries)

    def tries() -> Tries:
        return {f"read {path}": lambda path=path: held(kept[path]) for path in (node, COPY)}

    holder("holder", tries, serving=loop)


def probe(_node: str) -> dict[str, str]:
    return {"open the copy": reopen(COPY)}


attack(hold, probe)
