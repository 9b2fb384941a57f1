"""A descriptor that was sent to a socket and not received yet: no process has it."""

import os
import socket

from kit import Tries, attack, held, holder


def hold(node: str) -> None:
    def prepare() -> Tries:
        here, there = socket.socketpair()
        fd = os.open(node, os.O_RDONLY)
        socket.send_fds(here, [b"x"], [fd])
        os.close(fd)
        return {"receive it": lambda: held(socket.recv_fds(there, 1, 1)[1][0])}

    holder("holder", prepare)


attack(hold)
