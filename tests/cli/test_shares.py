"""Shared directories from the command line, on a simulated host."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import create_core
from app.cli import running
from app.config import Settings
from app.drivers.base import GiveUp
from app.drivers.fake import FakeLxd
from app.extensions import transaction
from app.services import accounts, inventory, shares
from tests.cli.conftest import Berth
from tests.factories import make_instance

SHARE = ("share", "add", "sets", "--host", "ws1", "--source", "/srv/sets", "--path", "/srv/sets")


def test_a_directory_is_shared_listed_and_removed_without_an_agent(lab: Berth) -> None:
    made = lab(*SHARE, "--write", "--for", "liwei", "--json")
    assert made.status == 0, made.err
    assert "looking from here" in made.err
    row = made.json()
    assert row == {
        "host": "ws1", "name": "sets", "source": "/srv/sets", "path": "/srv/sets", "access": "write",
        "people": ["liwei"], "on": True, "fit": True, "trouble": "",
    }  # fmt: skip
    assert lab("share", "list", "--host", "ws1", "--json").json() == [row]
    assert lab("share", "remove", "sets", "--host", "ws1").out == "sets is retired.\n"
    assert lab("share", "list", "--json").json() == []


def test_a_machine_has_it_no_more_once_it_is_said_to_be_removed(lab: Berth, environment: Path) -> None:
    host = FakeLxd(environment / "sim" / "ws1.json")
    host.add_instance("m1", owner="liwei")
    with create_core(Settings.load()).app_context(), transaction():
        make_instance(accounts.get("liwei"), ws1 := inventory.host("ws1"), "m1")
        for name in ("sets", "news"):
            shares.add("test", ws1, shares.Terms(name, f"/srv/{name}", f"/srv/{name}")).active = True
    running.share("ws1")
    assert {one.path for one in host.shares()["m1"].shares.values() if one} == {"/srv/sets", "/srv/news"}
    assert lab("share", "remove", "news", "--host", "ws1").out == "news is retired.\n"
    assert {one.path for one in host.shares()["m1"].shares.values() if one} == {"/srv/sets"}
    host.fail_next("set_shares", GiveUp("Share", "the disk is busy", ""))
    said = lab("share", "remove", "sets", "--host", "ws1")
    assert (said.status, said.out) == (1, "")
    assert "a machine may still have it (m1: the disk is busy)" in said.err


def test_what_is_not_fit_is_added_and_not_switched_on(lab: Berth) -> None:
    said = lab("share", "add", "news", "--host", "ws1", "--source", "/unfit/news", "--path", "/srv/news", "--own")
    assert said.status == 1
    assert "Mount options are missing" in said.err
    assert "/unfit/news /unfit/news none bind,nosuid,nodev 0 0" in said.err
    (row,) = lab("share", "list", "--json").json()  # type: ignore[misc]
    assert (row["fit"], row["on"]) == (False, False)


@pytest.mark.parametrize(
    "change", [("--source", "/etc"), ("--source", "/srv/../etc"), ("--path", "/"), ("--host", "no"), ("--for", "no")]
)
def test_what_cannot_be_shared(lab: Berth, change: tuple[str, str]) -> None:
    said = lab(*SHARE, *change)
    assert (said.status, said.out) == (1, "")
    assert lab("share", "list", "--json").json() == []
