"""Keeps the ways into a host's machines open: ports, keys and what is missing inside; and tries whether they answer.

Beside the passes, in a thread of its own: a machine that hangs keeps only itself waiting. It asks nothing of LXD while
no machine has doors, and one thing of it otherwise, unless there is something to do.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app.drivers.base import DriverError, LxdDriver
from app.drivers.doors import REFUSED, SILENT, Door, Doorway
from app.drivers.inside import shell
from app.extensions import db, transaction
from app.services import access, desktops, inventory
from app.services.access import Entrance
from workers import moving_in, scripts
from workers.turns import turn

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two rounds
PAUSE = 1.0  # seconds between any two: every wake asks for one
AT_ONCE = 8  # machines looked after side by side
CALM = 30.0  # seconds before a door that answered is tried again: sshd writes each try down, and newer ones mind many
COMING_UP = 20.0  # seconds in which a machine that has just started is tried every second
_HOST = 0  # stands where a machine's number stands
AGAIN = 60.0  # seconds before something inside that did not work is tried again
KEYS_EVERY = 300.0  # seconds between two looks at the host keys of a machine


class Doorman:
    """Looks after one host's doors until it is told to stop."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver) -> None:
        self.app, self.host_name, self.driver = app, host_name, driver
        self._due: dict[tuple[int, str], float] = {}  # when something of a machine is to be done again, monotonic
        self._soon_until = 0.0  # a machine is just coming up: what does not answer yet will do so any moment
        self._told = ""

    def run(self, stop: threading.Event, now: threading.Event, every: float = EVERY, pause: float = PAUSE) -> None:
        """A round at once, then whenever `now` is set, and at least `every` seconds. Who sets `stop` sets `now` too."""
        while not stop.is_set():
            now.clear()
            with turn(log, f"the round to the doors of {self.host_name}", self._note):
                self.step()
                self._note("")
            stop.wait(pause)
            now.wait(every if time.monotonic() > self._soon_until else 0.0)

    def step(self) -> int:
        """One round; how many machines were looked after. Raises DriverError."""
        with self.app.app_context():
            try:
                with transaction():
                    host = inventory.host(self.host_name)
                    found, desktop, answer = access.entrances(host), desktops.door(host), host.desktop_answer
                self._try_desktop(desktop, answer)
            finally:
                db.session.remove()
        self._forget({entrance.instance_id for entrance in found})
        if not found:
            return 0
        doorways = self.driver.doorways()
        pairs = [(entrance, doorways.get(entrance.name)) for entrance in found]
        seen = [(entrance, there) for entrance, there in pairs if there and there.owner == entrance.login]
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="door") as pool:
            list(pool.map(lambda pair: self._look_after(*pair), seen))
        return len(seen)

    def _look_after(self, entrance: Entrance, doorway: Doorway) -> None:
        """One machine: what goes wrong there is nobody else's trouble."""
        try:
            with self.app.app_context():
                if doorway.status == "stopped":
                    moving_in.clear(self.driver, entrance, doorway)
                elif doorway.status == "running" and entrance.running:
                    self._settle(entrance)
                    self._open(entrance, doorway)
                    self._knock(entrance)
        except (SQLAlchemyError, DriverError) as error:
            log.debug("the doors of %s: %s", entrance.name, error)
        except Exception:
            log.exception("the doors of %s", entrance.name)

    def _settle(self, entrance: Entrance) -> None:
        """What belongs inside and is not there yet."""
        if not entrance.settled:
            if self._is_due(entrance, "settle", AGAIN):
                moving_in.settle(self.driver, entrance)
                self._is_due(entrance, "host keys", KEYS_EVERY)
        elif self._is_due(entrance, "host keys", KEYS_EVERY):
            answer = self.driver.run(entrance.name, shell(scripts.HOST_KEYS))
            with transaction():
                access.note(entrance.instance_id, host_keys=access.host_keys(answer.text))
        stale = entrance.keys_at != entrance.keys_written
        if stale and self._is_due(entrance, f"keys of {entrance.keys_at}", AGAIN):
            moving_in.write_keys(self.driver, entrance)

    def _open(self, entrance: Entrance, doorway: Doorway) -> None:
        for port_id, door in entrance.doors.items():
            if not doorway.has(door):
                if door.purpose in doorway.doors:  # another number or address: its old one may be in the way
                    self.driver.close_door(entrance.name, door.purpose)
                moving_in.open_door(self.driver, entrance.name, port_id, entrance)
            elif entrance.health.get(door.purpose) == REFUSED and not self.driver.taken(door):
                # LXD lists it, and nobody listens there: what it had running for it is gone
                self.driver.close_door(entrance.name, door.purpose)
                moving_in.open_door(self.driver, entrance.name, port_id, entrance)

    def _knock(self, entrance: Entrance) -> None:
        """Whether SSH and Remote Desktop answer, by their own words."""
        found = {}
        for door in entrance.doors.values():
            answered = entrance.health.get(door.purpose) == ""
            if not answered or self._is_due(entrance, door.purpose, CALM):
                found[door.purpose] = self.driver.knock(door)
        if any(why and entrance.health.get(purpose) is None for purpose, why in found.items()):
            self._soon_until = time.monotonic() + COMING_UP
        if found:
            with transaction():
                access.note(entrance.instance_id, **found)

    def _try_desktop(self, door: Door | None, answered: str | None) -> None:
        """Whether the workstation itself answers Remote Desktop, where its desktop is offered."""
        if door is None or (answered in {"", SILENT} and not self._due_now(_HOST, "desktop", CALM)):
            return
        answer = self.driver.knock(door)
        self._due_now(_HOST, "desktop", CALM)
        with transaction():
            host = inventory.host(self.host_name)
            if desktops.door(host) == door:
                desktops.note(host, answer)

    def _is_due(self, entrance: Entrance, what: str, pause: float) -> bool:
        return self._due_now(entrance.instance_id, what, pause)

    def _due_now(self, instance_id: int, what: str, pause: float) -> bool:
        """Whether that is to be done now; then it is not for a while."""
        key, now = (instance_id, what), time.monotonic()
        if self._due.get(key, 0.0) > now:
            return False
        self._due[key] = now + pause
        return True

    def _forget(self, present: set[int]) -> None:
        self._due = {key: at for key, at in self._due.items() if key[0] in present | {_HOST}}

    def _note(self, trouble: str) -> None:
        """Log trouble when it begins and ends."""
        if trouble != self._told:
            log.warning("the doors of %s: %s", self.host_name, trouble or "all is well again")
            self._told = trouble
