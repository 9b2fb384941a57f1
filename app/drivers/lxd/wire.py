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

from app.drivers.base import GiveUp, HostUnreachable, TryAgain
from app.drivers.lxd.errors import AWAY, RefusedError, UnfinishedError
from app.drivers.lxd.shapes import Json, cluster_of, is_of

CALL_TIMEOUT = 10.0  # seconds for one request
# At most, for a request that asks for a change: LXD writes that down first, on a disk that may be at its limit.
BEGIN_TIMEOUT = 60.0
LATE = 5  # answers of a background operation's
LARGEST = 1 << 24  # bytes of a file that is read for its end
UPDATING = "Updating instance"  # LXD's words for a change of an instance's configuration
MEMBER_FOR = 10.0  # seconds for which a cluster member's name is kept
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")  # LXD's rule; also keeps a name from being a path
_PIECE, _STEP = 1 << 20, 1 << 26  # bytes: read at once; between two words of how far it is
_PERCENT = re.compile(r"(\d{1,3})%")


class Wire:
    """A server's REST interface. An endpoint is a socket's path or an https address; `project`: not the default one."""

    def __init__(self, endpoint: str, timeout: float = CALL_TIMEOUT, *, project: str | None = None) -> None:
        self._endpoint, self._project = endpoint, project
        self._timeout = timeout
        self._mine = threading.local()
        self._member: tuple[str, float] = "", 0.0  # and until when it counts

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

    def tail(self, *path: str, most: int, limit: float) -> bytes:
        """The last `most` bytes of a file that LXD hands out, read for at most `limit` seconds and LARGEST bytes."""
        kept, read, deadline = b"", 0, time.monotonic() + limit
        with self._call("get", path, stream=True, is_api=False, timeout=limit) as response:
            for part in response.iter_content(1 << 16):
                kept, read = (kept + part)[-most:], read + len(part)
                if read > LARGEST or time.monotonic() > deadline:
                    break
        return kept

    def member(self) -> str:
        """The server's name in its LXD cluster; "" where it is alone."""
        name, until = self._member
        if time.monotonic() > until:
            name = cluster_of(self.get()["environment"])[0]
            self._member = name, time.monotonic() + MEMBER_FOR
        return name

    def here(self) -> dict[str, str]:
        """For a request that makes an instance: a cluster would put it where it likes."""
        return {"target": member} if (member := self.member()) else {}

    def instances(self, **params: Any) -> list[Json]:
        """The instances of this server. Any member of a cluster lists those of all: each member's agent looks after its
        own, or two would fight over one."""
        return [one for one in self.get("instances", **params) or [] if self.is_here(one)]

    def client_for_events(self) -> Any:
        """A client of its own for a connection that stays open."""
        return _connect(self._endpoint, self._timeout)

    def find(self, name: str) -> tuple[Json | None, str]:
        """An instance of this server and its ETag; None if it has no such instance."""
        found, etag = self.find_anywhere(name)
        return (found, etag) if found is None or self.is_here(found) else (None, "")

    def find_anywhere(self, name: str) -> tuple[Json | None, str]:
        """As `find`, on whichever member of the cluster it is: its `location`."""
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
        params: dict[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Ask for a change and wait for its end, at most `limit` seconds. Whether LXD said that it is done (`join`)."""
        headers = {"If-Match": etag} if etag else {}
        patience = max(self._timeout, min(limit, BEGIN_TIMEOUT))
        answer = self._call(method, path, json=json, headers=headers, params=params or {}, timeout=patience).json()
        if answer.get("type") != "async":
            return True
        return self.join(answer["operation"].partition("?")[0].rpartition("/")[2], limit, progress)

    def finish(self, what: str, method: str, *path: str, limit: float, **more: Any) -> None:
        """`send`, for what leaves half of it where LXD dies: only what LXD says is done is whole. Else TryAgain."""
        if not self.send(method, *path, limit=limit, **more):
            raise TryAgain(what, AWAY)

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

    def upload(self, *path: str, body: Any, quiet: float, limit: float) -> None:
        """Send a file's content, at most `quiet` seconds without a byte taken, and wait at most `limit` seconds for
        what LXD makes of it."""
        headers = {"Content-Type": "application/octet-stream", "X-LXD-public": "0"}
        answer = self._call("post", path, data=body, headers=headers, timeout=quiet).json()
        self.join(answer["operation"].partition("?")[0].rpartition("/")[2], limit)

    def begin(self, *path: str, json: Json, patience: float = 0.0) -> Json:
        """Ask for background work and leave it at that: LXD's description of it."""
        return dict(self._call("post", path, json=json, timeout=patience or self._timeout).json()["metadata"])

    def join(self, operation: str, limit: float, progress: Callable[[int], None] | None = None) -> bool:
        """Wait `limit` seconds for a background operation, also where an answer is late; whether LXD said that it is
        done (what it has forgotten is over: a look tells how). Raises RefusedError, UnfinishedError if it goes on."""
        deadline, patience = time.monotonic() + limit, LATE
        while (left := deadline - time.monotonic()) > 0:
            pause = math.ceil(min(left, 1) if progress else left)
            try:
                path = ("operations", operation, "wait")
                answer = self._call("get", path, params={"timeout": pause}, timeout=pause + self._timeout)
            except requests.Timeout:
                if (patience := patience - 1) < 0:
                    raise
                continue
            except RefusedError as error:
                if error.code == 404:
                    return False
                raise
            state = answer.json()["metadata"]
            if state["status_code"] == 200:
                return True
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

    def changes(self, name: str) -> bool:
        """Whether LXD is at a change of an instance's configuration."""
        going = (self.get("operations", recursion=1) or {}).get("running") or []
        return any(one.get("description") == UPDATING and is_of(one, name) for one in going)

    def is_here(self, instance: Json) -> bool:
        """Whose server is alone has the location "none"."""
        location = str(instance.get("location") or "none")
        return location == "none" or location == self.member()

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
            if self.lxd_dir and not Path(self._endpoint).is_socket():
                raise HostUnreachable("Connect to LXD", f"no socket at {self._endpoint}", "Does LXD listen there?")
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
