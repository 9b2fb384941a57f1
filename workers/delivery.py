"""Brings what the sampler found to the database: what GPUs are at every few seconds, what they did every minute.

In a thread of its own: a database that does not answer costs no reading. What it did not take stays in the journal; a
batch that it took before the answer was lost, or before we were killed, it knows by its name and does not add again.
"""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from flask import Flask
from sqlalchemy.exc import DataError, IntegrityError

from app.extensions import db, transaction
from app.models import Host
from app.services import audit, inventory, samples
from workers.lost import Lost
from workers.sampler import Sampler
from workers.turns import turn
from workers.unbooked import Stray

log = logging.getLogger(__name__)

SHOW_EVERY = 4.0  # seconds
DELIVER_EVERY = 60.0
BREATH = 2.0  # likewise for what waits, until what is new has its turn again: after days away there is much of it
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}  # nothing is wrong with the file
_REFUSED = (DataError, IntegrityError, ValueError, TypeError, LookupError, ArithmeticError)


class Delivery:
    """One host's."""

    def __init__(self, app: Flask, host_name: str, sampler: Sampler) -> None:
        self.app, self.host_name, self.sampler = app, host_name, sampler
        self.lost = Lost()
        self._shown: dict[str, datetime] = {}
        self._delivered = -DELIVER_EVERY
        self._left: set[Path] = set()  # what can be neither removed nor set aside

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        while not self._wait(stop):
            with turn(log, f"the delivery of what GPUs of {self.host_name} do"):
                self.step()

    def _wait(self, stop: threading.Event) -> bool:
        """Until it is time again, or somebody is found who is to be told of at once, or the sampler has ended; whether
        it is to end instead. Without waking up in between: on a host at work each time costs more than what it does."""
        found = self.sampler.unbooked.found
        if not stop.is_set():
            found.wait(SHOW_EVERY)
        found.clear()
        return stop.is_set()

    def step(self) -> None:
        """Show what is new, and deliver what is due. Raises SQLAlchemyError; what was not taken comes again."""
        new = {pci: now for pci, now in self.sampler.now.copy().items() if self._shown.get(pci) != now.seen_at}
        # Also what GPUs did that are out of service now.
        due = self.sampler.reads and time.monotonic() - self._delivered >= DELIVER_EVERY
        if not new and not due and not self.sampler.unbooked.news():
            return
        with self.app.app_context():
            try:
                if new:
                    with transaction():
                        samples.show(self.host_name, new.values())
                self._shown |= {pci: now.seen_at for pci, now in new.items()}
                self._record()
                if due:
                    with transaction():
                        host = inventory.host(self.host_name)
                    self.deliver(host.id, BREATH)
            finally:
                db.session.remove()

    def deliver(self, host_id: int, within: float = math.inf) -> int:
        """What is in the journal, oldest first, for so many seconds; how many batches. Needs an app context, and a
        database: what is being tried is not added to any more."""
        number, until = 0, time.monotonic() + within
        for tried, path in enumerate(path for path in self.sampler.journal.seal() if path not in self._left):
            if tried and time.monotonic() >= until:
                break
            number += self._deliver(host_id, path)
        else:  # nothing of it waits any more
            self._delivered = time.monotonic()
        return number

    def _deliver(self, host_id: int, path: Path) -> bool:
        """One batch; whether it was taken. One that cannot be read or is refused keeps no other one waiting."""
        journal = self.sampler.journal
        try:
            parts = journal.read(path)
            with transaction():
                unknown = samples.deliver(host_id, path.stem, parts)
        except FileNotFoundError:  # too old, or too much, meanwhile
            return False
        except (OSError, *_REFUSED) as error:
            if isinstance(error, OSError) and error.errno in _PASSING:
                log.warning("a batch of what GPUs did cannot be read now: %s", error)
                return False
            log.exception("a batch of what GPUs did cannot be read or is refused, and set aside: %s", path)
            self._put(journal.set_aside, path)
            return False
        if unknown:
            log.info("%s: %d parts are of GPUs that are not known any more", self.host_name, unknown)
        self._put(journal.done, path)
        return True

    def _put(self, away: Callable[[Path], None], path: Path) -> None:
        """Where a file cannot be moved either, this agent does not try it again: the database knows what it took."""
        try:
            away(path)
        except OSError as error:
            log.warning("a batch of what GPUs did stays where it is: %s", error)
            self._left.add(path)

    def _record(self) -> None:
        """Use without a booking, and GPUs that do not answer; once each time."""
        news, lost = self.sampler.unbooked.news(), self.lost.due(self.sampler.now)
        if not news and not lost:
            return
        with transaction():
            host = inventory.host(self.host_name)
            gpus = {gpu.pci_address: gpu.id for gpu, _host in inventory.gpus(host.id)}
            for one in news:
                if one.pci_address in gpus:
                    _record(host, gpus[one.pci_address], one)
            for pci in lost.keys() & gpus.keys():
                why, key = self.sampler.now[pci].trouble, f"unreadable:{gpus[pci]}:{lost[pci]:%Y%m%d%H%M%S}"
                where = {"host": host.name, "pci_address": pci, "why": why, "since": lost[pci].isoformat()}
                audit.record(f"agent:{host.name}", "gpu.unreadable", f"gpu:{gpus[pci]}", key=key, **where)
        self.sampler.unbooked.noted(news)
        self.lost.noted(lost)


def _record(host: Host, gpu_id: int, stray: Stray) -> None:
    pid, process = stray.running.pid, stray.process
    audit.record(
        f"agent:{host.name}", "gpu.used_unbooked", f"gpu:{gpu_id}",
        key=f"unbooked:{host.id}:{gpu_id}:{pid}:{process.start}",
        host=host.name, pci_address=stray.pci_address, instance=process.instance, process=pid, name=process.name,
    )  # fmt: skip
