"""One host's agent: it hears wakes, makes passes when they are due, and does the host's long work.

Threads that need nothing of each other: whichever of Valkey, the database or LXD is away, the others go on.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import clock
from app.config import Settings
from app.drivers.base import DriverError, LxdDriver
from app.drivers.connect import connect, directories_of, kernel_of
from app.drivers.directories import NoDirectories
from app.drivers.kernel import Kernel
from app.drivers.shares import Directories
from app.errors import NotFound
from app.extensions import database_trouble, db, transaction
from app.services import audit, inventory
from app.services.plan import Plan
from workers import metrics
from workers.beside import side_work
from workers.evictor import Evictor
from workers.handover import Hands
from workers.jobs import DOORS, EVERY_ONE, LOOK, WORK
from workers.known_host import keep
from workers.listener import Listener
from workers.locks import Held, exclusive, pass_lock
from workers.notify import STOPPING, Pulse, tell
from workers.reconciler import PassResult, run_pass
from workers.sharer import Sharer
from workers.surveyor import after_reboot
from workers.telling import describe
from workers.works import run_operations

log = logging.getLogger(__name__)

AFTER = 0.003  # seconds past a boundary, so that it has surely come
STUCK = 120.0  # seconds after which a pass that does not end takes the process with it, to be started anew
SIGN_EVERY = 20.0  # seconds between two signs of life, where no pass gives one
EVENTS_AGAIN, EVENTS_AGAIN_AFTER_TROUBLE = 30.0, 2.0  # seconds before LXD's events are listened to again
IN_VAIN = 1.0  # seconds before a pass that comes after two that did the same, unless something begins or ends
GOODBYE = 5.0  # seconds for a pass or an operation to end when the agent is to stop


class Agent:
    """Looks after one host until it is told to stop."""

    def __init__(
        self,
        app: Flask,
        host_name: str,
        driver: LxdDriver,
        kernel: Kernel | None,
        directories: Directories | None = None,
    ) -> None:
        settings: Settings = app.extensions["berth"]
        self.app, self.host_name, self.driver, self.kernel, self.settings = app, host_name, driver, kernel, settings
        self.sharer = Sharer(app, host_name, driver, directories or NoDirectories())
        kept = settings.data_dir / "agents" / f"{host_name}.gpus"
        self.hands = Hands(Evictor(driver, kernel, kept), settings.tick, LOOK.set)
        self.stop = threading.Event()
        self.pass_began = 0.0  # monotonic; 0 between passes
        self.last_sign = time.monotonic()
        self.looked = threading.Event()  # operations wait for it: after a reboot until a pass could look
        self._rebooted_known = False  # whether the host was rebooted since the last agent ran
        self._told = ""
        self._pulse = Pulse(STUCK + settings.tick)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. From the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        work: dict[str, Callable[[], None]] = {
            "passes": self._passes,
            "operations": self._operations,
            "events": self._events,
            **side_work(self.app, self.host_name, self.driver, self.hands.evictor, self.sharer, self.stop),
        }
        threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in work.items()]
        if self.settings.redis_agent_url:
            Listener(self.settings.redis_agent_url, self.host_name, self.note_refusal).start()
        log.info("agent of %s: started, a pass at least every %d s", self.host_name, self.settings.tick)
        for thread in threads:
            thread.start()
        while not self.stop.wait(1.0):
            self._bark(threads)
            self._pulse.pass_on()
            if time.monotonic() - self.last_sign > SIGN_EVERY:
                self._give_sign()
        tell(STOPPING)
        for event in EVERY_ONE:
            event.set()
        deadline = time.monotonic() + GOODBYE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.hands.close()
        if self.kernel is not None:
            self.kernel.close()
        log.info("agent of %s: stopped", self.host_name)

    def one_pass(self) -> PassResult:
        """A pass, while no other process makes one over this host."""
        with exclusive(pass_lock(self.settings.run_dir, self.host_name)):
            self.pass_began = self.last_sign = time.monotonic()
            try:
                with self.app.app_context():
                    return metrics.counted(run_pass(self.host_name, self.driver, self.hands, self._after_reboot))
            finally:
                self.pass_began = 0.0

    def note_refusal(self, function: str, reason: str) -> None:
        """Put a refused job on record; the log has it when the database has not."""
        try:
            with self.app.app_context(), transaction():
                target = f"host:{self.host_name}"
                audit.record(f"agent:{self.host_name}", "job.refused", target, function=function, reason=reason)
        except SQLAlchemyError as error:
            log.warning("the refused job is not on record: %s", error)

    def _passes(self) -> None:
        before = None
        while not self.stop.is_set():
            LOOK.clear()  # before the pass: a wake that comes during it means one more
            began, boundary, todo = clock.now(), None, Plan()
            try:
                result = self.one_pass()
                self._pulse.beat()
                boundary, todo = result.next_boundary, result.plan
                if result.looked:
                    self.looked.set()
                self._tell(result)
            except NotFound as error:
                log.warning("%s Removed from Berth, it needs no agent: this one may be stopped.", error)
            except Exception:
                log.exception("the pass over %s failed", self.host_name)
            done = (todo.detaches, todo.attaches)
            if done == before and not todo.quiet:  # in vain: the events of its own doing would keep it at that for ever
                self.stop.wait(min(IN_VAIN, until_next(began, clock.now(), boundary, self.settings.tick)))
            before = done
            left = until_next(began, clock.now(), boundary, self.settings.tick)
            LOOK.wait(0 if self.stop.is_set() else left)  # its own wake may have been cleared above

    def work(self, *, wait: bool) -> int:
        """Do the host's queued operations; how many. Raises Held if somebody else is at it and `wait` is False."""
        lock = self.settings.run_dir / f"operations-{self.host_name}.lock"
        with exclusive(lock, wait=wait):
            return run_operations(self.app, self.host_name, self.driver)

    def _operations(self) -> None:
        while not self.stop.is_set():
            if not self.looked.wait(self.settings.tick):
                continue
            WORK.clear()
            try:
                if self.work(wait=False):
                    LOOK.set()
                    DOORS.set()
            except (SQLAlchemyError, NotFound, Held) as error:
                log.debug("no operations now: %s", error)
            except Exception:
                log.exception("an operation on %s failed", self.host_name)
            WORK.wait(0 if self.stop.is_set() else self.settings.tick)

    def _events(self) -> None:
        """Look whenever LXD says that something happened to an instance: started, restored, copied, changed by hand."""
        while not self.stop.is_set():
            pause, began = EVENTS_AGAIN, time.monotonic()
            try:
                self.driver.listen(lambda _action: LOOK.set())
                if time.monotonic() - began > EVENTS_AGAIN_AFTER_TROUBLE:  # it spoke, until LXD ended: soon it is back
                    pause = EVENTS_AGAIN_AFTER_TROUBLE
            except DriverError as error:
                log.debug("no events from LXD now: %s", error)
                pause = EVENTS_AGAIN_AFTER_TROUBLE
            except Exception:
                log.exception("listening to LXD's events failed")
            self.stop.wait(pause)

    def _tell(self, result: PassResult) -> None:
        """Log what changed: what was done, and trouble when it begins and ends."""
        for line in [] if result.plan.quiet and not result.outcome.belated else describe(result):
            log.info("%s: %s (pass of %d ms)", self.host_name, line, result.milliseconds)
        if result.trouble != self._told:
            log.warning("%s: %s", self.host_name, result.trouble or "all is well again")
            self._told = result.trouble

    def _after_reboot(self) -> None:
        """Before each pass until the database has answered."""
        if not self._rebooted_known:
            asked = after_reboot(self.app, self.host_name, self.settings.data_dir)
            self._rebooted_known = True
            if not asked:  # else a GPU that LXD still lists must be out before a machine starts with it
                self.looked.set()

    def _give_sign(self) -> None:
        """A sign of life between two passes, or during a long one."""
        self.last_sign = time.monotonic()
        try:
            with self.app.app_context(), transaction():
                inventory.saw_agent(inventory.host(self.host_name).id)
        except (SQLAlchemyError, NotFound) as error:
            log.debug("no sign of life: %s", error)

    def _bark(self, threads: list[threading.Thread]) -> None:
        """A pass that hangs, or a thread that died, must not look like an agent at work."""
        began = self.pass_began
        if (began and time.monotonic() - began > STUCK) or not all(thread.is_alive() for thread in threads):
            log.critical("agent of %s: stuck, ending so that it is started anew", self.host_name)
            os._exit(70)


