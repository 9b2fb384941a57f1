"""Hosts, and what a pass would do with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from app.drivers.fake import FakeLxd
from tests.cli.conftest import ROOT, Berth, book_now


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
    (file := tmp_path / "passwd").touch()
    assert f"no socket at {file}" in berth("host", "add", "ws1", "--lxd", str(file)).err
    assert berth("host", "list", "--json").json() == []


def test_one_that_was_added_by_mistake_is_removed(lab: Berth) -> None:
    assert lab("host", "remove", "ws1").out == "ws1 is removed.\n"
    assert "ws1" not in lab("host", "list").out
    assert lab("host", "remove", "ws1").err == "There is no host ws1.\n"


def test_how_nvidias_libraries_come_is_chosen(lab: Berth) -> None:
    said = lab("host", "set", "ws1", "--libraries", "own")
    assert (said.status, said.out.splitlines()[1:]) == (
        0,
        ["NVIDIA's libraries in new machines: own; so far they come by: not known yet."],
    )
    assert lab("host", "set", "ws1", "--libraries", "auto", "--json").json()["libraries"] == "auto"
    assert lab("host", "set", "ws1", "--libraries", "cdi").status == 2


def test_plan_and_one_pass(lab: Berth, engine: sa.Engine, environment: Path) -> None:
    first = lab("plan", "ws1").out.splitlines()
    assert first[0] == "Nothing to do."
    assert first[-2:] == ["No differences.", "no pass yet"]
    book_now(engine)
    steps = lab("plan", "ws1", "--json").json()["steps"]
    assert [(step["do"], step["why"]) for step in steps] == [("wait", "no_machine")] * 2
    lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    steps = lab("plan", "ws1", "--json").json()["steps"]
    assert [(step["do"], step["instance"]) for step in steps] == [("attach", "m1")] * 2
    assert lab("plan", "ws1").out.splitlines()[0].startswith("attach 0000:")
    program = [sys.executable, "-m", "app.cli", "reconcile", "ws1", "--json"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert lab("plan", "ws1", "--json").json()["steps"] == []
    assert lab("plan", "nope").status == 1


def test_plan_says_what_differs(lab: Berth, engine: sa.Engine, environment: Path) -> None:
    book_now(engine)
    fake = FakeLxd(environment / "sim" / "ws1.json")
    fake.add_instance("\x1b[2Jm2")
    fake.plug("\x1b[2Jm2", "mygpu", "0000:02:00.0")
    intruder = {"instance": "m2", "pid": 7, "name": "python", "booked": False, "left_alone": False, "gpus": ["a"]}
    seen = {"scanned": True, "on_host": [], "intruders": [intruder], "doubts": []}
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hosts SET observed = CAST(:seen AS jsonb)"), {"seen": json.dumps(seen)})
    found = lab("plan", "ws1", "--json").json()
    assert [line["code"] for line in found["gpus"]] == ["missing", "foreign", "free", "free"]
    assert [(item["kind"], item["reason"], item["ours"]) for item in found["drift"]] == [
        ("missing", "no_machine", True), ("missing", "no_machine", True), ("foreign", "by_hand", False),
    ]  # fmt: skip
    assert found["intruders"] == [intruder]
    assert found["last_pass"]["seconds_ago"] is None
    text = lab("plan", "ws1").out
    assert "leave alone 0000:02:00.0 ?[2Jm2" in text.splitlines()
    assert "without a booking: python (7) has a in m2" in text
    assert any(
        line.split() == ["0000:02:00.0", "foreign", "?", "(booking", "1)", "?[2Jm2"] for line in text.splitlines()
    )


def test_a_gpu_is_released_from_quarantine(lab: Berth, engine: sa.Engine) -> None:
    query = "UPDATE gpus SET state = 'quarantine', quarantined_at = now(), quarantine_reason = 'pid 7' WHERE minor = 1"
    with engine.begin() as connection:
        connection.execute(sa.text(query))
        connection.execute(sa.text("UPDATE gpus SET state = 'maintenance' WHERE minor = 2"))
    held = [gpu for gpu in lab("gpu", "list", "--json").json() if gpu["state"] == "quarantine"]
    assert [(gpu["minor"], gpu["reason"]) for gpu in held] == [(1, "pid 7")]
    assert held[0]["quarantined_at"]
    assert lab("plan", "ws1", "--json").json()["quarantine"] == held
    assert "in quarantine since" in lab("plan", "ws1").out
    released = lab("gpu", "release", "ws1", "02:00.0", "--how", "looked with fuser")
    assert (released.status, released.out) == (0, "GPU 1 of ws1 is released from quarantine.\n")
    assert lab("gpu", "release", "ws1", "0000:02:00.0").out == "GPU 1 of ws1 is not in quarantine.\n"
    assert [gpu["state"] for gpu in lab("gpu", "list", "--host", "ws1", "--json").json()][1] == "in_service"
    with engine.connect() as connection:
        how = sa.text("SELECT actor, details->>'how' FROM audit_events WHERE action = 'gpu.released'")
        assert connection.execute(how).one() == ("cli", "looked with fuser")
    assert lab("gpu", "release", "ws1", "0000:03:00.0").status == 1, "it is out of service"
    assert lab("gpu", "release", "ws1", "0000:0f:00.0").status == 1
    assert lab("gpu", "release", "ws1", "all").status == 2
    assert lab("gpu", "list", "--host", "nope").status == 1


def test_the_desktop_of_the_host_itself(lab: Berth) -> None:
    assert lab("host", "set", "ws1", "--desktop", "3389", "--json").json()["desktop"] == 3389
    refused = lab("host", "set", "ws1", "--desktop", "22001")
    assert refused.status == 1
    assert "for people's machines" in refused.err
    assert lab("host", "set", "ws1", "--desktop", "0", "--json").json()["desktop"] is None
