"""When something is missing or typed wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import ROOT, Berth


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


def test_a_database_without_tables(berth: Berth, engine: sa.Engine, environment: Path) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    said = berth("user", "list")
    assert (said.status, said.out, len(said.err.splitlines())) == (1, "", 1)
    assert [one["what"] for one in berth("doctor", "--json").json() if not one["ok"]][:1] == ["schema"]
    assert (berth("holders", "ws1").status, said.err in berth("holders", "ws1").err) == (1, True)
    for command in ("agent", "reconcile"):
        assert as_typed(command, "ws1") == (1, "", f"agent of ws1: {said.err}")
    (environment / "agents").mkdir()
    (environment / "agents" / "ws1.endpoint").write_text("sim:")  # as an agent that ran kept it
    assert berth("holders", "ws1").err == f"{said.err.strip()} What is booked is not known.\n"
    status, _out, err = as_typed("reconcile", "ws1")
    assert (status, err.splitlines()[-1], "SELECT" in err, "sqlalche.me" in err) == (1, said.err.strip(), False, False)


def test_an_agent_that_knows_its_host_from_nowhere_says_what_to_do(
    berth: Berth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/nothing?host=/nonexistent")
    said = berth("user", "list")
    assert "Check DATABASE_URL" in said.err
    assert as_typed("agent", "ws1") == (1, "", f"agent of ws1: {said.err}")


def as_typed(*arguments: str) -> tuple[int, str, str]:
    """What a command says that takes this process's place."""
    program = [sys.executable, "-m", "app.cli", *arguments]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_bad_usage_and_bad_settings(berth: Berth, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("bogus",), ("host",), ("host", "add"), ("host", "list", "--bogus"), ("quota", "grant", "liwei")):
        said = berth(*arguments)
        assert (said.status, said.out) == (2, ""), arguments
    assert berth("--help").status == 0
    monkeypatch.setenv("BERTH_SLOT", "often")
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("REDIS_AGENT_URL", "nonsense")
    said = berth("host", "list")
    assert said.status == 2
    assert "BERTH_SLOT" in said.err
    assert "PORT" in said.err
    assert "REDIS_AGENT_URL: must start with redis://" in said.err
    assert "REDIS_URL" not in said.err
    monkeypatch.delenv("REDIS_AGENT_URL")
    monkeypatch.setenv("REDIS_URL", "http://x")
    said = berth("host", "list")
    assert ("REDIS_URL: " in said.err, "REDIS_AGENT_URL" in said.err) == (True, False)


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
