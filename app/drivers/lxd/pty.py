"""A root shell in an instance through LXD's exec with a terminal, over websockets."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from app.drivers.base import TryAgain
from app.drivers.inside import PATH
from app.drivers.lxd import streams
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire
from app.drivers.terminal import LARGEST

FRAME, FRAMES = 1 << 18, 2  # LXD's pieces are at most so long; so many are read ahead, no more
SHELL = "cd; if command -v bash > /dev/null; then exec bash -l; fi; exec sh -l"
ENVIRONMENT = {"PATH": PATH, "TERM": "xterm-256color", "LANG": "C.UTF-8"}  # and HOME, by LXD


class LxdPty:
    """A Pty over two connections to LXD: what is typed and said, and the size of the window."""

    def __init__(self, stream: ClientConnection, control: ClientConnection) -> None:
        self._stream, self._control = stream, control
        self._rest = b""

    def read(self) -> bytes:
        """The next piece; b"" at its end."""
        if not self._rest:
            try:
                piece = self._stream.recv()
            except ConnectionClosed:
                piece = ""
            self._rest = piece if isinstance(piece, bytes) else b""  # text: LXD's sign for the end
        found, self._rest = self._rest[:LARGEST], self._rest[LARGEST:]
        return found

    def write(self, data: bytes) -> None:
        """Type this."""
        with suppress(ConnectionClosed):  # the reader is told
            self._stream.send(data)

    def resize(self, columns: int, rows: int) -> None:
        """Tell the shell."""
        size = {"width": str(columns), "height": str(rows)}
        with suppress(ConnectionClosed):
            self._control.send(json.dumps({"command": "window-resize", "args": size}))

    def close(self) -> None:
        """With both connections gone, LXD ends what still runs."""
        for connection in (self._control, self._stream):
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)  # a polite close would wait behind who waits for it


def terminal(wire: Wire, name: str, columns: int, rows: int) -> LxdPty:
    """Open one in the running instance."""
    what = f"Open a terminal in {name}"
    with as_driver_errors(what):
        streams.require_running(wire, name, what)
        request = {
            "command": ["/bin/sh", "-c", SHELL],
            "environment": ENVIRONMENT,
            "interactive": True,
            "wait-for-websocket": True,
            "width": columns,
            "height": rows,
        }
        begun = wire.begin("instances", name, "exec", json=request)
        try:
            control, stream = (_connect(wire, begun, key) for key in streams.in_order(begun))
        except WebSocketException as error:
            raise TryAgain(what, f"the connection broke: {error}", "Look at LXD's log.") from error
        return LxdPty(stream, control)


def _connect(wire: Wire, begun: Json, stream: str) -> ClientConnection:
    made = streams.connect(wire, begun, stream, max_size=FRAME, max_queue=FRAMES)
    return ExitStack().enter_context(made)  # closed by LxdPty.close, not by a block