def until_next(began: datetime, now: datetime, boundary: datetime | None, tick: float) -> float:
    """Seconds to the next pass: exactly past the boundary if that comes before the tick.

    A boundary before the pass `began` was seen by it; one that fell within it was not.
    """
    if boundary is None or boundary <= began:
        return tick
    return min(tick, max(0.0, (boundary - now).total_seconds() + AFTER))


def make(app: Flask, host_name: str) -> Agent:
    """The agent of a host. Raises NotFound; DriverError for no host's name, or, without the database, a new host."""
    if not inventory.HOST_NAME.fullmatch(host_name):  # it becomes part of paths, and the database is not believed
        raise DriverError(f"agent of {host_name!r}", "that is no name of a host", "See: berth host list")
    settings: Settings = app.extensions["berth"]
    kept = settings.data_dir / "agents" / f"{host_name}.endpoint"
    try:
        with app.app_context():
            endpoint = inventory.host(host_name).endpoint
            db.session.remove()
        keep(kept, endpoint)
    except SQLAlchemyError as error:  # the ends of bookings are kept without it
        if not (endpoint := kept.read_text() if kept.exists() else ""):
            raise DriverError(f"agent of {host_name}", database_trouble(error)) from error
        log.warning("agent of %s: %s", host_name, database_trouble(error))
    driver = connect(endpoint, host_name, settings.data_dir)
    kernel = kernel_of(driver, endpoint, host_name, settings.data_dir)
    return Agent(app, host_name, driver, kernel, directories_of(endpoint))
