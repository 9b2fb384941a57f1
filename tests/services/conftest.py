"""What several tests of services have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_core
from app.extensions import db, transaction
from app.models import Host, User
from app.services import policy
from tests.conftest import settings_for
from tests.factories import make_host, make_user

NOW = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)  # 22:00 in the lab

Freeze = Callable[[datetime], None]


@pytest.fixture
def host(app: Flask, freeze: Freeze) -> Host:
    freeze(NOW)
    policy.current().grace_seconds = 20
    return make_host("lab03")


@pytest.fixture
def alice(host: Host) -> User:
    return make_user("alice", hours=100)


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Iterator[Flask]:
    app = create_core(settings_for(fresh_db, tmp_path))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def aside(core: Flask) -> Iterator[Callable[..., Future[Any]]]:
    """`aside(function, …)` calls it in a transaction of its own, beside the test."""
    with ThreadPoolExecutor() as pool:

        def run(function: Callable[..., Any], *values: Any) -> Any:
            with core.app_context(), transaction():
                return function(*values)

        yield lambda function, *values: pool.submit(run, function, *values)


def waits(core: Flask, number: int = 1) -> None:
    """Until so many transactions wait for a lock."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    pause = Event()
    with core.app_context(), db.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for _ in range(500):
            if (connection.scalar(query) or 0) >= number:
                return
            pause.wait(0.01)
    raise AssertionError("nobody waits")
