"""Keeps NVIDIA's libraries for machines those of the driver that the host has loaded, in a thread of its own, and says
on record how they come."""

from __future__ import annotations

import logging
import threading
import time

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app.drivers.base import LxdDriver
from app.drivers.libraries import Brought, Way
from app.extensions import db, transaction
from app.models import LibraryChoice
from app.services import inventory
from workers.turns import turn

log = logging.getLogger(__name__)

EVERY = 600.0  # seconds between two looks: a driver changes with a restart of the host, or nearly so
ASK_EVERY = 30.0  # seconds between two looks whether an admin chose another way, should a wake be lost
WAYS = {
    LibraryChoice.AUTO: None,
    LibraryChoice.RUNTIME: Way.RUNTIME,
    LibraryChoice.MOUNT: Way.MOUNT,
    LibraryChoice.OWN: Way.INSTALL,
}


class Librarian:
    """Brings the libraries of one host until it is told to stop."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver) -> None:
        self.app, self.host_name, self.driver = app, host_name, driver
        self._told = ""
        self._due = float("-inf")
        self._choice: LibraryChoice | None = None  # None: not known yet

    def run(self, stop: threading.Event, now: threading.Event, every: float = ASK_EVERY) -> None:
        """At once, whenever `now` is set and another way was chosen, and every so often. Who sets `stop` sets `now`."""
        while not stop.is_set():
            now.clear()
            with turn(log, f"the look at NVIDIA's libraries on {self.host_name}", self._tell):
                self.step()
            now.wait(every)

    def step(self) -> Brought | None:
        """Bring them if that is due; None if not. What an admin chose last holds while the database is away; before it
        was ever heard, nothing is decided anew."""
        choice = self._asked()
        if choice is None or (choice == self._choice and time.monotonic() < self._due):
            return None
        self._choice, self._due = choice, time.monotonic() + EVERY
        brought = self.driver.bring_libraries(WAYS[choice])
        self._tell(brought.way)
        with self.app.app_context():
            try:
                with transaction():
                    inventory.record_libraries(inventory.host(self.host_name), brought)
            finally:
                db.session.remove()
        return brought

    def _asked(self) -> LibraryChoice | None:
        with self.app.app_context():
            try:
                with transaction():
                    return LibraryChoice(inventory.host(self.host_name).libraries)
            except SQLAlchemyError:
                return self._choice
            finally:
                db.session.remove()

    def _tell(self, now: str) -> None:
        if now != self._told:
            log.info("%s: NVIDIA's libraries for machines: %s", self.host_name, now)
            self._told = now
