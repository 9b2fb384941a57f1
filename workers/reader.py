"""Reads out what admins asked for, in a thread of its own: an LXD that hangs at a log keeps nobody's GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from flask import Flask

from app.drivers.base import DriverError, LxdDriver
from app.extensions import db, transaction
from app.models import Readable
from app.services import inventory, readings
from workers.turns import turn

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two looks for questions, should a wake be lost


class Reader:
    """Answers one host's questions until it is told to stop."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver) -> None:
        self.app, self.host_name = app, host_name
        self._ways: dict[Readable, Callable[[str], str]] = {
            Readable.LOG: driver.read_log,
            Readable.CONSOLE: driver.read_console,
        }

    def run(self, stop: threading.Event, now: threading.Event, every: float = EVERY) -> None:
        """At once, then whenever `now` is set, and at least `every` seconds. Who sets `stop` sets `now` too."""
        while not stop.is_set():
            now.clear()
            with turn(log, f"the reading of logs of {self.host_name}"):
                self.step()
            now.wait(every)

    def step(self) -> int:
        """Answer what is asked; how many."""
        with self.app.app_context():
            try:
                with transaction():
                    asked = readings.waiting(inventory.host(self.host_name).id)
                for question in asked:
                    text, error = self._read(question)
                    with transaction():
                        readings.answer(question, text, error)
                return len(asked)
            finally:
                db.session.remove()

    def _read(self, question: readings.Question) -> tuple[str, str]:
        try:
            return self._ways[question.what](question.instance), ""
        except DriverError as error:
            return "", error.sentences()
