"""A descriptor in flight inside a socket that is itself in flight."""

import os
import socket

from kit import Tries, attack, held, holder


def received(outer: socket.socket) -> str:
    inner = socket.socket(fileno=socket.recv_fds(outer, 1, 1)[1][0])
    return held(socket.recv_fds(inner, 1, 1)[1][0])


def hold(node: str) -> None:
    def prepare() -> Tries:
        here, there = socket.socketpair()
        fd = os.open(node, os.O_RDONLY)
        socket.send_fds(here, [b"x"], [fd])
        os.close(fd)
        near, far = socket.socketpair()
        socket.send_fds(near, [b"x"], [there.fileno()])
        there.close()
        kept = here, near  # a queue lives as long as either end
        return {"receive it": lambda: received(far) if kept else ""}

    holder("holder", prepare)


attack(hold)
