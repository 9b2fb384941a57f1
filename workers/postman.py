"""The postman: makes notices of what happened and of what is due, and sends them; one at a time on an installation.
It also tends what nobody may be there to tend: the waiting list, the month's new hours, the books of what ended on a
host that is away, and bookings whose GPUs do nothing, since their owners are told of it.

A notice is claimed (an attempt is counted), sent by a child process with a deadline, and written down as sent. Killed
before the server took it, the next postman sends it. Killed after that and before it was written down, it is sent
twice, with the same Message-ID: nothing can rule that out between two programs, and a loss would be worse.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import serving
from app.config import Settings
from app.drivers import mail, messengers, outward
from app.drivers.base import DriverError
from app.drivers.mail import Letter
from app.extensions import db, lab_zone, transaction
from app.services import folding, news, notice_words, outbox, quota, reminders, sealing, summaries
from app.services.outbox import Batch
from app.services.reports import counted
from workers import bookkeeper, reclaimer
from workers.apart import run_all

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two looks
REMIND_EVERY = 10.0
LINE_EVERY = 5.0
SELDOM = 60.0
DEADLINE = 30.0  # seconds for one message
ONE_POSTMAN = 0x62657274  # PostgreSQL's advisory lock; any number that is Berth's own
AGAIN, NEVER = "again ", "never "


class Postman:
    """Everything that is told. Without a mail server (`BERTH_SMTP`), nobody is told by e-mail."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.settings: Settings = app.extensions["berth"]
        self._next_look: dict[str, float] = {}
        self._lock: sa.Connection | None = None
        self._held = False

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop. A second postman waits until the first is gone."""
        with self.app.app_context():
            while not stop.is_set():
                try:
                    if not self._alone() or not self.step():
                        stop.wait(EVERY)
                except SQLAlchemyError as error:
                    log.debug("no messages now: %s", error)
                    self._let_go()
                    stop.wait(EVERY)
                except Exception:
                    log.exception("sending messages failed")
                    stop.wait(EVERY)
            self._let_go()

    def step(self) -> int:
        """Look what there is to tell and send what is due; how many messages that were. Needs an app context."""
        postal = bool(self.settings.smtp)
        self._seldom("news", 0.0, partial(news.collect, mail=postal))
        self._seldom("months", SELDOM, lambda: quota.renew_due(lab_zone()))
        self._tend("line", LINE_EVERY, serving.tend)
        self._seldom("bookings", REMIND_EVERY, partial(reminders.of_bookings, mail=postal))
        self._seldom("accounts", SELDOM, partial(reminders.of_accounts, mail=postal))
        self._seldom("hosts", SELDOM, partial(reminders.of_hosts, mail=postal))
        self._seldom("tidy", 60 * SELDOM, outbox.tidy)
        self._seldom("usage", SELDOM, folding.prune)
        self._seldom("pieces", SELDOM, counted.count)
        self._seldom("summaries", 10 * SELDOM, partial(summaries.of_last_month, mail=postal))
        self._tend("books", SELDOM, bookkeeper.tend)
        self._tend("idle", SELDOM, reclaimer.tend)
        with transaction():
            batches, zone = outbox.claim(), lab_zone()
        if not batches:
            return 0
        results = run_all([self._prepared(batch, zone) for batch in batches], DEADLINE)
        self._write_down(batches, results)
        return len(batches)

    def _seldom(self, name: str, every: float, look: Callable[[], int]) -> None:
        """A chore that is one transaction."""

        def in_one() -> None:
            with transaction():
                look()

        self._tend(name, every, in_one)

    def _tend(self, name: str, every: float, chore: Callable[[], object]) -> None:
        """Do it if it is time. One that fails keeps neither the others nor the messages back, unless the database is
        away or, since it was, another postman is at work: what was raised then ends the step."""
        if time.monotonic() < self._next_look.get(name, 0.0):
            return
        try:
            chore()
        except Exception:
            db.session.remove()
            if not self._alone():
                raise
            log.exception("the postman's chore %r failed", name)
        finally:
            self._next_look[name] = time.monotonic() + every

    def _prepared(self, batch: Batch, zone: ZoneInfo) -> Callable[[], str]:
        """The task; one that cannot be made fails by itself, and keeps no other one back."""
        try:
            return self._task(batch, zone)
        except Exception:
            log.exception("a message to person %d cannot be written", batch.way[0])
            return partial(str, AGAIN + "died")

    def _task(self, batch: Batch, zone: ZoneInfo) -> Callable[[], str]:
        """What a child process has to do; all that it needs is read here."""
        user, first = batch.notices[0].user, batch.notices[0]
        message = notice_words.message(user, batch.notices, self.settings.url, zone)
        if first.channel is None and not user.email:
            return partial(str, NEVER + "not_printable")
        if first.channel is None:
            letter = Letter(user.email, message.title, message.text, f"{first.id}.{batch.notices[-1].id}")
            return partial(_post, self.settings, letter)
        address = sealing.unseal(self.app.config["SECRET_KEY"], first.channel.sealed)
        return partial(_hand_over, self.settings, address, message.title, message.text)

    def _write_down(self, batches: Sequence[Batch], results: Sequence[str]) -> None:
        """Again and again until it is written: what was sent and is not known to be would be sent once more."""
        for wait in (0.5, 1, 2, 4, 8, 15, 30, 60, 0):
            try:
                with transaction():
                    for batch, result in zip(batches, results, strict=True):
                        _record(batch, result)
            except SQLAlchemyError:
                log.warning("what was sent cannot be written down; trying again in %s s", wait)
                db.session.remove()
                time.sleep(wait)
            else:
                return

    def _alone(self) -> bool:
        """Whether this is the one postman; PostgreSQL forgets a lock with the connection that has it."""
        if self._lock is None:
            self._lock = db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._held = False
        if self._held:
            self._lock.scalar(sa.text("SELECT 1"))  # whether the connection, and with it the lock, is still there
        else:
            self._held = bool(self._lock.scalar(sa.text("SELECT pg_try_advisory_lock(:n)"), {"n": ONE_POSTMAN}))
        return self._held

    def _let_go(self) -> None:
        db.session.remove()
        if self._lock is not None:
            self._lock.invalidate()
            self._lock.close()
            self._lock = None


def main(app: Flask) -> None:
    """Be the postman until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Postman(app).run(stop)


def _record(batch: Batch, result: str) -> None:
    if not result:
        outbox.sent(batch)
        return
    final, trouble = result.startswith(NEVER), result.removeprefix(NEVER).removeprefix(AGAIN)
    outbox.failed(batch, trouble, final=final)
    log.warning("a message to person %d by channel %s was not sent: %s", *batch.way, trouble)


def _post(settings: Settings, letter: Letter) -> str:
    try:
        mail.send(settings.smtp, settings.mail_from, letter)
    except mail.Rejected as error:
        return NEVER + str(error)
    except DriverError as error:
        return AGAIN + str(error)
    return ""


def _hand_over(settings: Settings, address: str | None, title: str, text: str) -> str:
    if address is None:
        return NEVER + "sealed"
    outward.guard(private=settings.notify_private)
    try:
        messengers.send(address, title, text, settings.notify)
    except DriverError as error:
        return AGAIN + str(error)
    return ""
