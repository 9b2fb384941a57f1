"""Hands out backups over HTTP, where the agent's terminals are served: each to whoever has a ticket for it, once."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Response
from websockets.sync.server import ServerConnection

from app.services import backups, inventory
from app.services.backups import Fetch

log = logging.getLogger(__name__)

AT_ONCE = 8  # downloads of one host
PIECE = 1 << 20  # bytes
STALLED = 60  # seconds in which nothing was taken
CONFIRM = 10.0  # seconds between two looks whether a download may go on
DOUBT = 60.0  # seconds for which it goes on while nobody can be asked
TOO_LATE = (
    "This link was used already, or is too old. Go back to the machine's page and press Download again.\n"
    "这个链接已经用过，或者过期了。请回到机器的页面，再点一次“下载”。\n"
)
BUSY = "Too many downloads at once. Try again in a while.\n同时下载的人太多，请稍后再试。\n"


class Downloads:
    """The backups of one host. `ask` gives the database's answer, or None where there is none."""

    def __init__(self, ask: Callable[[Callable[[], Any]], Any], host_name: str, data_dir: Path) -> None:
        self._ask, self._host_name, self._data_dir = ask, host_name, data_dir
        self._count = threading.BoundedSemaphore(AT_ONCE)
        self._under_way: set[socket.socket] = set()

    def wanted(self, path: str) -> str:
        """The ticket in a request's path; "" for a request that is about something else."""
        return parse_qs(urlsplit(path).query).get("backup", [""])[0]

    def serve(self, connection: ServerConnection, key: str) -> Response:
        """Answer the request for a file: by the file itself, or by the response that is returned."""
        if not self._count.acquire(blocking=False):
            return _refusal(connection, HTTPStatus.SERVICE_UNAVAILABLE, BUSY)
        try:
            fetch: Fetch | None = self._ask(lambda: backups.redeem(inventory.host(self._host_name), key))
            if fetch is None:
                return _refusal(connection, HTTPStatus.FORBIDDEN, TOO_LATE)
            self._hand_out(connection.socket, fetch)
        finally:
            self._count.release()
        return connection.respond(HTTPStatus.OK, "")  # to nobody: what was to be said is said, and the way is closed

    def close(self) -> None:
        """End those under way."""
        for line in list(self._under_way):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _hand_out(self, line: socket.socket, fetch: Fetch) -> None:
        why, sent = "failed", 0
        self._under_way.add(line)
        try:
            with backups.file_of(self._data_dir, self._host_name, fetch.backup).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                # a timeout of the socket's own would also end who is silent for long, as a browser is meanwhile
                line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", STALLED, 0))
                line.sendall(_head(fetch.name, size))
                for sent in self._pieces(line, file.fileno(), size, fetch):  # noqa: B007 - told afterwards
                    pass
                why = "done" if sent == size else "revoked"
        except OSError as error:
            log.info("%s: the download of %s ended: %s", self._host_name, fetch.instance, error)
        finally:
            self._under_way.discard(line)
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            self._ask(lambda: backups.close(fetch, sent, why))

    def _pieces(self, line: socket.socket, file: int, size: int, fetch: Fetch) -> Any:
        """Send it, until the end or until the right to it is lost; yields how many bytes are sent."""
        sent, known, asked = 0, time.monotonic(), time.monotonic()
        while sent < size:
            now = time.monotonic()
            if now - asked > CONFIRM:
                asked, right = now, self._ask(lambda: backups.may_go_on(fetch.id))
                known = now if right else known
                if right is False or now - known > DOUBT:
                    return
            taken = os.sendfile(line.fileno(), file, sent, min(PIECE, size - sent))
            if not taken:
                return
            sent += taken
            yield sent


def _head(name: str, size: int) -> bytes:
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: application/gzip",
        f"Content-Length: {size}",
        f'Content-Disposition: attachment; filename="{name}"',
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "X-Accel-Buffering: no",  # nginx would first take in all of it
        "Connection: close",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def _refusal(connection: ServerConnection, status: HTTPStatus, text: str) -> Response:
    answer = connection.respond(status, text)
    answer.headers["Cache-Control"] = "no-store"
    return answer
