"""Shared directories, kept as they should be: looked at on the host, put into machines, taken out of them.

Beside the passes, in a thread of its own: a file system that hangs keeps nobody's GPU from coming or going.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Mapping, Sequence

from flask import Flask

from app.drivers.base import DriverError, LxdDriver
from app.drivers.shares import (
    BAD,
    SHARE_DEVICE,
    Directories,
    Found,
    Share,
    SharesSeen,
    Wish,
    finds_none_fit,
    proper,
    share_device,
)
from app.extensions import db, transaction
from app.services import inventory, shares
from workers.turns import turn

log = logging.getLogger(__name__)

LOOK_EVERY = 60.0  # seconds between two looks at directories that nothing was changed about
Place = tuple[str, str, bool]  # device, directory on the host, whether to be read only


class Sharer:
    """Looks after one host's shared directories until it is told to stop."""

    def __init__(
        self,
        app: Flask,
        host_name: str,
        driver: LxdDriver,
        directories: Directories,
        kernel: str = platform.release(),
    ) -> None:
        self._kernel = kernel
        self.app, self.host_name, self.driver, self.directories = app, host_name, driver, directories
        self._asked: dict[int, Wish] = {}
        self._fit: dict[Place, bool] = {}  # as this process saw it; the database's word for it may be another's
        self._looked = float("-inf")
        self._told = ""

    def run(self, stop: threading.Event, now: threading.Event, every: float) -> None:
        """At once, then whenever `now` is set, and at least `every` seconds. Who sets `stop` sets `now` too."""
        while not stop.is_set():
            now.clear()
            with turn(log, f"the round of shared directories on {self.host_name}", self._note):
                self.step()
                self._note("")
            now.wait(every)

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._told:
            log.warning("%s: %s", self.host_name, trouble)
        self._told = trouble

    def step(self) -> None:
        """Look where a look is due, then let each machine have what it should. Raises DriverError."""
        with self.app.app_context():
            try:
                self._look_if_due()
            finally:  # where no answer comes, what was known holds: unknown is not unfit
                try:
                    with transaction():
                        host = inventory.host(self.host_name)
                        wanted, owners = shares.desired(host), shares.owners(host)
                    self._apply(wanted, owners)
                finally:
                    db.session.remove()

    def _look_if_due(self) -> None:
        with transaction():
            host = inventory.host(self.host_name)
            wishes = shares.wishes(host)
            new = any(share.checked_at is None for share in shares.of_host(host))
        if wishes != self._asked or new or time.monotonic() - self._looked > LOOK_EVERY:
            self._look(wishes)

    def _look(self, wishes: dict[int, Wish]) -> None:
        asked = {number: wish for number, wish in wishes.items() if proper(wish.source)}
        answers = self.directories.look(list(asked.values())) if asked else []
        seen = dict(zip(asked, answers, strict=True))
        version = self.driver.server().version if seen else ""
        old = finds_none_fit(version, self._kernel)  # a machine that is given one could not even start
        more = (Found(BAD, "old", f"LXD {version}, Linux {self._kernel}"),) if old else ()
        found = {
            number: (*seen.get(number, (Found(BAD, "system", wish.source),)), *more) for number, wish in wishes.items()
        }
        self._fit = {}
        for number, wish in wishes.items():
            self._fit |= places(number, wish, found[number])
        with transaction():
            for number, things in found.items():
                shares.record(number, things, f"agent:{self.host_name}")
        self._asked, self._looked = wishes, time.monotonic()

    def _apply(self, wanted: Mapping[str, Mapping[str, Share]], owners: Mapping[str, str]) -> None:
        """Change what is not as it should be, each machine for itself."""
        troubles: dict[int, str] = {}
        seen = {name: one for name, one in self.driver.shares().items() if one.owner == owners.get(name)}
        wanted = {name: self._allowed(items, seen[name].shares) for name, items in wanted.items() if name in seen}
        for name, items in wanted.items():
            if seen[name].privileged:
                troubles |= {_number(device): f"{name}: the instance is privileged" for device in items}
        there = {name: set(seen[name].shares) for name in wanted}
        for name, items in due(wanted, seen).items():
            try:
                self.driver.set_shares(name, items)
                log.info("%s: %s has the shared directories %s", self.host_name, name, sorted(items) or "none")
                there[name] = set(items)
            except DriverError as error:
                log.warning("%s: %s", self.host_name, error)
                there[name] |= set(items)
                troubles |= {_number(device): f"{name}: {error.detail or error}" for device in there[name]}
        with transaction():
            left = {_number(device) for devices in there.values() for device in devices}
            shares.settle(inventory.host(self.host_name), troubles, left)

    def _allowed(self, items: Mapping[str, Share], there: Mapping[str, Share | None]) -> dict[str, Share]:
        """Those that this process found fit by itself. Where it had no answer yet, what is there stays."""
        return {
            device: share
            for device, share in items.items()
            if proper(share.path) and self._fit.get((device, share.source, share.read_only), share == there.get(device))
        }


def places(number: int, wish: Wish, found: Sequence[Found]) -> dict[Place, bool]:
    """What was found of each place that the wish was made ready for: whether machines may have it."""
    if not wish.prepare:
        return {}
    device, fit = share_device(number), all(one.level != BAD for one in found)
    if not wish.own:
        return {(device, wish.source, wish.read_only): fit}
    failed = [one.detail for one in found if one.code == "person"]
    return {
        (device, f"{wish.source}/{name}", wish.read_only): fit and not any(one.startswith(f"{name}:") for one in failed)
        for name, _uid in wish.people
    }


def due(wanted: Mapping[str, Mapping[str, Share]], seen: Mapping[str, SharesSeen]) -> dict[str, dict[str, Share]]:
    """By machine that has not what it should have, what that is. A privileged one gets nothing: root in there is root
    on the host. What is not Berth's is left alone."""
    found = {}
    for name, items in wanted.items():
        if name in seen:
            allowed = {} if seen[name].privileged else dict(items)
            if allowed != dict(seen[name].shares):
                found[name] = allowed
    return found


def _number(device: str) -> int:
    match = SHARE_DEVICE.match(device)
    assert match is not None
    return int(match[1])
