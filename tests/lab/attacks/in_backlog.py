"""A descriptor in flight on a connection that nobody has accepted yet, its sender gone."""

import os
import socket

from kit import Tries, attack, held, holder


def hold(node: str) -> None:
    def prepare() -> Tries:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\0berth-backlog")
        listener.listen()
        fd = os.open(node, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect("\0berth-backlog")
            socket.send_fds(sender, [b"x"], [fd])
        os.close(fd)
        return {"receive it": lambda: held(socket.recv_fds(listener.accept()[0], 1, 1)[1][0])}

    holder("holder", prepare)


attack(hold)
