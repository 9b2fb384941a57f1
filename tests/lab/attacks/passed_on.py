"""A descriptor that goes to a process of another machine, which has no booking, over a socket in a shared directory.

`receive` in that other machine comes before `hold` in this one.
"""

import os
import socket
import sys
import threading
from pathlib import Path

from kit import Tries, attack, held, holder

PLACE = Path("/shared/passed-on")


def receive(_node: str) -> None:
    def prepare() -> Tries:
        kept: list[int] = []
        listener = socket.socket(socket.AF_UNIX)
        PLACE.unlink(missing_ok=True)
        listener.bind(str(PLACE))
        PLACE.chmod(0o777)
        listener.listen()

        def take() -> None:
            sender, _ = listener.accept()
            kept.extend(socket.recv_fds(sender, 1, 1)[1])
            sender.sendall(b"x")

        threading.Thread(target=take, daemon=True).start()
        return {"read it": lambda: held(kept[0])}

    holder("receiver", prepare)


def hold(node: str) -> None:
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(PLACE))
        socket.send_fds(sender, [b"x"], [os.open(node, os.O_RDONLY)])
        sender.recv(1)


if sys.argv[1] == "receive":
    sys.argv[1] = "hold"
    attack(receive)
else:
    attack(hold)
