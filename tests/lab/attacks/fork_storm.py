"""A process that is another one every few milliseconds: a child inherits the descriptor, the parent ends."""

import os
import socket

from kit import Tries, answer, attack, checked, holder, keeping, libc

PACE = 0.005  # seconds of one generation; as fast as can be would only stop the machine
PR_SET_CHILD_SUBREAPER = 36


def storm(listener: socket.socket, tries: Tries) -> None:
    listener.settimeout(PACE)
    while True:
        try:
            answer(listener.accept()[0], tries)
        except TimeoutError:
            if os.fork():
                os._exit(0)


def hold(node: str) -> None:
    def prepare() -> Tries:
        checked(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        if os.fork():  # holds nothing, and buries the dead
            while True:
                os.wait()
        return keeping(os.open(node, os.O_RDONLY))

    holder("holder", prepare, serving=storm)


attack(hold)
