"""`berth …` as typed: what it prints, where, and its exit status; on a simulated host and a real database."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "a berth for everyone"


@dataclass
class Said:
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


Berth = Callable[..., Said]


@pytest.fixture
def environment(fresh_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with Berth's tables, nothing in it and nothing running."""
    for name in ("REDIS_URL", "REDIS_AGENT_URL", "BERTH_LXD", "BERTH_SLOT", "PORT", "BERTH_HTTPS"):
        monkeypatch.delenv(name, raising=False)
    plain = fresh_db.replace("postgresql+psycopg://", "postgresql://")
    for name, value in {"DATABASE_URL": plain, "BERTH_DATA": str(tmp_path), "BERTH_TZ": "Asia/Shanghai"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def berth(environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Berth:
    """Run a command as the console script does; `stdin` is what is piped in."""

    def run(*arguments: str, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Said(int(end.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def lab(berth: Berth) -> Berth:
    """A simulated host and one person with hours."""
    assert berth("host", "add", "ws1", "--lxd", "sim:").status == 0
    assert berth("user", "add", "liwei", "--password-stdin", stdin=f"{PASSWORD}\n").status == 0
    assert berth("quota", "grant", "liwei", "100").status == 0
    return berth


@pytest.fixture
def engine(fresh_db: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(fresh_db)
    yield made
    made.dispose()


def actors(engine: sa.Engine) -> set[str]:
    """Who did what is on record, but for the agents' own work."""
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT actor FROM audit_events WHERE actor NOT LIKE 'agent:%'"))
        return {actor for (actor,) in found}


def book_now(engine: sa.Engine, later: timedelta = timedelta(0)) -> None:
    """Two of ws1's GPUs for liwei, two hours ago to in an hour, one of them attached an hour ago; all that `later`."""
    now = datetime.now(UTC) + later
    span = {"s": now - timedelta(hours=2), "e": now + timedelta(hours=1), "a": now - timedelta(hours=1)}
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "WITH b AS (INSERT INTO bookings (user_id, account_id, host_id, starts_at, ends_at, booked_until)"
                " SELECT users.id, account_id, hosts.id, :s, :e, :e FROM users, hosts RETURNING id)"
                " INSERT INTO allocations (booking_id, gpu_id, starts_at, ends_at, attached_at)"
                " SELECT b.id, gpus.id, :s, :e, CASE WHEN minor = 0 THEN CAST(:a AS timestamptz) END"
                " FROM b, gpus WHERE minor < 2"
            ),
            span,
        )
