"""Shared directories from the command line, on a simulated host."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Berth

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
