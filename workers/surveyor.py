"""The agent's slow look: every quarter of a minute what all instances use, and what is due by the calendar.

Beside the passes, in a thread of its own: it may take seconds, and nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import clock
from app.config import Settings
from app.drivers.base import DriverError, LxdDriver
from app.drivers.image_files import ImageFiles
from app.drivers.survey import HostUse
from app.errors import NotFound
from app.extensions import db, transaction
from app.services import backups, inventory, surveys, upkeep
from workers import backups as backup_files
from workers.known_host import BOOT_ID, keep

log = logging.getLogger(__name__)

EVERY = 15.0  # seconds between two looks
AGAIN = 60.0  # seconds after one in vain: whatever made it slow should not be asked again at once


class Surveyor:
    """Surveys one host until it is told to stop. `work`: set when there is something to do."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver, work: threading.Event) -> None:
        self.app, self.host_name, self.driver, self.work = app, host_name, driver, work
        settings: Settings = app.extensions["berth"]
        self._files = ImageFiles(settings.images_dir)
        self._before: dict[str, tuple[float, float]] = {}  # CPU seconds of each instance, and when that was

    def run(self, stop: threading.Event) -> None:
        """Look, and again, until `stop` is set."""
        pause = 0.0
        while not stop.wait(pause):
            pause = EVERY
            try:
                self.step()
            except DriverError as error:
                log.debug("%s: no slow look now: %s", self.host_name, error)
                pause = AGAIN
            except (SQLAlchemyError, NotFound) as error:
                log.debug("%s: looked in vain, the database is away: %s", self.host_name, error)
            except Exception:
                log.exception("the slow look at %s failed", self.host_name)
                pause = AGAIN

    def step(self) -> HostUse:
        """One look, written down, and what is due asked for."""
        began = clock.now()
        found, version, images = self.driver.survey(), self.driver.server().version, self.driver.images()
        cpu = self._cpus(found)
        files = self._files.names()
        with self.app.app_context():
            try:
                with transaction():
                    host = inventory.host(self.host_name)
                    surveys.record(host, found, cpu, began)
                    inventory.saw_lxd(host, version, images)
                    inventory.saw_image_files(host, str(self._files.directory), files)
                with transaction():
                    asked = upkeep.due(inventory.host(self.host_name).id)
                with transaction():
                    kept = backups.kept(inventory.host(self.host_name))
                backup_files.tidy(self.app.extensions["berth"], self.host_name, kept)
            finally:
                db.session.remove()
        if asked:
            self.work.set()
        return found

    def _cpus(self, found: HostUse) -> dict[str, float]:
        """How many CPUs each instance has used on average since the last look."""
        now = time.monotonic()
        current = {name: (use.cpu_seconds, now) for name, use in found.instances.items() if use.cpu_seconds is not None}
        before, self._before = self._before, current
        return {
            name: round(max(0.0, seconds - before[name][0]) / max(now - before[name][1], 0.001), 2)
            for name, (seconds, _at) in current.items()
            if name in before
        }


def after_reboot(app: Flask, host_name: str, data_dir: Path, boot_id: Path = BOOT_ID) -> int:
    """After an agent's start: if the host was rebooted since the last one ran, ask for what ran then to be started; how
    many. LXD must not do it by itself, since it would give GPUs back whose booking is over.

    To be called before the first pass that has the database, which writes down that nothing runs any more; raises
    SQLAlchemyError where that does not answer: then again before the next."""
    try:
        return _asked_after_reboot(app, host_name, data_dir / "agents" / f"{host_name}.boot", boot_id)
    except OSError as error:  # that would be no better the next time
        log.warning("%s: whether the host was rebooted is not known: %s", host_name, error)
        return 0


def _asked_after_reboot(app: Flask, host_name: str, kept: Path, boot_id: Path) -> int:
    now = boot_id.read_text().strip()
    before = kept.read_text().strip() if kept.exists() else now
    asked = 0
    if before != now:
        with app.app_context():
            try:
                with transaction():
                    asked = upkeep.after_reboot(inventory.host(host_name).id)
            finally:
                db.session.remove()
        log.info("%s was rebooted: %d machines are started again", host_name, asked)
    keep(kept, now)
    return asked
