"""`berth host init` as typed: the plan, doing it, and its exit status, on a workstation on paper."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.cli import init
from app.services.hostinit import firewall
from app.services.hostinit.services import RULES
from tests.cli.conftest import Berth
from tests.services.hostinit.paper import PaperSystem


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PaperSystem:
    paper = PaperSystem(
        tmp_path / "root", "ubuntu", REDIS_AGENT_URL="redis://cache/0", DATABASE_URL="postgresql://db/x"
    )
    monkeypatch.setattr(init, "System", lambda: paper)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return paper


def test_it_says_first_and_does_it_when_told(berth: Berth, system: PaperSystem) -> None:
    planned = berth("host", "init", "--name", "lab01", "--loop", "20")
    assert planned.status == 0
    assert "snap install lxd" in planned.out
    assert planned.out.splitlines()[-1] == "Nothing was changed. To do it: the same command with --yes, as root."
    assert system.ran == []
    assert berth("host", "init", "--name", "lab01", "--loop", "20", "--yes", "--dry-run").status == 0
    assert system.ran == []
    done = berth("host", "init", "--name", "lab01", "--loop", "20", "--yes", "--json")
    assert {row["state"] for row in done.json()} == {"done"}
    assert done.status == 0
    assert system.hosts == {"lab01": "22000-22999"}
    again = berth("host", "init", "--name", "lab01", "--yes", "--json")
    assert {row["state"] for row in again.json()} == {"already so"}


def test_the_storage_and_why_it_is_no_other_are_in_the_plan_and_in_json(berth: Berth, system: PaperSystem) -> None:
    system._snap([])
    system.lxd[""]["environment"]["storage_supported_drivers"] = [{"Name": "btrfs"}]
    why = "It takes btrfs and not zfs: the kernel has no module zfs"
    assert f"     {why}" in berth("host", "init", "--name", "lab01", "--loop", "20").out.splitlines()
    done = berth("host", "init", "--name", "lab01", "--loop", "20", "--yes", "--json").json()
    (pool,) = (row for row in done if row["step"] == "storage pool")
    assert (pool["state"], pool["lines"], pool["notes"][0]) == ("done", ["berth (btrfs)"], why)
    assert [row["notes"] for row in done if row is not pool] == [[]] * (len(done) - 1)
    refused = berth("host", "init", "--name", "lab01", "--loop", "20", "--storage", "zfs")
    assert refused.status == 1
    assert "berth is of btrfs, not of zfs" in refused.out
    assert berth("host", "init", "--storage", "dir").status == 2


def test_what_a_later_call_does_not_say_of_the_firewall_stays(berth: Berth, system: PaperSystem) -> None:
    def init(*options: str) -> tuple[str, dict[str, str]]:
        said = berth("host", "init", "--name", "lab01", *options).out
        rules = system.read(RULES)
        assert rules is not None
        return rules, {line.split(":")[0]: line for line in said.splitlines()}

    networks = ("--allow", "10.20.0.0/16", "--allow", "10.30.0.0/16", "--deny", "192.0.2.0/24")
    first, said = init("--loop", "20", *networks, "--rate", "500", "--yes")
    assert "As before" not in said
    same, said = init("--yes")
    assert same == first
    assert said["As before"] == "As before: --allow 10.20.0.0/16 --allow 10.30.0.0/16 --deny 192.0.2.0/24 --rate 500"
    less, said = init("--allow", "none", "--rate", "0", "--yes")
    assert less == firewall.rules("berthbr0", (), ("192.0.2.0/24",))
    assert said["As before"] == "As before: --deny 192.0.2.0/24"


def test_what_cannot_be_done_is_an_error_and_the_end_is_doctors(berth: Berth, system: PaperSystem) -> None:
    failed = berth("host", "init", "--name", "lab01", "--yes", "--json")
    assert failed.status == 1
    assert [row["state"] for row in failed.json()] == ["done"] * 3 + ["failed"] + ["not done"] * 6
    system.broken["/"] = "FAIL agent: never seen"  # `berth doctor` finds something
    system.hosts["lab01"] = "22000-22999"
    assert berth("host", "init", "--name", "lab01", "--loop", "20", "--no-agent", "--yes").status == 1


def test_it_takes_root_and_a_wish_that_can_be_meant(
    berth: Berth, system: PaperSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = berth("host", "init", "--subnet", "10.77.0.0/24")
    assert refused.status == 1
    assert "10.77.0.1/24" in refused.err
    assert berth("host", "init", "--ports", "22000").status == 2
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "takes root" in berth("host", "init", "--yes").err
    assert system.ran == []
