"""The agent's terminals: who may connect, with which ticket, and for how long.

Backups are handed out here too, and what monitors read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from http import HTTPStatus
from typing import Any

from flask import Flask
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy.exc import SQLAlchemyError
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from app.drivers.base import DriverError, LxdDriver
from app.drivers.terminal import LARGEST
from app.errors import NotFound
from app.extensions import db, transaction
from app.services import inventory, terminals
from app.services import metrics as gauges
from app.services.terminals import Opening
from workers import metrics, whose
from workers.downloads import Downloads
from workers.terminal_session import Session, bye, message, size

log = logging.getLogger(__name__)
quiet = logging.getLogger("websockets.server")
quiet.setLevel(logging.CRITICAL)  # it tells of every stranger who knocks

FIRST_WORD = 10.0  # seconds for the ticket to come
CONFIRM = 5.0  # seconds between two looks whether a terminal may stay open
IDLE = 1800.0  # seconds without a key typed
AT_ONCE = 50  # connections; more are turned away


class Terminals:
    """Serves one host's terminals."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver, listen: tuple[str, int], url: str) -> None:
        self.app, self.host_name, self.driver = app, host_name, driver
        self.readings: Callable[[], Iterable[gauges.Reading]] = tuple  # what its GPUs are at, where that is read
        self._listen, self._url = listen, url
        self._open: set[Session] = set()
        self._count = threading.BoundedSemaphore(AT_ONCE)
        self._server: Server | None = None
        self._downloads = Downloads(self._asked, host_name, app.extensions["berth"].data_dir)

    def run(self, stop: threading.Event, confirm: float = CONFIRM) -> None:
        """Serve until `stop`. An address that cannot be had is tried again: nothing else waits for it."""
        told = False
        while not stop.is_set():
            try:
                self._server = serve(
                    self._serve, *self._listen, process_request=self._admit, compression=None, max_size=LARGEST,
                    max_queue=4, open_timeout=FIRST_WORD, ping_interval=20, server_header=None, logger=quiet,
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
        self._downloads.close()

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
        """Nobody but a page of the portal's own, to which a ticket was given just now, may even connect; and who has a
        ticket for a backup."""
        if key := self._downloads.wanted(request.path):
            return self._downloads.serve(connection, key)
        if request.path == "/metrics":
            return self._metrics(connection, request)
        origins = request.headers.get_all("Origin")
        origin = origins[0] if len(origins) == 1 else ""
        if origin and self._asked(lambda: terminals.is_awaited(inventory.host(self.host_name), origin)):
            return None
        return connection.respond(HTTPStatus.FORBIDDEN, "Open a terminal from its page in Berth.\n")

    def _metrics(self, connection: ServerConnection, request: Request) -> Response:
        """What this process counts, and what the database knows of this host; without one, what was read here."""
        sent = request.headers.get_all("Authorization")
        names = gauges.names_for(self.app.extensions["berth"].metrics_token, sent[0] if sent else "")
        if names is None:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "This is not the token in BERTH_METRICS_TOKEN.\n")

        def known() -> str:
            return gauges.text(gauges.families(names=names, host=inventory.host(self.host_name)))

        found = self._asked(known) or gauges.text(gauges.measured(self.host_name, self.readings()))
        answer = connection.respond(HTTPStatus.OK, metrics.text() + found)
        del answer.headers["Content-Type"]
        answer.headers["Content-Type"] = CONTENT_TYPE_PLAIN_0_0_4
        return answer

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
            hello = message(connection.recv(timeout=FIRST_WORD))
            window = size(hello)
        except (ValueError, TimeoutError):
            bye(connection, "refused")
            return
        assert connection.request is not None
        origin, key = connection.request.headers["Origin"], str(hello.get("ticket", ""))
        opening: Opening | None = self._asked(lambda: terminals.redeem(inventory.host(self.host_name), key, origin))
        if opening is None:
            bye(connection, "refused")
            return
        began, why = time.monotonic(), "failed"
        try:
            whose.refuse_others(self.driver, opening.owner, opening.instance)
            with closing(self.driver.terminal(opening.instance, *window)) as pty:
                session = Session(connection, pty, opening)
                self._open.add(session)
                try:
                    why = session.run()
                finally:
                    self._open.discard(session)
        except ConnectionClosed:  # while its shell was being opened
            why = "left"
        except DriverError as error:
            log.info("%s: %s", self.host_name, error)
            bye(connection, "failed")
        finally:
            self._asked(lambda: terminals.close(opening, why, time.monotonic() - began))
