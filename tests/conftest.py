"""What every test may ask for: a real database that forgets, the application, a client that checks every page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from flask import Flask

from app import clock, create_app
from app.config import Settings
from app.extensions import db
from app.services import passwords
from tests import compiled, postgres
from tests.page import Client

pytest_plugins = ["tests.lab.fixtures"]  # a real LXD, for tests marked lab

_server = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """With pytest-xdist the one server must be there before the workers are."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        _server.enter_context(postgres.server())


def pytest_unconfigure() -> None:
    _server.close()


@pytest.fixture(scope="session", autouse=True)
def real_hasher() -> Iterator[PasswordHasher]:
    """What hashes people's passwords; the tests' own are hashed cheaply, since many of them sign in."""
    real = passwords._hasher
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    yield real
    passwords._hasher = real


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        compiled.once(patch)
        yield


@pytest.fixture(scope="session")
def admin_url() -> str:
    """An admin's address of the PostgreSQL server, for tests that make databases themselves."""
    return _server.enter_context(postgres.server())


@pytest.fixture(scope="session")
def template(admin_url: str) -> Iterator[str]:
    with postgres.migrated(admin_url) as name:
        yield name


@pytest.fixture
def fresh_db(admin_url: str, template: str) -> Iterator[str]:
    """The address of a migrated database that nobody else uses: for real commits, threads and processes."""
    with postgres.database(admin_url, template) as url:
        yield url


@pytest.fixture(scope="session")
def shared_db(admin_url: str, template: str) -> Iterator[str]:
    with postgres.database(admin_url, template) as url:
        yield url


@pytest.fixture(scope="session")
def shared_engine(shared_db: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(shared_db)
    yield engine
    engine.dispose()


hypothesis.settings.register_profile("berth", deadline=None)  # what a busy machine takes is no counter-example
hypothesis.settings.load_profile("berth")


def settings_for(database_url: str, data_dir: Path, **changes: str) -> Settings:
    """Settings as from the environment; `changes` by the variables' names."""
    environment = {
        "DATABASE_URL": database_url,
        "BERTH_DATA": str(data_dir),
        "BERTH_TZ": "Asia/Shanghai",
        "BERTH_RATE_LIMITS": "0",
        "SECRET_KEY": "only for tests",
    }
    return Settings.load(environment | changes)


@pytest.fixture
def settings(shared_db: str, tmp_path: Path) -> Settings:
    """The settings that `app` runs with; a test module may override this fixture (see `settings_for`)."""
    return settings_for(shared_db, tmp_path)


@pytest.fixture
def app(settings: Settings, shared_engine: sa.Engine) -> Iterator[Flask]:
    """The application, its context pushed for the test. Whatever is committed is rolled back after the test.

    A test and the requests of its client have sessions of their own, as in real life, on one connection.
    """
    application = create_app(settings)
    application.testing = True
    application.config["PROPAGATE_EXCEPTIONS"] = False  # as in real life: the error page
    with shared_engine.connect() as connection, connection.begin() as outer, application.app_context():
        db.session.configure(join_transaction_mode="create_savepoint")
        db.engines[None] = connection  # type: ignore[assignment] - a connection does what sessions ask of an engine
        yield application
        db.session.remove()
        outer.rollback()


@pytest.fixture
def client(app: Flask) -> Client:
    """A browser without JavaScript that complains about every page that breaks a rule of the house."""
    return Client(app)


@pytest.fixture
def freeze() -> Iterator[Callable[[datetime], None]]:
    """`freeze(moment)` holds the clock still until the test ends, or until the next `freeze`."""
    with ExitStack() as stack:

        def hold(moment: datetime) -> None:
            stack.close()
            stack.enter_context(clock.frozen(moment))

        yield hold


@pytest.fixture
def count_queries(shared_engine: sa.Engine) -> Callable[[], Any]:
    """`with count_queries() as queries:` collects the statements that are run inside; savepoints do not count."""

    @contextmanager
    def counting() -> Iterator[list[str]]:
        seen: list[str] = []

        def note(_c: Any, _cur: Any, statement: str, *_rest: Any) -> None:
            seen.append(statement)

        sa.event.listen(shared_engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            sa.event.remove(shared_engine, "before_cursor_execute", note)

    return counting
