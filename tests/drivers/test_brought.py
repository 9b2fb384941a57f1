"""An image that is fetched for a build: whoever waits for it is heard every second, and never waits for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from app.drivers.lxd import brought
from app.drivers.lxd.errors import RefusedError, UnfinishedError
from app.drivers.lxd.wire import LATE
from app.errors import Cancelled


class SlowWire:
    """An LXD that fetches and is not done. `takes`: seconds for each answer, of a clock of its own."""

    def __init__(self, takes: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.takes, self.ended, self.asked = 0.0, takes, 0, 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def begin(self, *_path: str, **_more: Any) -> dict[str, str]:
        return {"id": "op"}

    def join(self, operation: str, limit: float, progress: Any) -> bool:
        self.asked += 1
        self.now += next(self.takes)
        progress(40)
        raise UnfinishedError(operation, limit)

    def runs(self, _operation: str) -> bool:
        return self.ended < 2

    def send(self, *_path: str, **_more: Any) -> None:
        self.ended += 1
        if self.ended < 2:
            raise RefusedError("This operation can't be cancelled")


def always(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_who_hears_of_it_can_leave_and_lxd_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, told = SlowWire(always(1.0), monkeypatch), list[int]()

    def hear(done: int) -> None:
        told.append(done)
        if len(told) == 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        brought._fetch(wire, {}, hear)  # type: ignore[arg-type]
    assert told == [40, 40, 40]
    assert wire.ended == 2, "asked again where LXD would not"


def test_an_lxd_that_hangs_is_not_waited_for_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = SlowWire(always(11.0), monkeypatch)
    with pytest.raises(requests.Timeout):
        brought._fetch(wire, {}, lambda _done: None)  # type: ignore[arg-type]
    assert wire.asked == LATE + 1


def test_a_server_that_says_nothing_has_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = SlowWire(always(1.0), monkeypatch)
    with pytest.raises(UnfinishedError, match="after 1800 s"):
        brought._fetch(wire, {}, lambda _done: None)  # type: ignore[arg-type]
    assert 1800 <= wire.now < 1820
