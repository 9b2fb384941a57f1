"""Changes of an instance's configuration, one after the other, until they are seen to be so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from app.drivers.base import GiveUp, TryAgain
from app.drivers.lxd import shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

UPDATE_TIMEOUT = 30.0  # seconds for LXD to plug or unplug a device
UPDATE_TRIES = 6


class Updates:
    """What the parts of PylxdDriver stand on."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._locks: dict[tuple[int, str], threading.Lock] = {}  # by process too: a fork may copy a held one

    def _update(self, name: str, what: str, change: Callable[[Json, Json], bool], *, missing_ok: bool = False) -> None:
        """Change until a fresh look finds nothing left to change.

        LXD's answer proves nothing: in 5.0.2 two updates can both pass its ETag check, one of them in vain."""
        trouble = "LXD says done, and it is not so"
        with self._locks.setdefault((os.getpid(), name), threading.Lock()), as_driver_errors(what):
            deadline = time.monotonic() + UPDATE_TIMEOUT
            for attempt in range(UPDATE_TRIES):
                current, etag = self._wire.find(name)
                if current is None and missing_ok:
                    return
                if current is None:
                    raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
                body = shapes.writable(current)
                if not change(current, body):
                    return
                try:
                    self._wire.send("put", "instances", name, json=body, etag=etag, limit=UPDATE_TIMEOUT)
                except RefusedError as error:
                    if not error.busy or time.monotonic() > deadline:
                        raise
                    trouble = str(error)
                    time.sleep(0.02 * 2**attempt)
        raise TryAgain(what, trouble, "Another program keeps changing the instance.")
