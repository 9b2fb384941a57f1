"""How transactions end: what only read leaves its statements prepared, what changed something is undone."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
import sqlalchemy as sa

from app import extensions  # noqa: F401 - it listens to every engine

PREPARED = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 4711'")
INSERT, COUNT, WRONG = (
    sa.text(sql) for sql in ("INSERT INTO kept VALUES (1)", "SELECT count(*) FROM kept", "SELECT x")
)


@pytest.fixture
def engine(shared_db: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(shared_db, pool_size=1, max_overflow=0)  # each request on the one connection
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE kept (number int)"))
    yield engine
    engine.dispose()


def ask(engine: sa.Engine, *statements: sa.TextClause) -> int:
    """One request that commits nothing; the last answer, 0 for none."""
    with engine.connect() as connection:
        answers = [connection.execute(statement) for statement in statements]
        return (answers[-1].scalar() if answers[-1].returns_rows else 0) or 0


def test_what_only_reads_leaves_its_statements_prepared(engine: sa.Engine) -> None:
    assert [ask(engine, sa.text("SELECT 4711"), PREPARED) for _ in range(8)] == [0] * 5 + [1] * 3


def test_what_was_not_committed_is_undone(engine: sa.Engine) -> None:
    in_a_query = sa.text("WITH one AS (INSERT INTO kept VALUES (2) RETURNING number) SELECT number FROM one")
    for statements in ([INSERT], [COUNT, INSERT], [INSERT, COUNT], [in_a_query]):
        ask(engine, *statements)
        assert ask(engine, COUNT) == 0, statements
    for statements in ([INSERT, WRONG], [WRONG]):
        with suppress(sa.exc.ProgrammingError):
            ask(engine, *statements)
        assert ask(engine, COUNT) == 0
    with engine.begin() as connection:
        connection.execute(INSERT)
    ask(engine, INSERT)
    assert ask(engine, COUNT) == 1


def test_a_connection_that_broke_is_said_once_and_replaced(engine: sa.Engine) -> None:
    for first in ([], [sa.text("CREATE TEMP TABLE another ()")]):
        with pytest.raises(sa.exc.OperationalError):
            ask(engine, *first, sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert ask(engine, sa.text("SELECT 1")) == 1


def test_a_connection_that_the_server_closed_is_replaced_before_anybody_uses_it(
    engine: sa.Engine, shared_db: str
) -> None:
    pid = ask(engine, sa.text("SELECT pg_backend_pid()"))
    assert ask(engine, sa.text("SELECT pg_backend_pid()")) == pid, "one that lives is kept"
    other = sa.create_engine(shared_db)
    gone = sa.text(f"SELECT pg_terminate_backend({pid}, 10000)::int")  # it waits for the end
    assert ask(other, gone) == 1
    other.dispose()
    assert ask(engine, sa.text("SELECT pg_backend_pid()")) != pid
