"""Hosts, and what a pass would do with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

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
    assert berth("host", "list", "--json").json() == []


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
