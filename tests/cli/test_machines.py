"""Machines: made and switched, with and without an agent."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.config import Settings
from app.drivers.fake import FakeLxd
from app.drivers.libraries import Way
from app.services import accounts
from tests.cli.conftest import ROOT, Berth, actors
from tests.page import Client
from tests.web.test_visits import lines


def test_a_machine_is_made_and_switched_without_an_agent(lab: Berth, engine: sa.Engine) -> None:
    made = lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei", "--json")
    assert made.status == 0, made.err
    assert "doing the work from here" in made.err
    assert (made.json()["status"], made.json()["owner"]) == ("running", "liwei")
    assert lab("instance", "stop", "m1", "--json").json()["status"] == "stopped"
    assert lab("instance", "start", "m1").out == "m1 runs.\n"
    assert [one["name"] for one in lab("instance", "list", "--host", "ws1", "--json").json()] == ["m1"]
    assert told_of_m1() == [f"somebody at the command line {what} it" for what in ("started", "stopped")]
    assert lab("instance", "delete", "m1").status == 0
    assert lab("instance", "list", "--json").json() == []
    assert lab("instance", "start", "m1").status == 1
    assert actors(engine) == {"cli"}


def test_the_option_that_cannot_be_meant_is_named(lab: Berth) -> None:
    asked = ("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    for option, value in {"--cpus": "-1", "--memory": "0", "--disk": "9" * 30}.items():
        refused = lab(*asked, option, value)
        assert (refused.status, refused.out) == (1, "")
        assert f"{option}: This must be a whole number from 1 to " in refused.err
    refused = lab("token", "create", "liwei", "--name", "two\nlines")
    assert refused.err.startswith("--name: Give the token a name of one line"), refused.err
    assert lab("quota", "grant", "liwei", "0").err.startswith("The hours must be a number"), (
        "an argument says it itself"
    )


def test_a_backup_is_written_into_a_directory_that_is_there(lab: Berth, tmp_path: Path, engine: sa.Engine) -> None:
    lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    (tmp_path / "file").touch()
    for output in (tmp_path / "no" / "x", tmp_path / "file" / "x"):
        refused = lab("instance", "backup", "m1", "--output", str(output))
        assert (refused.status, refused.out) == (2, "")
        assert f"There is no directory {output.parent} to write x into." in refused.err
    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT DISTINCT kind FROM operations")).all() == ["create"], "none was asked"


def told_of_m1() -> list[str]:
    """What stands on its owner's page of what others did."""
    from app import create_app

    portal = create_app(Settings.load())
    with portal.app_context():
        return lines(Client(portal), accounts.get("liwei"), "m1")


