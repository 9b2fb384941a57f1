"""The way to a PostgreSQL, which a test can cut: as it is when the portal's machine is away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import make_url
from sqlalchemy.engine import URL

REQUEST, ANSWER = "request", "answer"


class Crossing:
    """Listens on a port of 127.0.0.1 and passes everything on to a server, and back.

    `rob`: what is lost, REQUEST or ANSWER, of the next COMMITs of connections that have said `marked` before, and the
    connection with it: whether it was done, who asked cannot know. `robbed`: what was lost so far."""

    def __init__(self, url: URL) -> None:
        self._host, self._port = url.host or "127.0.0.1", url.port or 5432
        folder = str(url.query.get("host", ""))
        self._path = f"{folder}/.s.PGSQL.{self._port}" if folder else ""
        self.marked = b""
        self.rob: list[str] = []
        self.robbed: list[str] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening: socket.socket | None = None
        self.port = 0
        self.restore()

    def restore(self) -> None:
        """Let people cross again."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        if self._listening is not None:
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _shut(end)

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                near = listening.accept()[0]
                far = socket.socket(socket.AF_UNIX) if self._path else socket.socket()
                far.connect(self._path or (self._host, self._port))
            except OSError:
                return
            with self._lock:
                self._open |= {near, far}
            if listening.fileno() < 0:  # cut meanwhile
                _shut(near)
                _shut(far)
                continue
            taken = threading.Event()  # what it said is to be done, and not to be answered
            threading.Thread(target=self._there, args=(near, far, taken), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near, taken), daemon=True).start()

    def _there(self, near: socket.socket, far: socket.socket, taken: threading.Event) -> None:
        marked = False
        with suppress(OSError):
            while data := near.recv(1 << 16):
                marked = marked or bool(self.rob and self.marked in data)
                if marked and b"COMMIT" in data and self.rob:
                    what = self.rob.pop(0)
                    self.robbed.append(what)
                    if what == REQUEST:
                        break
                    taken.set()
                far.sendall(data)
        if not taken.is_set():
            _shut(far)

    def _back(self, far: socket.socket, near: socket.socket, taken: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(1 << 16):
                if taken.is_set() and b"COMMIT\0" in data:  # it is done
                    break
                near.sendall(data)
        _shut(near)
        _shut(far)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def crossing(database_url: str) -> Iterator[tuple[Crossing, str]]:
    """Such a way, and the database's address by it."""
    url = make_url(database_url)
    made = Crossing(url)
    query = {key: value for key, value in url.query.items() if key not in {"host", "port"}}
    try:
        by_it = url.set(host="127.0.0.1", port=made.port, query=query)
        yield made, by_it.render_as_string(hide_password=False)
    finally:
        made.cut()
