"""Images that LXD is brought for the time of one build: from a server, or from a file of the host.

What is brought bears a mark from the moment it is there, so that a build that was killed is cleared up by the next.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO

import requests

from app.drivers.base import GiveUp, Progress
from app.drivers.image_files import PROPERTY
from app.drivers.images import FETCHING, Origin
from app.drivers.lxd.errors import RefusedError, UnfinishedError
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import BEGIN_TIMEOUT, CALL_TIMEOUT, LATE, Wire

_LEAVING = 10.0  # seconds in which LXD should let go of what is not wanted any more
_FETCH_LIMIT = 1800.0  # seconds for an image from far away
_TAKE_LIMIT = 900.0  # seconds in which LXD has to take in what it was sent
_NOT_FETCHED = "Is the server up, and has it that image? Try again, or name another server in BERTH_IMAGE_SERVERS."
_QUIET = 60.0  # seconds without a byte taken


@contextmanager
def fetched(wire: Wire, template: int, origin: Origin, progress: Progress) -> Iterator[str]:
    """An image from a server, by itself: while LXD makes an instance nobody else's can be made, and this takes minutes.
    It is kept for the moment only, unless it was there before."""
    # An alias can be asked for with the image. With the time in it, it tells whether the image came because of us.
    alias = f"berth-fetch-{template}-{int(time.time())}"
    far = {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": origin.server, "alias": origin.alias}
    request = {"source": far, "aliases": [{"name": alias, "description": ""}]}
    try:
        _fetch(wire, request, partial(progress, FETCHING))
    except RefusedError as error:
        if error.full:
            raise
        raise GiveUp(f"Fetch {origin.alias} from {origin.server}", str(error), _NOT_FETCHED) from error
    try:
        yield str(wire.get("images", "aliases", alias)["target"])
    finally:
        remove(wire, template)


@contextmanager
def uploaded(wire: Wire, template: int, file: str, progress: Progress) -> Iterator[str]:
    """The image of an archive that was looked through; its words have the mark."""
    path = Path(file)
    with path.open("rb") as opened:
        body = _Told(opened, path.stat().st_size, progress)
        wire.upload("images", body=body, quiet=_QUIET, limit=_TAKE_LIMIT)
    try:
        yield next(image["fingerprint"] for image in _marked(wire, template))
    finally:
        remove(wire, template)


def remove(wire: Wire, template: int) -> None:
    """Take away what was brought for a template: not what the host had before, and not the template's own image."""
    fetch = re.compile(rf"berth-fetch-{template}-(\d+)")
    for image in wire.get("images", recursion=1) or []:
        aliases = {alias["name"]: fetch.fullmatch(alias["name"]) for alias in image.get("aliases") or []}
        ours = [int(match[1]) for match in aliases.values() if match]
        if ours and _came(image) >= min(ours) and all(aliases.values()):
            _delete(wire, "images", image["fingerprint"])
        else:
            for name in (name for name, match in aliases.items() if match):
                _delete(wire, "images", "aliases", name)
    for image in _marked(wire, template):
        _delete(wire, "images", image["fingerprint"])


def _fetch(wire: Wire, request: Json, told: Callable[[int], None]) -> None:
    """`told` hears every second how many per cent there are, and may raise: then it is fetched no more."""
    fetching = str(wire.begin("images", json=request, patience=BEGIN_TIMEOUT)["id"])
    try:
        _await(wire, fetching, told)
    except BaseException:
        with suppress(RefusedError, OSError):
            _leave(wire, fetching)
        raise


def _await(wire: Wire, fetching: str, told: Callable[[int], None]) -> None:
    began, late, done = time.monotonic(), 0, [0]
    while True:
        asked = time.monotonic()
        try:
            wire.join(fetching, 1.0, done.append)
        except UnfinishedError:
            late = late + 1 if time.monotonic() - asked > CALL_TIMEOUT else 0
            if late > LATE:
                raise requests.Timeout from None  # an LXD that hangs is said to
            if time.monotonic() - began > _FETCH_LIMIT:
                raise UnfinishedError(fetching, _FETCH_LIMIT) from None
            told(done[-1])
        else:
            return


def _leave(wire: Wire, fetching: str) -> None:
    """Nobody waits for it any more. LXD lets nobody end it before the server has said something: a server that never
    does has an hour, then LXD gives up by itself."""
    deadline = time.monotonic() + _LEAVING
    while wire.runs(fetching) and time.monotonic() < deadline:
        with suppress(RefusedError):
            wire.send("delete", "operations", fetching, limit=CALL_TIMEOUT)
        time.sleep(0.2)


def _marked(wire: Wire, template: int) -> list[Json]:
    """Those that were made of a file for this template. The template's own bears the mark too, and an alias."""
    found = wire.get("images", recursion=1) or []
    return [
        image
        for image in found
        if (image.get("properties") or {}).get(PROPERTY) == str(template) and not image.get("aliases")
    ]


def _came(image: Json) -> float:
    """When LXD got it, in seconds since 1970."""
    text = re.sub(r"\.\d+", "", str(image["uploaded_at"])).replace("Z", "+00:00")
    return datetime.fromisoformat(text).timestamp()


def _delete(wire: Wire, *path: str) -> None:
    try:
        wire.send("delete", *path, limit=60.0)
    except RefusedError as error:
        if error.code != 404:  # what is gone already was to be removed
            raise


class _Told:
    """A file that is sent, and says how much of it is."""

    def __init__(self, file: IO[bytes], size: int, progress: Progress) -> None:
        self._file, self.len, self._progress, self._sent, self._last = file, size, progress, 0, -1

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        text = self._file.read(count)
        self._sent += len(text)
        percent = self._sent * 100 // max(self.len, 1)
        if percent >= self._last + 5:
            self._last = percent
            self._progress(FETCHING, percent)
        return text
