"""Keeps NVIDIA's libraries for machines those of the driver that the host has loaded, in a thread of its own."""

from __future__ import annotations

import logging
import threading

from app.drivers.base import DriverError, LxdDriver
from app.drivers.libraries import Way

log = logging.getLogger(__name__)

EVERY = 600.0  # seconds between two looks: a driver changes with a restart of the host, or nearly so


class Librarian:
    """Brings the libraries of one host until it is told to stop."""

    def __init__(self, host_name: str, driver: LxdDriver) -> None:
        self.host_name, self.driver = host_name, driver
        self._told: str | Way = ""

    def run(self, stop: threading.Event, every: float = EVERY) -> None:
        """At once, and every so often."""
        while not stop.is_set():
            try:
                self._tell(self.driver.bring_libraries())
            except DriverError as error:
                self._tell(str(error))
            except Exception:
                log.exception("NVIDIA's libraries for the machines of %s", self.host_name)
            stop.wait(every)

    def _tell(self, now: str | Way) -> None:
        if now != self._told:
            log.info("%s: NVIDIA's libraries for machines: %s", self.host_name, now)
            self._told = now
