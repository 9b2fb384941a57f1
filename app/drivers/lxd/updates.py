"""Changes of an instance's configuration, one after the other, until they are seen to be so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from app.drivers.base import GiveUp, TryAgain
from app.drivers.lxd import shapes
from app.drivers.lxd.errors import RefusedError, UnfinishedError, as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

UPDATE_TIMEOUT = 30.0  # seconds for LXD to plug a device
UPDATE_TRIES = 6  # changes that LXD says are made, and are not
PAUSE = 0.05  # seconds before a change that LXD refused, being at another one, is asked for again
OTHERS = 3.0  # seconds for which another's change is waited for; one that hangs is left to the next look at the host


class Updates:
    """What the parts of PylxdDriver stand on."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._unfinished: dict[str, str] = {}  # by instance: an update that LXD had not done in its time
        self._locks: dict[tuple[int, str], threading.Lock] = {}  # by process too: a fork may copy a held one

    def _update(
        self,
        name: str,
        what: str,
        change: Callable[[Json, Json], bool],
        *,
        missing_ok: bool = False,
        limit: float = UPDATE_TIMEOUT,
    ) -> None:
        """Change until a fresh look finds nothing left to change.

        LXD's answer proves nothing: in 5.0.2 two updates can both pass its ETag check, one of them in vain. The other
        one may be under way still when ours is seen to be made, and would undo it: its end is waited for. And of a
        machine whose disk is full it says that the change failed when it is made: last of all it writes a copy of the
        settings onto that disk. Nobody may keep a GPU by that, nor be kept from one."""
        trouble, full = "LXD says done, and it is not so", False
        with self._locks.setdefault((os.getpid(), name), threading.Lock()), as_driver_errors(what):
            self._check_finished(name, what)
            deadline = time.monotonic() + limit
            asked, made = False, 0
            while made < UPDATE_TRIES:
                current, etag = self._wire.find(name)
                if current is None and missing_ok:
                    return
                if current is None:
                    raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
                body = shapes.writable(current)
                if not change(current, body):
                    if asked and made < UPDATE_TRIES - 1 and self._overtaken(name):
                        made += 1
                        continue
                    return
                asked = True
                try:
                    self._wire.send("put", "instances", name, json=body, etag=etag, limit=limit)
                    made += 1
                except UnfinishedError as error:
                    self._unfinished[name] = error.operation
                    raise
                except RefusedError as error:
                    told = error.full and not full  # once; then it is so, or there is no room for the change itself
                    if not (told or error.busy) or time.monotonic() > deadline:
                        raise
                    trouble, full = str(error), full or told
                    time.sleep(PAUSE)
        raise TryAgain(what, trouble, "Another program keeps changing the instance.")

    def _overtaken(self, name: str) -> bool:
        """Whether somebody else's change of it was under way too, and is over now."""
        until, seen = time.monotonic() + OTHERS, False
        while self._wire.changes(name):
            if time.monotonic() > until:
                return False
            seen = True
            time.sleep(0.02)
        return seen

    def _check_finished(self, name: str, what: str) -> None:
        """A container can make an update hang: another one would hang beside it, and keep a stop from its turn."""
        if name in self._unfinished and self._wire.runs(self._unfinished[name]):
            raise TryAgain(what, "LXD is still at the last change of it", "If that does not end, stop the instance.")
        self._unfinished.pop(name, None)
