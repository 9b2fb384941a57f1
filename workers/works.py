"""A host's long work: several operations side by side, each by the function that knows its kind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from flask import Flask
from sqlalchemy.exc import DataError, SQLAlchemyError

from app import queue
from app.drivers.base import DriverError, LxdDriver
from app.errors import DomainError
from app.extensions import transaction
from app.models import Instance, Operation, OperationKind, Template
from app.services import builds, inventory, operations
from workers import backups, lifecycle, moving_in, templates, whose

log = logging.getLogger(__name__)

HANDS = 4  # operations at once; LXD itself makes several instances side by side
FAILED = "Berth itself failed at this. The log of the host's agent says how."
ASK_EVERY = 0.25  # seconds between two looks for more, while some are under way


@dataclass(frozen=True)
class Work:
    """One operation under way. Nothing of the database is open while a handler works."""

    operation: Operation
    driver: LxdDriver

    @property
    def instance(self) -> Instance:
        """The machine that it is about."""
        assert self.operation.instance is not None
        return self.operation.instance

    @property
    def template(self) -> Template:
        """The template that it is about."""
        assert self.operation.template is not None
        return self.operation.template

    def progress(self, step: str, percent: int) -> None:
        """Say how far it is."""
        with transaction():
            operations.progress(self.operation.id, step, percent)

    def note(self, text: str) -> None:
        """Add to its log."""
        with transaction():
            operations.note(self.operation.id, text)

    def heed(self) -> None:
        """Raise Cancelled if somebody has asked for its end: for work that may be left half done."""
        with transaction():
            builds.heed(self.operation.id)


def _stop(work: Work) -> None:
    work.progress("stopping", 10)
    work.driver.stop(work.instance.name, force=bool(work.operation.details.get("force")))


def _delete(work: Work) -> None:
    work.progress("deleting", 10)
    owner, anywhere = work.instance.owner.username, bool(work.operation.details.get("anywhere"))
    work.driver.delete(work.instance.name, owner, anywhere=anywhere)


HANDLERS: dict[OperationKind, Callable[[Work], None]] = {
    OperationKind.CREATE: moving_in.create,
    OperationKind.START: moving_in.start,
    OperationKind.STOP: _stop,
    OperationKind.RESTART: moving_in.restart,
    OperationKind.DELETE: _delete,
    OperationKind.BUILD: templates.build,
    OperationKind.DISCARD: templates.discard,
    OperationKind.PASSWORD: moving_in.set_password,
    OperationKind.FREEZE: lifecycle.freeze,
    OperationKind.RENAME: lifecycle.rename,
    OperationKind.RESIZE: lifecycle.resize,
    OperationKind.SNAPSHOT: lifecycle.snapshot,
    OperationKind.RESTORE: lifecycle.restore,
    OperationKind.FORGET: lifecycle.forget,
    OperationKind.REBUILD: lifecycle.rebuild,
    OperationKind.ADOPT: lifecycle.adopt,
    OperationKind.BACKUP: backups.make,
    OperationKind.MOVE: lifecycle.move,
    OperationKind.LIBRARIES: lifecycle.lend_libraries,
}


def run_operations(app: Flask, host_name: str, driver: LxdDriver) -> int:
    """Do the host's queued operations until none is queued or under way. Returns how many were done.

    The caller holds the host's lock: what is running and no thread of ours is at, runs nowhere. No error leaves while a
    thread is at work: whoever came next would begin the same anew."""
    done, under_way, lost = 0, dict[threading.Thread, Operation](), True
    ended = threading.Event()
    while True:
        ended.clear()
        alive = {thread: operation for thread, operation in under_way.items() if thread.is_alive()}
        lost |= len(alive) < len(under_way)  # maybe the database did not take its end
        under_way = alive
        try:
            if lost:
                _requeue(app, host_name, under_way.values())
            lost = False
            while len(under_way) < HANDS and (operation := _claim(app, host_name, under_way.values())):
                thread = threading.Thread(
                    target=_perform, args=(app, host_name, driver, operation, ended), name="operation", daemon=True
                )
                thread.start()
                under_way[thread] = operation
                done += 1
        except Exception as error:
            if not under_way:
                raise
            if not lost:
                log.warning("%s: nothing new is begun for now: %s", host_name, error)
            lost = True  # maybe one was claimed, and nobody heard of it
        if not under_way:
            return done
        ended.wait(ASK_EVERY)


def _requeue(app: Flask, host_name: str, held: Collection[Operation]) -> None:
    with app.app_context(), transaction():
        operations.requeue_interrupted(inventory.host(host_name).id, [operation.id for operation in held])


def _claim(app: Flask, host_name: str, held: Collection[Operation]) -> Operation | None:
    """In a session of its own: what was claimed is its thread's alone, and no rollback empties it."""
    kinds = {operation.kind for operation in held}
    with app.app_context(), transaction():
        host = inventory.host(host_name)
        return operations.claim(host.id, heavy=not kinds & operations.HEAVY)


def _perform(app: Flask, host_name: str, driver: LxdDriver, operation: Operation, ended: threading.Event) -> None:
    """Do one operation and close it. What the database does not take now is done again by the next agent."""
    try:
        with app.app_context():
            if operation.details.get("start"):  # its host was rebooted meanwhile: see upkeep.after_reboot
                error = _attempt(Work(operation, driver), moving_in.start)
                if not error:
                    with transaction():
                        operations.put_back(operation.id)
                    return
            else:
                error = _attempt(Work(operation, driver))
            _finish(operation, host_name, error)
            if operation.kind == OperationKind.MOVE and not error:
                queue.wake(str(operation.details["host"]))  # it goes on there
    except SQLAlchemyError as error:
        log.warning("%s: operation %d has to be done again: %s", host_name, operation.id, error)
    finally:
        ended.set()


def _finish(operation: Operation, host_name: str, error: str) -> None:
    try:
        with transaction():
            operations.finish(operation.id, f"agent:{host_name}", error)
    except DataError as refused:  # it would be the next time, too
        log.error("%s: operation %d: %s", host_name, operation.id, refused)  # noqa: TRY400 - it is in the text
        with transaction():
            operations.finish(operation.id, f"agent:{host_name}", FAILED)


def _attempt(work: Work, handler: Callable[[Work], None] | None = None) -> str:
    """The error's text, or "" when it worked. `handler`: of its kind, unless another one is given."""
    try:
        whose.look(work)
        (handler or HANDLERS[work.operation.kind])(work)
    except DriverError as error:
        return error.sentences()
    except DomainError as error:
        return str(error)
    except SQLAlchemyError:
        raise
    except Exception:
        log.exception("operation %d (%s) failed", work.operation.id, work.operation.kind)
        return FAILED
    return ""
