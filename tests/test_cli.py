"""`berth …` as typed: what it prints, where, and its exit status; on a simulated host and a real database."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.cli import main
from app.config import Settings

ROOT = Path(__file__).resolve().parent.parent
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


def book_now(engine: sa.Engine) -> None:
    """Two of ws1's GPUs for liwei, two hours ago to in an hour, one of them attached an hour ago."""
    now = datetime.now(UTC)
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


def test_a_host_is_taken_in_with_its_gpus(berth: Berth) -> None:
    added = berth("host", "add", "ws1", "--lxd", "sim:", "--json")
    assert added.status == 0
    assert [gpu["minor"] for gpu in added.json()["gpus"]] == [0, 1, 2, 3]
    assert added.json()["gpus"][0].keys() >= {"id", "model", "pci_address", "minor"}
    assert berth("host", "sync", "ws1").out.startswith("ws1: ")
    [host] = berth("host", "list", "--json").json()
    assert (host["name"], host["gpus"], host["agent_seen_seconds_ago"]) == ("ws1", 4, None)
    again = berth("host", "add", "ws1", "--lxd", "sim:")
    assert (again.status, again.out) == (1, "")
    assert "already" in again.err


def test_an_lxd_that_is_away_is_not_taken_in(berth: Berth, tmp_path: Path) -> None:
    refused = berth("host", "add", "ws1", "--lxd", str(tmp_path / "no.socket"))
    assert (refused.status, refused.out) == (1, "")
    assert "no.socket" in refused.err
    assert len(refused.err.splitlines()) <= 2
    assert berth("host", "list", "--json").json() == []


def test_people(berth: Berth) -> None:
    assert berth("user", "add", "boss", "--admin", "--password-stdin", stdin=f"{PASSWORD}\n").status == 0
    assert berth("user", "add", "liwei", "--password-stdin", "--hours", "5", stdin=PASSWORD).status == 0
    found = {user["username"]: user for user in berth("user", "list", "--json").json()}
    assert (found["boss"]["role"], found["liwei"]["role"]) == ("admin", "user")
    assert (found["boss"]["state"], found["liwei"]["free_hours"]) == ("active", 5.0)
    assert "liwei" in berth("user", "list").out
    for stdin in ("", "\n", "short\n"):
        refused = berth("user", "add", "other", "--password-stdin", stdin=stdin)
        assert (refused.status, refused.out) == (1, "")
    assert berth("user", "add", "liwei", "--password-stdin", stdin=PASSWORD).status == 1
    assert berth("user", "add", "other").status == 2


