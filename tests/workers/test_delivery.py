"""What was measured arrives once: with the database away, agents killed, batches refused."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy.exc import DataError, OperationalError

from app.services import samples
from app.services.samples import Part
from tests.workers.house import NOW, House
from tests.workers.measuring import Freeze, booked, deliver, minutes, steps
from workers.delivery import Delivery
from workers.sampler import Sampler


def test_killed_twice_while_the_database_is_away_each_minute_arrives_once(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    booked(house)
    number = 1 + 20 * 60 // 2
    begins = [NOW, NOW + timedelta(minutes=20), NOW + timedelta(minutes=40)]
    for begin in begins:  # an agent that is killed: nothing of it is written at its end
        sampler = Sampler(app.extensions["berth"], "lab", house.hands.evictor)
        with monkeypatch.context() as patch:
            patch.setattr(samples, "deliver", away)
            steps(sampler, house, freeze, begin, number)
            with pytest.raises(OperationalError):
                deliver(app, house, sampler)
    with monkeypatch.context() as patch:  # killed again, after the database has taken it
        patch.setattr(sampler.journal, "done", away)
        with pytest.raises(OperationalError):
            deliver(app, house, sampler)
    again = Sampler(app.extensions["berth"], "lab", house.hands.evictor)
    assert deliver(app, house, again) >= 3
    assert deliver(app, house, again) == 0
    for gpu in house.gpus:
        of_gpu = {key[1]: value for key, value in minutes().items() if key[0] == gpu.id}
        assert len(of_gpu) == 60
        assert set(of_gpu.values()) == {60_000}, "each whole, none twice: nothing came after the last look"


def test_what_gpus_did_that_are_out_of_service_now_is_delivered(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze
) -> None:
    booked(house)
    steps(sampler, house, freeze, NOW, 31)
    sampler.now.clear()  # as when the last of them is taken out of service
    Delivery(app, "lab", sampler).step()
    assert set(minutes().values()) == {60_000}


def test_use_without_a_booking_does_not_wait_for_the_next_turn(
    app: Flask, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    delivery = Delivery(app, "lab", sampler)
    monkeypatch.setattr("workers.delivery.SHOW_EVERY", 3600.0)
    monkeypatch.setattr(delivery, "step", stop.set)
    sampler.unbooked.found.set()
    thread = threading.Thread(target=delivery.run, args=(stop,), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert not sampler.unbooked.found.is_set(), "and the one after that comes in its time"


def away(*_args: object, **_more: object) -> int:
    raise OperationalError("the database is away", {}, Exception())


def test_a_batch_that_is_refused_keeps_no_other_waiting(
    app: Flask, house: House, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run()
    real, pci = samples.deliver, house.gpus[0].pci_address
    sampler.journal.write([Part(pci, NOW, sampled_ms=1, busy_ms=10**12)])
    sampler.journal.seal()
    sampler.journal.write([Part(pci, NOW, sampled_ms=2)])

    def counted(host_id: int, name: str, parts: Collection[Part]) -> int:
        if any(part.busy_ms > 10**9 for part in parts):
            raise DataError("out of range", {}, Exception())
        return real(host_id, name, parts)

    monkeypatch.setattr(samples, "deliver", counted)
    assert deliver(app, house, sampler) == 1
    assert list(minutes().values()) == [2]
    assert len(list(sampler.journal.folder.glob("*.refused"))) == 1
