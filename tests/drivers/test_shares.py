"""Who has how much of a look, and that holding one container still keeps nobody waiting for another."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from app.drivers.holders.cgroups import Hierarchies
from app.drivers.holders.shares import NONE, SMALL, WHOLE, Shares
from app.drivers.holders.stillness import Stillness


def looks(shares: Shares, number: int, *heavy: str) -> list[tuple[float, ...]]:
    """What each of them has in one look after the other, all of which it spends and overruns."""
    found = []
    for _ in range(number):
        shares.begin()
        found.append(tuple(shares.left(group) for group in heavy))
        for group in heavy:
            shares.spend(group, shares.left(group))
            assert shares.left(group) == 0
            shares.overran(group)
    return found


def test_who_overran_has_a_whole_share_now_and_then() -> None:
    shares = Shares()
    assert looks(shares, 1, "a") == [(WHOLE,)]
    assert sorted(looks(shares, NONE + 1, "a")) == [*[(SMALL,)] * NONE, (WHOLE,)]
    assert shares.left("") == float("inf"), "the host's own"


def test_of_several_at_most_one_has() -> None:
    shares = Shares()
    looks(shares, 1, "a", "b")
    found = looks(shares, NONE + 2, "a", "b")
    assert sorted(found) == [*[(SMALL, SMALL)] * NONE, (SMALL, WHOLE), (WHOLE, SMALL)]


def test_who_fits_into_a_whole_share_is_like_all_again() -> None:
    shares = Shares()
    looks(shares, 1, "a")
    for _ in range(NONE + 2):
        shares.begin()
    assert shares.left("a") == WHOLE


def test_one_that_does_not_freeze_keeps_nobody_else_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setxattr", lambda *_: None)
    for name, frozen in (("stuck", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.freeze").write_text("0\n")
        (tmp_path / name / "cgroup.events").write_text(f"populated 1\nfrozen {frozen}\n")
    stillness = Stillness(Hierarchies(None, None, tmp_path))
    began, took = threading.Event(), []

    def hold() -> None:
        began.set()
        start = time.monotonic()
        with stillness.of(["stuck"]):
            took.append(time.monotonic() - start)

    thread = threading.Thread(target=hold)
    thread.start()
    began.wait()
    for _ in range(5):
        with stillness.of(["other"]):
            pass
    assert not took, "the five are through while the one that is stuck is still waited for"
    thread.join()
    assert took[0] > 0.25
