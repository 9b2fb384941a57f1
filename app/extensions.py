"""The Flask extensions, empty here and bound in `create_app`, the one way to commit, and the lab's zone.

Also what is said to whoever types a command where the database is of no use."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from flask import current_app
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_sqlalchemy import SQLAlchemy
from flask_wtf.csrf import CSRFProtect
from psycopg.pq import Format, TransactionStatus
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import InvalidatePoolError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from app.config import Settings
from app.language import Languages

# expire_on_commit off: what was loaded stays readable after the edge has committed, without more queries.
db = SQLAlchemy(session_options={"expire_on_commit": False})
login = LoginManager()
csrf = CSRFProtect()
babel = Languages()
limiter = Limiter(key_func=get_remote_address, default_limits=[])

NOT_RUNNING = "Berth is not running: start it with `make run`, or set DATABASE_URL."


def settings() -> Settings:
    """What this installation chose, of the app that we run in."""
    found: Settings = current_app.extensions["berth"]
    return found


def lab_zone() -> ZoneInfo:
    """The lab's zone: by its clock days, weeks, months and peak hours are counted. The portal's own; who is not the
    portal asks what it wrote down, now and then, and needs the database for that."""
    found: ZoneInfo = current_app.extensions["zone"]()
    return found


# In the place of SQLAlchemy's pool_pre_ping, which asks the server before each page: that took a tenth of a small one.
@event.listens_for(Pool, "checkout")
def _replace_broken(connection: Any, _record: Any, _proxy: Any) -> None:
    """What a server says unasked is that it goes; of one that went without a word the connection has ended."""
    if isinstance(connection, psycopg.Connection) and (connection.closed or _has_come(connection.fileno())):
        raise InvalidatePoolError


def _has_come(socket: int) -> bool:
    poll = select.poll()  # select.select knows the first thousand files only
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


# At a ROLLBACK psycopg drops what it has prepared, and every request that only reads ends with one: all would be
# planned anew, a third of what PostgreSQL does for a page. What has only read ends with a COMMIT just as well.
@event.listens_for(Engine, "before_cursor_execute")
def _note_change(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
    if not statement.startswith("SELECT"):
        connection.info["changed"] = True


@event.listens_for(Engine, "commit")
def _forget_change(connection: Connection) -> None:
    connection.info.pop("changed", None)


@event.listens_for(Engine, "rollback")
def _end_reading(connection: Connection) -> None:
    if connection.invalidated:  # it broke: there is nothing to end
        return
    changed, raw = connection.info.pop("changed", False), connection.connection.dbapi_connection
    if not changed and isinstance(raw, psycopg.Connection) and raw.info.transaction_status == TransactionStatus.INTRANS:
        with suppress(psycopg.Error):  # the ROLLBACK that follows says it
            raw.commit()


@event.listens_for(Engine, "before_cursor_execute")
def _read_binary(
    _connection: Connection, cursor: Any, _statement: str, _values: Any, context: Any, *_rest: Any
) -> None:
    """What a statement with `binary=True` answers is not written as text and read again: for moments by the thousand,
    that takes a third of the time."""
    if context is not None and context.execution_options.get("binary"):
        cursor.format = Format.BINARY


@contextmanager
def transaction() -> Iterator[Session]:
    """One database transaction, opened at an edge (a route, a command, a phase of a pass).

    Commits when the block ends, rolls back when it raises. Services flush and never commit.
    """
    session: Session = db.session()
    try:
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise


def database_trouble(error: SQLAlchemyError) -> str:
    """Why the database is of no use, and what to do: without SQL, for whoever types a command."""
    if isinstance(error, OperationalError):
        named = "Berth's database does not answer. Check DATABASE_URL, and that the server there is up."
        return named if os.environ.get("DATABASE_URL") else NOT_RUNNING
    if isinstance(error, ProgrammingError):
        return "The database's tables are not those of this version. Start Berth once: it brings them up to date."
    return f"The database refused this: {type(getattr(error, 'orig', None) or error).__name__}."
