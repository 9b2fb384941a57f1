"""Tells people's machines that a booking ends soon: on every terminal and every desktop, 15, 5 and 1 minute before; and
that it is given back, since its GPUs do nothing.

What is due is loaded, what holds the GPUs is asked of the kernel, the warning is marked as given, and only then told:
no transaction is open meanwhile, and a crash costs or repeats one warning at most.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app.drivers.base import DriverError, HostSeen, LxdDriver, Number
from app.drivers.kernel import Kernel, Scan
from app.extensions import db, transaction
from app.services import further, inventory, warning_words, warnings
from app.services.further import Further
from app.services.idle import warned
from app.services.warnings import Claim, Due, Held
from workers.turns import turn

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two looks
AT_ONCE = 8  # machines told side by side: one that hangs keeps nobody else waiting


@dataclass(frozen=True)
class Look:
    """What the host showed: the machine of each booking, and what holds its GPUs. Nothing of a host that is away."""

    places: dict[int, str] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)


class Warner:
    """One host's warnings. Several at once are wasteful, never wrong. `kernel` None: the host is another machine."""

    def __init__(self, app: Flask, host_name: str, driver: LxdDriver, kernel: Kernel | None) -> None:
        self.app, self.host_name, self.driver, self.kernel = app, host_name, driver, kernel
        self._trouble = ""
        self._idle: set[int] = set()  # what machines were told of GPUs that do nothing; by an agent that starts, again

    def run(self, stop: threading.Event) -> None:
        """Look and warn until told to stop."""
        while not stop.is_set():
            with turn(log, f"the round of warnings on {self.host_name}", self._note):
                self.step()
                self.tell_idle()
                self._note("")
            stop.wait(EVERY)

    def step(self) -> int:
        """Give the warnings that are due; how many. Raises DriverError, and then has given none."""
        with self.app.app_context():
            with transaction():
                host = inventory.host(self.host_name)
                due = warnings.due(host)
                claims = warnings.running(host) if due else []
                room = {one.booking_id: further.by_id(one.booking_id, warning_words.languages(one)) for one in due}
            if not due:
                return 0
            look = self._look(due, claims)
            given = [warning for warning in due if self._mark(warning, look)]
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="tell") as pool:
            list(pool.map(lambda one: self._tell(one, look, claims, room[one.booking_id]), given))
        return len(given)

    def tell_idle(self) -> int:
        """Tell the machines whose bookings are to be given back for doing nothing, each once; how many. Raises
        DriverError, and then has told none."""
        with self.app.app_context():
            with transaction():
                found = {one.id: one for one in warned.on(inventory.host(self.host_name))}
            new = [found[number] for number in found.keys() - self._idle]
            places = warnings.places(self.driver.observe()) if new else {}
            said = [(places[one.booking_id], *warning_words.idle(one)) for one in new if one.booking_id in places]
        self._idle = set(found)
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="tell") as pool:
            list(pool.map(lambda one: self._say(*one), said))
        return len(said)

    def _say(self, instance: str, title: str, text: str) -> None:
        try:
            self.driver.tell(instance, title, text)
        except DriverError as error:
            log.warning("%s was not told that its GPUs do nothing: %s", instance, error)

    def _look(self, due: list[Due], claims: list[Claim]) -> Look:
        """Where the bookings' GPUs are, and which processes there hold them."""
        seen = self.driver.observe()
        places = warnings.places(seen)
        if not places.keys() & {warning.booking_id for warning in due}:
            return Look()
        scan, numbers = self._scan(seen, claims)
        if scan is None:
            return Look(places)
        held = {w.booking_id: warnings.held(w, places.get(w.booking_id, ""), scan, claims, numbers) for w in due}
        return Look(places, held)

    def _scan(self, seen: HostSeen, claims: list[Claim]) -> tuple[Scan | None, dict[int, frozenset[Number]]]:
        """Who holds any GPU that somebody has now. None where no kernel can say: a warning needs no names."""
        if self.kernel is None:
            return None, {}
        try:
            numbers = warnings.numbers_of(claims, self.driver.gpus())
            return self.kernel.scan(seen, frozenset().union(*numbers.values()), thorough=False), numbers
        except DriverError as error:
            log.warning("warnings on %s name no programs: %s", self.host_name, error)
            return None, {}

    def _mark(self, warning: Due, look: Look) -> bool:
        """Before it is told: told twice it would sound like two."""
        try:
            with transaction():
                return warnings.mark(warning, look.held.get(warning.booking_id))
        except SQLAlchemyError as error:
            db.session.remove()
            log.debug("booking %d is warned later: %s", warning.booking_id, error)
            return False

    def _tell(self, warning: Due, look: Look, claims: list[Claim], room: Further | None) -> None:
        """Show it in the machine; where that does not work, the portal's pages have said it."""
        instance = look.places.get(warning.booking_id)
        if instance is None:
            return
        try:
            with self.app.app_context():
                title, text = warning_words.message(warning, look.held.get(warning.booking_id), claims, room)
            self.driver.tell(instance, title, text)
        except DriverError as error:
            log.warning("booking %d: the warning was not shown in %s: %s", warning.booking_id, instance, error)
        else:
            log.info("booking %d: %s was warned, %d min", warning.booking_id, instance, warning.minutes)

    def _note(self, trouble: str) -> None:
        """Log trouble when it begins and ends."""
        if trouble != self._trouble:
            log.warning("warnings on %s: %s", self.host_name, trouble or "all is well again")
            self._trouble = trouble