def test_an_agent_that_is_alive_does_the_work(
    lab: Berth, engine: sa.Engine, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_TICK", "1")
    with (environment / "agent.log").open("wb") as log:
        agent = subprocess.Popen([sys.executable, "-m", "app.cli", "agent", "ws1"], cwd=ROOT, stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 120
        while lab("host", "list", "--json").json()[0]["agent_seen_seconds_ago"] is None:
            assert time.monotonic() < deadline, (environment / "agent.log").read_text()
            assert agent.poll() is None, (environment / "agent.log").read_text()
        made = lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
        assert (made.status, made.out, made.err) == (0, "m1 runs on ws1.\n", "")
        _placed_moved_and_made_with_an_approval(lab, engine)
    finally:
        agent.terminate()
        agent.wait(30)
    with engine.connect() as connection:
        done = connection.execute(sa.text("SELECT actor FROM audit_events WHERE action = 'instance.create'"))
        assert {actor for (actor,) in done} == {"agent:ws1"}
    assert actors(engine) == {"cli", "system"}


def test_a_machine_is_given_the_hosts_libraries(lab: Berth, environment: Path) -> None:
    made = lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    assert made.status == 0, made.err
    refused = lab("instance", "libraries", "m1")
    assert (refused.status, refused.out) == (1, "")
    assert "this host brings no libraries into machines" in refused.err
    host = FakeLxd(environment / "sim" / "ws1.json", pace=0)
    host.bring_libraries(Way.RUNTIME)
    assert "from its next start on: berth instance stop m1; berth inst" in lab("instance", "libraries", "m1").out
    given = lab("instance", "libraries", "m1", "--json")
    assert (given.status, given.json()["libraries_due"], given.json()["name"]) == (0, True, "m1"), given.err
    host.bring_libraries(Way.MOUNT)
    assert lab("instance", "libraries", "m1").out == "m1 has the host's NVIDIA libraries.\n"
    assert lab("instance", "libraries", "m1", "--json").json()["libraries_due"] is False
    assert "gave it the host's NVIDIA libraries" in told_of_m1()[0]


def _placed_moved_and_made_with_an_approval(lab: Berth, engine: sa.Engine) -> None:
    assert lab("template", "take", "base", "--name", "base", "--host", "ws1").status == 0
    placed = lab("instance", "create", "m2", "--template", "base", "--owner", "liwei")
    assert (placed.status, placed.out) == (0, "m2 runs on ws1.\n"), placed.err
    huge = lab("instance", "create", "m3", "--template", "base", "--owner", "liwei", "--memory", "999")
    assert (huge.status, huge.out) == (1, "")
    assert "No host has room for a machine of this size from base. ws1 has" in huge.err
    named = ("--host", "ws1", "--image", "base", "--owner", "liwei")
    crowded = lab("instance", "create", "m4", *named, "--memory", "999")
    assert (crowded.status, "GiB of memory free" in crowded.err) == (0, True), "who names the host has it there"
    assert lab("instance", "delete", "m4").status == 0
    assert lab("instance", "create", "m3", "--image", "base", "--owner", "liwei").status == 2
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO users (username, password_hash) VALUES ('chenyu', 'x'), ('amara', 'x')")
        )
    approved = lab("user", "approve", "chenyu", "--template", "base")
    assert approved.out.splitlines()[-1] == "chenyu runs on ws1.", approved.err
    refused = lab("user", "approve", "amara", "--template", "nothing")
    assert (refused.status, refused.out.partition(",")[0]) == (1, "amara can sign in")
    assert refused.err == "amara has no machine yet. No host offers the template nothing.\n"
    assert lab("host", "add", "ws2", "--lxd", "sim:").status == 0
    moved = lab("instance", "move", "m2", "ws2", "--json")
    assert (moved.json()["host"], moved.json()["status"]) == ("ws2", "running"), moved.err
    assert "m2 is there already" in lab("instance", "move", "m2", "ws2").err


@pytest.mark.parametrize(
    "change",
    [("--host", "nope"), ("--image", "nope"), ("--owner", "nope"), ("--cpus", "0"), ("--memory", "-1")],
)
def test_a_machine_that_cannot_be_made(lab: Berth, change: tuple[str, str]) -> None:
    wanted = {"--host": "ws1", "--image": "base", "--owner": "liwei"} | dict([change])
    refused = lab("instance", "create", "m1", *(part for option in wanted.items() for part in option))
    assert (refused.status, refused.out, len(refused.err.splitlines())) == (1, "", 1)
    assert lab("instance", "list", "--json").json() == []


def test_a_machines_disk_is_written_into_a_file(lab: Berth, environment: Path, engine: sa.Engine) -> None:
    file = environment / "out" / "m1.tar.gz"
    file.parent.mkdir()
    assert lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei").status == 0
    assert lab("instance", "backup", "m1", "--snapshot", "nope", "--output", str(file)).status == 1
    made = lab("instance", "backup", "m1", "--output", str(file))
    assert made.status == 0, made.err
    assert f"lxc import {file}" in made.out
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["backup/README"]
    assert [path.name for path in file.parent.iterdir()] == ["m1.tar.gz"]
    again = lab("instance", "backup", "m1", "--output", str(file))
    assert again.status == 2
    assert "exists already" in again.err
    assert actors(engine) == {"cli"}
