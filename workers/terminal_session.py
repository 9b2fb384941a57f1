"""One terminal: a browser's WebSocket on one side, a shell in a machine on the other.

What a machine says goes to the browser as fast as the browser shows it, and no faster: nothing piles up here.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from app.drivers.terminal import Pty
from app.services.terminals import Opening

log = logging.getLogger(__name__)

AHEAD = 1 << 19  # bytes on their way that the browser has not shown yet; more, and the machine has to wait
GOODBYE = 2.0  # seconds to say why


class Session:
    """One browser and one shell."""

    def __init__(self, connection: ServerConnection, pty: Pty, opening: Opening) -> None:
        self.opening = opening
        self._connection, self._pty = connection, pty
        self._room = threading.Condition()
        self._ahead = 0  # bytes that the browser has not shown yet
        self._why = ""
        self._typed = time.monotonic()

    def run(self) -> str:
        """Until one side ends; why."""
        reader = threading.Thread(target=self._show, name="terminal", daemon=True)
        self._connection.send(json.dumps({"state": "open"}))
        reader.start()
        try:
            while True:
                self._take(self._connection.recv())
        except (ConnectionClosed, ValueError):
            self._finish("left")
        reader.join(5.0)
        return self._why

    def idle_for(self, seconds: float) -> bool:
        """Whether so long nothing was typed."""
        return time.monotonic() - self._typed > seconds

    def end(self, why: str) -> None:
        """End it from outside: the page is told why, and whoever does not listen is cut off."""
        self._finish(why)
        cut = threading.Timer(GOODBYE, self._cut)
        cut.daemon = True
        cut.start()

    def _cut(self) -> None:
        with suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)

    def _take(self, came: str | bytes) -> None:
        """What the browser sends: bytes are keys, text is about the window. Raises ValueError for anything else."""
        if isinstance(came, bytes):
            self._typed = time.monotonic()
            self._pty.write(came)
            return
        told = message(came)
        if isinstance(told.get("shown"), int):
            with self._room:
                self._ahead = max(0, self._ahead - told["shown"])
                self._room.notify_all()
        else:
            self._pty.resize(*size(told))

    def _show(self) -> None:
        """What the shell says, to the browser. It is not read while too much of it is on its way."""
        try:
            while piece := self._pty.read():
                with self._room:
                    self._room.wait_for(lambda: self._why or self._ahead < AHEAD)
                    if self._why:
                        break
                    self._ahead += len(piece)
                self._connection.send(piece)
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a terminal's output")
        self._finish("ended")
        bye(self._connection, self._why)

    def _finish(self, why: str) -> None:
        with self._room:
            self._why = self._why or why
            self._room.notify_all()
        self._pty.close()


def message(came: str | bytes) -> dict[str, Any]:
    """A short text of the browser's. Raises ValueError."""
    if isinstance(came, bytes) or len(came) > 1024:
        raise ValueError("not a message")
    try:
        found = json.loads(came)
    except RecursionError as error:  # brackets in brackets in brackets
        raise ValueError("not a message") from error
    if not isinstance(found, dict):
        raise ValueError("not a message")  # noqa: TRY004 - what a browser sends is a bad value, not our bad type
    return found


def size(told: dict[str, Any]) -> tuple[int, int]:
    """A window's columns and rows, within reason."""
    sizes = [told.get("columns", 80), told.get("rows", 24)]
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError("no size")
    columns, rows = (min(max(size, 2), 1000) for size in sizes)
    return columns, rows


def bye(connection: ServerConnection, why: str) -> None:
    """Tell the page why, and close."""
    with suppress(ConnectionClosed):
        connection.send(json.dumps({"state": why}))
        connection.close(1000)
