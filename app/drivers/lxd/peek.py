"""Which NVIDIA library an instance has, by the names of files alone: nothing in it is opened, nothing in it is run.

Its root decides what there is to see: a link, a pipe that nobody writes to, a directory of a million names. So every
question has a deadline and a size, and an instance that overran one is not asked again for a while. LXD opens what it
is asked to read: on a pipe it waits for ever, and then the instance can neither be stopped cleanly nor started. So only
what LXD has just called a link or a directory is read, and never a file.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence

import requests

from app.drivers.libraries import INSIDE
from app.drivers.lxd.errors import RefusedError
from app.drivers.lxd.wire import Wire

OWN = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")  # where a distribution has libraries
FOLDERS = (*OWN, f"{INSIDE}/lib")
_LOADED = "libnvidia-ml.so.1"  # what programs open: a link to the file with the version in its name
_LIBRARY = re.compile(r"libnvidia-ml\.so\.(\d{3,4}(?:\.\d{1,4}){0,2})")
_PATIENCE = 3.0  # seconds for one answer
_BYTES = 1 << 20  # of one list of names
_NAMES = 20_000  # looked at of one list
_REST = 3600.0  # seconds for which an instance that overran is left alone


class SlowError(Exception):
    """The instance made a question last too long, or gave too long an answer."""


class Peek(Wire):
    """Questions about files in instances. A connection of its own: one that is broken off is not used again."""

    def __init__(self, endpoint: str, timeout: float = _PATIENCE) -> None:
        super().__init__(endpoint, timeout)
        self._resting: dict[str, float] = {}  # instance: until when

    def libraries(self, instance: str, folders: Sequence[str] = FOLDERS) -> frozenset[str] | None:
        """The versions of NVIDIA's library in a running instance; None if it cannot be said."""
        if time.monotonic() < self._resting.get(instance, 0):
            return None
        try:
            return self._libraries(instance, folders)
        except (SlowError, requests.RequestException):
            self._resting[instance] = time.monotonic() + _REST
            return None
        except (RefusedError, OSError, ValueError, TypeError, AttributeError):
            return None  # stopped or removed meanwhile, or an answer that is none

    def _libraries(self, instance: str, folders: Sequence[str]) -> frozenset[str]:
        loaded = [_name(self._ask(instance, f"{folder}/{_LOADED}", "symlink")) for folder in folders]
        if found := versions(loaded):  # what its programs really load: older files may lie beside it
            return found
        names: list[str] = []
        for folder in folders:
            text = self._ask(instance, folder, "directory")
            names += json.loads(text)["metadata"][:_NAMES] if text else []
        return versions(names)

    def _ask(self, instance: str, path: str, kind: str) -> bytes:
        """What LXD itself says of a path of this kind: a link's target, a directory's names; b"" of any other kind."""
        began = time.monotonic()
        if self._kind(instance, path) != kind:
            return b""
        try:
            with self._call(
                "get", ("instances", instance, "files"), params={"path": path}, stream=True, is_api=False
            ) as answer:
                if answer.headers.get("X-LXD-type") != kind:  # a file's body would come out of the instance
                    return b""
                text = b""
                for part in answer.iter_content(1 << 16):
                    text += part
                    if len(text) > _BYTES or time.monotonic() - began > _PATIENCE:
                        raise SlowError(path)
        except RefusedError as error:
            if error.code == 404:
                return b""
            raise
        if time.monotonic() - began > _PATIENCE:
            raise SlowError(path)
        return text

    def _kind(self, instance: str, path: str) -> str:
        """Link, directory or file, without opening it; "" for none. pylxd has no name for this kind of request."""
        node = self._client().api["instances"][instance]["files"]
        endpoint = node._api_endpoint  # noqa: SLF001
        answer = node.session.head(endpoint, params={"path": path}, timeout=_PATIENCE)
        return str(answer.headers.get("X-LXD-type", "")) if answer.status_code == 200 else ""


def versions(names: Iterable[object]) -> frozenset[str]:
    """The versions that files of NVIDIA's library carry in their names; all other names are passed over."""
    found = (_LIBRARY.fullmatch(name) for name in names if isinstance(name, str))
    return frozenset(match[1] for match in found if match)


def _name(target: bytes) -> str:
    return target.decode(errors="replace").rpartition("/")[2][:255]
