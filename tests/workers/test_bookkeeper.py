"""The books of what ended on a host that nobody looks after."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from app.extensions import db
from app.services import quota, recording
from tests.factories import gpus_of, make_booking, make_host
from tests.workers.house import NOW, House
from tests.workers.test_reconciler import HOUR, audited, entries
from workers import bookkeeper

Freeze = Callable[[datetime], None]


@pytest.mark.parametrize("given", [False, True])
def test_they_are_closed_once_and_an_agent_that_comes_back_changes_nothing(
    house: House, freeze: Freeze, given: bool
) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    account_id = house.alice.account_id or 0
    if given:
        house.run()  # and no pass from now on
    freeze(NOW + HOUR + timedelta(minutes=9))
    assert bookkeeper.tend() == 0, "its agent may still do it, and write down what it saw until the end"
    freeze(NOW + HOUR + timedelta(minutes=10))
    assert [bookkeeper.tend(), bookkeeper.tend()] == [1, 0]
    balance = quota.balance(account_id)
    assert (balance.held, balance.used) == (0, 3600 if given else 0)
    assert house.run().ok
    assert quota.balance(account_id) == balance
    assert (entries(booking), audited("booking.settled")) == ({"hold": 1, "release": 1, "settle": 1}, 1)
    assert (house.allocation(booking).detached_at is not None) == given, "a GPU is still taken back"


def test_one_host_keeps_no_other_one_back(house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    other = make_booking(house.bob, gpus_of(make_host("lab02"))[:1], NOW, NOW + HOUR)
    db.session.commit()
    settle = recording.settle_ended

    def fails(host: object, **more: timedelta) -> int:
        if getattr(host, "name", "") == "lab":
            raise OperationalError("select", {}, Exception("a deadlock"))
        return settle(host, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(recording, "settle_ended", fails)
    freeze(NOW + 2 * HOUR)
    assert bookkeeper.tend() == 1
    assert (entries(stuck)["settle"], entries(other)["settle"]) == (0, 1)