def test_who_waits_is_approved(berth: Berth, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO users (username, password_hash) VALUES ('chenyu', 'x'), ('amara', 'x')"))
    assert berth("user", "approve", "chenyu", "--hours", "12").status == 0
    assert berth("user", "approve", "amara").status == 0
    found = {user["username"]: user for user in berth("user", "list", "--json").json()}
    assert (found["chenyu"]["state"], found["chenyu"]["free_hours"], found["amara"]["free_hours"]) == ("active", 12, 100)
    assert berth("user", "approve", "chenyu").status == 1
    assert berth("user", "approve", "nobody").status == 1


def test_a_token_alone_and_what_it_opens(lab: Berth, environment: Path) -> None:
    from app import create_app

    said = lab("token", "create", "liwei")
    assert (said.status, said.err) == (0, "")
    [token] = said.out.splitlines()
    client = create_app(Settings.load()).test_client()
    answer = client.get("/api/v1/quota", headers={"Authorization": f"Bearer {token}"})
    assert answer.json == {"granted": 100.0, "held": 0.0, "used": 0.0, "free": 100.0}
    assert lab("token", "create", "liwei", "--json").json()["scopes"] == ["read", "book"]
    assert lab("token", "create", "liwei", "--scope", "admin").status == 1
    assert lab("token", "create", "liwei", "--scope", "root").status == 2
    assert lab("token", "create", "nobody").status == 1


def test_quota_is_added_and_taken(lab: Berth) -> None:
    assert lab("quota", "grant", "liwei", "-30.5", "--json").json() == {"account": "liwei", "granted": -30.5, "free": 69.5}
    assert lab("quota", "grant", "nobody", "1").status == 1
    assert lab("quota", "grant", "liwei", "0").status == 1
    assert lab("quota", "grant", "liwei", "nan").status == 1
    assert lab("quota", "grant", "liwei", "inf").status == 1
    assert lab("quota", "grant", "liwei", "many").status == 2


def test_a_machine_is_made_and_switched_without_an_agent(lab: Berth) -> None:
    made = lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei", "--json")
    assert made.status == 0, made.err
    assert "doing the work from here" in made.err
    assert (made.json()["status"], made.json()["owner"]) == ("running", "liwei")
    assert lab("instance", "stop", "m1", "--json").json()["status"] == "stopped"
    assert lab("instance", "start", "m1").out == "m1 runs.\n"
    assert [one["name"] for one in lab("instance", "list", "--host", "ws1", "--json").json()] == ["m1"]
    assert lab("instance", "delete", "m1").status == 0
    assert lab("instance", "list", "--json").json() == []
    assert lab("instance", "start", "m1").status == 1


@pytest.mark.parametrize(
    "change",
    [("--host", "nope"), ("--image", "nope"), ("--owner", "nope"), ("--cpus", "0"), ("--memory", "-1")],
)
def test_a_machine_that_cannot_be_made(lab: Berth, change: tuple[str, str]) -> None:
    wanted = {"--host": "ws1", "--image": "base", "--owner": "liwei"} | dict([change])
    refused = lab("instance", "create", "m1", *(part for option in wanted.items() for part in option))
    assert (refused.status, refused.out, len(refused.err.splitlines())) == (1, "", 1)
    assert lab("instance", "list", "--json").json() == []


def test_plan_and_one_pass(lab: Berth, engine: sa.Engine, environment: Path) -> None:
    assert lab("plan", "ws1").out == "Nothing to do.\n"
    book_now(engine)
    steps = lab("plan", "ws1", "--json").json()
    assert [(step["do"], step["why"]) for step in steps] == [("wait", "no_machine")] * 2
    lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    steps = lab("plan", "ws1", "--json").json()
    assert [(step["do"], step["instance"]) for step in steps] == [("attach", "m1")] * 2
    assert lab("plan", "ws1").out.splitlines()[0].startswith("attach 0000:")
    program = [sys.executable, "-m", "app.cli", "reconcile", "ws1", "--json"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert lab("plan", "ws1", "--json").json() == []
    assert lab("plan", "nope").status == 1


def test_the_report_adds_up_by_person(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    [row] = lab("report", "--json").json()
    assert (row["user"], row["bookings"], row["reserved_hours"], row["attached_hours"]) == ("liwei", 1, 4.0, 1.0)
    [line] = csv.DictReader(io.StringIO(lab("report", "--format", "csv").out))
    assert (line["user"], float(line["reserved_hours"])) == ("liwei", 4.0)
    assert "RESERVED HOURS" in lab("report").out
    assert lab("report", "--from", "2026-01-01", "--to", "2026-01-02", "--json").json() == []
    for wrong in (("--from", "yesterday"), ("--from", "2026-01-02", "--to", "2026-01-01"), ("--format", "xls")):
        assert lab("report", *wrong).status == 2


def test_names_steer_neither_the_terminal_nor_a_spreadsheet(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE users SET full_name = :name"), {"name": "=1+1\x9b31m\u202e"})
    assert "\x9b" not in lab("report").out
    assert "\u202e" not in lab("user", "list").out
    [line] = csv.DictReader(io.StringIO(lab("report", "--format", "csv").out))
    assert line["name"].startswith("'=1+1")


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(lab: Berth, engine: sa.Engine) -> None:
    found = {one["what"]: one for one in lab("doctor", "--json").json()}
    assert lab("doctor").status == 1
    assert found["database"]["ok"]
    assert found["schema"]["ok"]
    assert found["ws1: LXD"]["ok"]
    assert found["ws1: GPUs"]["ok"]
    wrong = [name for name, one in found.items() if not one["ok"]]
    assert wrong == ["valkey", "ws1: agent"]
    assert all(found[name]["fix"] for name in wrong)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE gpus SET pci_address = '0000:ff:00.0' WHERE minor = 0"))
        connection.execute(sa.text("UPDATE hosts SET seen_at = now()"))
    assert [one["what"] for one in lab("doctor", "--json").json() if not one["ok"]] == ["valkey", "ws1: GPUs"]


def test_the_doctor_without_a_database(berth: Berth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/nothing?host=/nonexistent")
    said = berth("doctor")
    assert said.status == 1
    assert "FAIL database: not reachable" in said.out
    monkeypatch.delenv("DATABASE_URL")
    said = berth("doctor")
    assert (said.status, "make run" in said.out) == (1, True)


def test_without_berth_running(berth: Berth, monkeypatch: pytest.MonkeyPatch, environment: Path) -> None:
    monkeypatch.delenv("DATABASE_URL")
    said = berth("host", "list")
    assert (said.status, said.out) == (1, "")
    assert said.err == "Berth is not running: start it with `make run`, or set DATABASE_URL.\n"
    run = environment / "run"  # what a killed Berth leaves behind
    run.mkdir()
    gone = {"database_url": "postgresql://nobody@/nothing?host=/nonexistent"}
    (run / "services.json").write_text(json.dumps(gone))
    assert berth("host", "list").err == said.err
    monkeypatch.setenv("DATABASE_URL", gone["database_url"])
    assert "DATABASE_URL" in berth("host", "list").err


def test_a_database_without_tables(berth: Berth, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    said = berth("user", "list")
    assert (said.status, said.out, len(said.err.splitlines())) == (1, "", 1)
    assert [one["what"] for one in berth("doctor", "--json").json() if not one["ok"]][:1] == ["schema"]


def test_bad_usage_and_bad_settings(berth: Berth, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("bogus",), ("host",), ("host", "add"), ("host", "list", "--bogus"), ("quota", "grant", "liwei")):
        said = berth(*arguments)
        assert (said.status, said.out) == (2, ""), arguments
    assert berth("--help").status == 0
    monkeypatch.setenv("BERTH_SLOT", "often")
    monkeypatch.setenv("PORT", "0")
    said = berth("host", "list")
    assert said.status == 2
    assert "BERTH_SLOT" in said.err
    assert "PORT" in said.err


def test_every_command_has_help(berth: Berth) -> None:
    import click

    from app.cli import cli

    def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        assert command.help, path
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))

    paths = list(walk(cli, ()))
    promised = """up, agent, reconcile, plan, doctor, report, host add, host list, host sync, user add, user approve,
        user list, token create, quota grant, instance create, instance list, instance start, instance stop,
        instance delete"""
    assert {tuple(path.split()) for path in promised.split(",")} <= set(paths)
    for path in paths:
        said = berth(*path, "--help")
        assert (said.status, said.err) == (0, "")
        assert said.out.startswith("Usage: berth")
