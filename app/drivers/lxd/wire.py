"""Requests to one LXD server through pylxd, each with a deadline. The only file that imports pylxd.

pylxd's own models are not used: their updates carry no ETag, their waits have no end, and their stop is a kill.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from pylxd.client import CERTS_PATH, DEFAULT_CERTS, DEFAULT_SCHEME, Client, _UnixAdapter, get_session_for_url
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException

from app.drivers.base import GiveUp, HostUnreachable
from app.drivers.lxd.errors import RefusedError, UnfinishedError
from app.drivers.lxd.shapes import Json

CALL_TIMEOUT = 10.0  # seconds for one request
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")  # LXD's rule; also keeps a name from being a path
_PIECE, _STEP = 1 << 20, 1 << 26  # bytes: read at once; between two words of how far it is
_PERCENT = re.compile(r"(\d{1,3})%")


class Wire:
    """A server's REST interface. An endpoint is a socket's path or an https address; `project`: one of LXD's, not the
    default one."""

    def __init__(self, endpoint: str, timeout: float = CALL_TIMEOUT, *, project: str | None = None) -> None:
        self._endpoint, self._project = endpoint, project
        self._timeout = timeout
        self._mine = threading.local()

    @property
    def endpoint(self) -> str:
        """Where the server is asked."""
        return self._endpoint

    @property
    def lxd_dir(self) -> Path | None:
        """LXD's directory, where the endpoint is a socket: it lies in there."""
        return Path(self._endpoint).resolve().parent if self._endpoint.startswith("/") else None

    @property
    def socket(self) -> str:
        """LXD's socket; "" for a server that is asked over the network."""
        return self._endpoint if self._endpoint.startswith("/") else ""

    def get(self, *path: str, **params: Any) -> Any:
        """What LXD keeps there."""
        return self._call("get", path, params=params).json()["metadata"]

    def client_for_events(self) -> Any:
        """A client of its own for a connection that stays open."""
        return _connect(self._endpoint, self._timeout)

    def find(self, name: str) -> tuple[Json | None, str]:
        """An instance and its ETag; None if there is no such instance."""
        if not _NAME.fullmatch(name):
            raise GiveUp("Find the instance", f"{name!r} is no name for one", "Use letters, digits and dashes.")
        try:
            response = self._call("get", ("instances", name))
        except RefusedError as error:
            if error.code == 404:
                return None, ""
            raise
        return response.json()["metadata"], response.headers["ETag"]

    def send(
        self,
        method: str,
        *path: str,
        limit: float,
        json: Json | None = None,
        etag: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Ask for a change and wait for its end, at most `limit` seconds."""
        answer = self._call(method, path, json=json, headers={"If-Match": etag} if etag else {}).json()
        if answer.get("type") == "async":
            self.join(answer["operation"].partition("?")[0].rpartition("/")[2], limit, progress)

    def fetch(self, *path: str, into: Path, limit: float, told: Callable[[int, int], None]) -> int:
        """Write a file of LXD's, which may be large, into one that nobody else reads: its bytes. `told`: how many so
        far, of how many."""
        deadline, done = time.monotonic() + limit, 0
        with self._call("get", path, stream=True) as answer, into.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
                done += len(piece)
                if done // _STEP > (done - len(piece)) // _STEP:
                    told(done, size)
                if time.monotonic() > deadline:
                    raise RefusedError(f"timed out: only {done} of {size} bytes came within {limit:.0f} s")
        if size and done != size:
            raise RefusedError(f"only {done} of {size} bytes came")
        return done

    def begin(self, *path: str, json: Json) -> Json:
        """Ask for background work and leave it at that: LXD's description of it."""
        return dict(self._call("post", path, json=json).json()["metadata"])

    def join(self, operation: str, limit: float, progress: Callable[[int], None] | None = None) -> None:
        """Wait for a background operation. One that LXD has forgotten is over; how it ended, a look will tell."""
        deadline = time.monotonic() + limit
        while (left := deadline - time.monotonic()) > 0:
            pause = math.ceil(min(left, 1) if progress else left)
            try:
                path = ("operations", operation, "wait")
                answer = self._call("get", path, params={"timeout": pause}, timeout=pause + self._timeout)
            except RefusedError as error:
                if error.code == 404:
                    return
                raise
            state = answer.json()["metadata"]
            if state["status_code"] == 200:
                return
            if state["status_code"] >= 400:
                raise RefusedError(str(state.get("err") or state.get("status")))
            if progress and (percent := _PERCENT.search(str(state.get("metadata")))):
                progress(min(int(percent[1]), 100))
        raise UnfinishedError(operation, limit)

    def runs(self, operation: str) -> bool:
        """Whether LXD is still at a background operation."""
        try:
            return int(self.get("operations", operation)["status_code"]) < 200
        except RefusedError as error:
            if error.code == 404:
                return False
            raise

    def _call(self, method: str, path: tuple[str, ...], **arguments: Any) -> Any:
        try:
            node = self._client().api
            for part in path:
                node = node[part]
            return getattr(node, method)(**arguments)
        except LXDAPIException as error:
            raise RefusedError(str(error), error.response.status_code) from error

    def _client(self) -> Any:
        """One client per thread: a requests session is neither safe between threads nor of use after a fork."""
        if getattr(self._mine, "pid", 0) != os.getpid():
            if self.lxd_dir and not Path(self._endpoint).exists():
                raise HostUnreachable("Connect to LXD", f"no socket {self._endpoint}", "Is LXD running on this host?")
            self._mine.client = _connect(self._endpoint, self._timeout, self._project)
            self._mine.pid = os.getpid()
        return self._mine.client


def _connect(endpoint: str, timeout: float, project: str | None = None) -> Any:
    """As pylxd would, but with a session that reads no environment: REQUESTS_CA_BUNDLE would take the place of the
    server's pinned certificate, and a proxy that of the host."""
    if endpoint.startswith("/"):
        endpoint, pin = f"http+unix://{quote(endpoint, safe='')}", Path("/nonexistent")
    else:
        pin = Path(CERTS_PATH) / "servercerts" / f"{urlsplit(endpoint).hostname}.crt"
    cert = DEFAULT_CERTS if Path(DEFAULT_CERTS.cert).exists() and Path(DEFAULT_CERTS.key).exists() else None
    session = get_session_for_url(endpoint, verify=str(pin) if pin.exists() else True, cert=cert)
    session.trust_env = False
    if endpoint.startswith(DEFAULT_SCHEME):  # pylxd keeps a connection per path, 25 of them for each of our threads
        session.mount(DEFAULT_SCHEME, _UnixAdapter(pool_connections=2))
    try:
        client = Client(endpoint=endpoint, cert=cert, timeout=timeout, session=session, project=project)
    except LXDAPIException as error:
        raise RefusedError(str(error), error.response.status_code) from error
    except ClientConnectionFailed as error:
        raise requests.ConnectionError(str(error)) from error
    if not client.trusted:
        raise RefusedError("LXD answers, but does not trust this machine's client certificate", 403)
    return client
