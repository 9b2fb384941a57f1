"""The agent's check of its host, every few minutes: examine, compare, store. It changes nothing on the host.

Beside the passes, in a thread of its own: it asks a great deal, and nothing waits for it.
"""

from __future__ import annotations

import logging
import threading

from flask import Flask

from app.drivers.base import DriverError, LxdDriver
from app.drivers.facts import HostFacts
from app.extensions import db, transaction
from app.services import checkup, findings, inventory
from app.services.checkup import BAD, Finding, pools
from workers.turns import turn

log = logging.getLogger(__name__)

EVERY = 300.0  # seconds between two checks that nobody asked for
PAUSE = 60.0  # seconds between any two: every wake asks, and a check asks a great deal of the host


class Checker:
    """Checks one host until it is told to stop."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver) -> None:
        self.app, self.host_name, self.driver = app, host_name, driver
        self._told: frozenset[Finding] = frozenset()

    def run(self, stop: threading.Event, now: threading.Event, every: float = EVERY, pause: float = PAUSE) -> None:
        """A check at once, then whenever `now` is set, and at least `every` seconds. Who sets `stop` sets `now` too."""
        while not stop.is_set():
            now.clear()  # before the check: who asks during one gets another
            with turn(log, f"the check of {self.host_name}"):
                self.step()
            stop.wait(pause)
            now.wait(every)

    def step(self) -> list[Finding]:
        """One check; what was found, what is well too. A host that cannot be examined is one finding."""
        facts = self._examine()
        with self.app.app_context():
            try:
                with transaction():
                    known = findings.known(inventory.host(self.host_name), findings.skew())
                if isinstance(facts, Finding):  # how full the pools are is known without that
                    found, driver = [facts, *pools.judge(known.pools)], None
                else:
                    found, driver = checkup.findings(facts, known), facts.driver
                with transaction():
                    findings.store(inventory.host(self.host_name), found, driver)
            finally:
                db.session.remove()
        self._tell(found)
        return found

    def _examine(self) -> HostFacts | Finding:
        try:
            return self.driver.examine()
        except DriverError as error:
            return checkup.not_examined(str(error), error.todo)

    def _tell(self, found: list[Finding]) -> None:
        """Log what is new and bad, once."""
        bad = frozenset(one for one in found if one.level == BAD)
        for one in sorted(bad - self._told, key=lambda one: (one.what, one.detail)):
            log.warning("%s: %s: %s", self.host_name, one.what, checkup.printable(one.detail))
        self._told = bad
