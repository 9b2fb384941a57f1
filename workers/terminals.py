"""The agent's terminals: a WebSocket for each browser that holds a ticket, a shell in the machine behind it.

What a machine says goes to the browser as fast as the browser shows it, and no faster: nothing piles up here.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from app.drivers.base import DriverError, LxdDriver
from app.drivers.terminal import LARGEST, Pty
from app.errors import NotFound
from app.extensions import db, transaction
from app.services import inventory, terminals
from app.services.terminals import Opening

log = logging.getLogger(__name__)

FIRST_WORD = 10.0  # seconds for the ticket to come
CONFIRM = 5.0  # seconds between two looks whether a terminal may stay open
IDLE = 1800.0  # seconds without a key typed
AHEAD = 1 << 19  # bytes on their way that the browser has not shown yet; more, and the machine has to wait
GOODBYE = 2.0  # seconds to say why
AT_ONCE = 50  # connections; more are turned away


class Terminals:
    """Serves one host's terminals."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver, listen: tuple[str, int], url: str) -> None:
        self.app, self.host_name, self.driver = app, host_name, driver
        self._listen, self._url = listen, url
        self._open: set[Session] = set()
        self._count = threading.BoundedSemaphore(AT_ONCE)
        self._server: Server | None = None

    def run(self, stop: threading.Event, confirm: float = CONFIRM) -> None:
        """Serve until `stop`. An address that cannot be had is tried again: nothing else waits for it."""
        told = False
        while not stop.is_set():
            try:
                self._server = serve(
                    self._serve, *self._listen, process_request=self._admit, compression=None, max_size=LARGEST,
                    max_queue=4, open_timeout=FIRST_WORD, ping_interval=20, server_header=None,
                )  # fmt: skip
            except OSError as error:
                log.log(logging.DEBUG if told else logging.WARNING, "no terminals on %s: %s", self._listen, error)
                told = True
                stop.wait(10.0)
                continue
            threading.Thread(target=self._server.serve_forever, name="terminals", daemon=True).start()
            self._look_after(stop, confirm)
            self._server.shutdown()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._server is not None
        host, port = self._server.socket.getsockname()[:2]
        return host, port

    def _look_after(self, stop: threading.Event, confirm: float) -> None:
        """Tell the portal where we are, and end what may not stay open. Who cannot be asked about is ended too."""
        written = False
        while not stop.wait(confirm if written else 0.5):
            for session in list(self._open):
                if not session.idle_for(IDLE) and self._asked(lambda one=session: terminals.may_stay(one.opening.id)):  # type: ignore[misc]
                    continue
                session.end("idle" if session.idle_for(IDLE) else "revoked")
            written = written or bool(self._asked(self._write_address))
        for session in list(self._open):
            session.end("agent stopped")

    def _write_address(self) -> bool:
        host, port = self.address
        address = f"[{host}]" if ":" in host else host
        terminals.serve_at(inventory.host(self.host_name), self._url or f"ws://{address}:{port}")
        return True

    def _asked(self, question: Callable[[], Any]) -> Any:
        """The database's answer; None where there is none."""
        try:
            with self.app.app_context():
                try:
                    with transaction():
                        return question()
                finally:
                    db.session.remove()
        except (SQLAlchemyError, NotFound) as error:
            log.debug("terminals of %s: %s", self.host_name, error)
            return None

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Nobody but a page of the portal's own, to which a ticket was given just now, may even connect."""
        origins = request.headers.get_all("Origin")
        origin = origins[0] if len(origins) == 1 else ""
        if origin and self._asked(lambda: terminals.is_awaited(inventory.host(self.host_name), origin)):
            return None
        return connection.respond(HTTPStatus.FORBIDDEN, "Open a terminal from its page in Berth.\n")

    def _serve(self, connection: ServerConnection) -> None:
        if not self._count.acquire(blocking=False):
            connection.close(1013, "too many")
            return
        try:
            self._session(connection)
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a terminal failed")
        finally:
            self._count.release()

    def _session(self, connection: ServerConnection) -> None:
        """Ticket, shell, and all that is typed and said, until one side ends."""
        try:
            hello = _message(connection.recv(timeout=FIRST_WORD))
            size = _size(hello)
        except (ValueError, TimeoutError):
            _bye(connection, "refused")
            return
        assert connection.request is not None
        origin, key = connection.request.headers["Origin"], str(hello.get("ticket", ""))
        opening: Opening | None = self._asked(lambda: terminals.redeem(inventory.host(self.host_name), key, origin))
        if opening is None:
            _bye(connection, "refused")
            return
        began, why = time.monotonic(), "failed"
        try:
            pty = self.driver.terminal(opening.instance, *size)
            session = Session(connection, pty, opening)
            self._open.add(session)
            try:
                why = session.run()
            finally:
                self._open.discard(session)
        except DriverError as error:
            log.info("%s: %s", self.host_name, error)
            _bye(connection, "failed")
        finally:
            self._asked(lambda: terminals.close(opening, why, time.monotonic() - began))


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

    def _take(self, message: str | bytes) -> None:
        """What the browser sends: bytes are keys, text is about the window. Raises ValueError for anything else."""
        if isinstance(message, bytes):
            self._typed = time.monotonic()
            self._pty.write(message)
            return
        told = _message(message)
        if isinstance(told.get("shown"), int):
            with self._room:
                self._ahead = max(0, self._ahead - told["shown"])
                self._room.notify_all()
        else:
            self._pty.resize(*_size(told))

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
        _bye(self._connection, self._why)

    def _finish(self, why: str) -> None:
        with self._room:
            self._why = self._why or why
            self._room.notify_all()
        self._pty.close()


def _message(message: str | bytes) -> dict[str, Any]:
    """A short text of the browser's. Raises ValueError."""
    if isinstance(message, bytes) or len(message) > 1024:
        raise ValueError("not a message")
    found = json.loads(message)
    if not isinstance(found, dict):
        raise ValueError("not a message")  # noqa: TRY004 - what a browser sends is a bad value, not our bad type
    return found


def _size(told: dict[str, Any]) -> tuple[int, int]:
    """A window's columns and rows, within reason."""
    sizes = [told.get("columns", 80), told.get("rows", 24)]
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError("no size")
    columns, rows = (min(max(size, 2), 1000) for size in sizes)
    return columns, rows


def _bye(connection: ServerConnection, why: str) -> None:
    """Tell the page why, and close."""
    with suppress(ConnectionClosed):
        connection.send(json.dumps({"state": why}))
        connection.close(1000)
