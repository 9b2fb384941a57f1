"""The portal as it is served: gunicorn with two processes, and clients that cost little themselves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from workers.portal import OPTIONS

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Portal:
    """A running portal: its port, and gunicorn's process."""

    port: int
    pid: int

    def workers(self) -> list[int]:
        """The ids of its web processes."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def cpu_seconds(self) -> float:
        """What its web processes have used so far."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.workers()]
        return sum(int(one[11]) + int(one[12]) for one in fields) / TICKS


@contextmanager
def portal(database_url: str, data: Path, **more: str) -> Iterator[Portal]:
    """A portal on this database, without Valkey and without rate limits."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("BERTH_", "REDIS_"))}
    own = {"DATABASE_URL": database_url, "BERTH_DATA": str(data), "BERTH_RATE_LIMITS": "0", "BERTH_TZ": "UTC"}
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        number = listening.fileno()
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{number}", *OPTIONS.split()]
        environment = {**inherited, **own, "SECRET_KEY": "only for tests", **more}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=(number,))
        try:
            served = Portal(int(listening.getsockname()[1]), server.pid)
            _wait_for_both(served)
            yield served
        finally:
            server.terminate()
            server.wait(15)


def _wait_for_both(served: Portal) -> None:
    """Until two processes are there and have imported the application: each has taken time and one answers."""
    deadline = time.monotonic() + 120
    while len(served.workers()) < 2 or served.cpu_seconds() < 0.5:
        assert time.monotonic() < deadline, "the portal does not start"
        time.sleep(0.05)
    with Client(served.port) as client:
        assert client.get("/healthz")[0] in {200, 503}


class Client:
    """One connection that stays open. It speaks just enough HTTP for our own server, and uses next to no CPU."""

    def __init__(self, port: int, token: str = "", cookie: str = "") -> None:
        self.port = port
        self.head = f"Host: 127.0.0.1\r\nAccept: */*\r\nAuthorization: Bearer {token}\r\nCookie: {cookie}\r\n"
        self.connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def get(self, path: str) -> tuple[int, bytes]:
        return self._send(f"GET {path} HTTP/1.1\r\n{self.head}\r\n".encode())

    def post(self, path: str, value: Any) -> tuple[int, Any]:
        """POST JSON; the status and the JSON that comes back."""
        body = json.dumps(value).encode()
        head = (
            f"POST {path} HTTP/1.1\r\n{self.head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        status, answer = self._send(head.encode() + body)
        return status, json.loads(answer)

    def _send(self, request: bytes) -> tuple[int, bytes]:
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        while len(body) < int(headers["content-length"]):
            body += self._more()
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), body

    def _more(self) -> bytes:
        assert self.connection is not None
        got = self.connection.recv(1 << 18)
        if not got:
            raise ConnectionError("the portal closed the connection")
        return got
