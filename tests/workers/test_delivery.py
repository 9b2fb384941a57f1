"""What was measured arrives once: with the database away, agents killed, batches refused."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.exc import DataError, OperationalError

from app.drivers.gauges import Running
from app.drivers.kernel import Process
from app.extensions import db
from app.models import AuditEvent, GpuNow
from app.services import samples
from app.services.samples import Now, Part
from tests.workers.house import NOW, House
from tests.workers.measuring import Freeze, booked, deliver, minutes, steps
from workers.delivery import Delivery
from workers.sampler import Sampler
from workers.unbooked import Stray


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


def test_it_ends_with_its_sampler_not_at_its_next_turn(
    app: Flask, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.delivery.SHOW_EVERY", 3600.0)
    stop, waits = threading.Event(), threading.Event()
    delivery = Delivery(app, "lab", sampler)
    wait = sampler.unbooked.found.wait
    monkeypatch.setattr(sampler.unbooked.found, "wait", lambda within: waits.set() or wait(within))
    threads = [threading.Thread(target=one.run, args=(stop,), daemon=True) for one in (delivery, sampler)]
    for thread in threads:
        thread.start()
    assert waits.wait(30)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_who_is_found_is_on_record_though_no_reading_is_new(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze
) -> None:
    """As it is woken before the sampler has put its reading where it is seen."""
    booked(house)
    steps(sampler, house, freeze, NOW, 1)
    delivery = Delivery(app, "lab", sampler)
    delivery.step()
    found = Stray(house.gpus[0].pci_address, Running(21), Process(1, "bob", "train"))
    sampler.unbooked._news.append(found)
    delivery.step()
    events = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "gpu.used_unbooked"))
    assert [event.details["instance"] for event in events] == ["bob"]


def test_what_gpus_are_at_is_told_in_one_statement(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze, count_queries: Callable[[], Any]
) -> None:
    booked(house)
    delivery = Delivery(app, "lab", sampler)
    steps(sampler, house, freeze, NOW, 1)
    delivery.step()
    steps(sampler, house, freeze, NOW + timedelta(seconds=2), 1)
    with count_queries() as queries:
        delivery.step()
    assert [query.split()[:3] for query in queries if "SAVEPOINT" not in query] == [["INSERT", "INTO", "gpus_now"]]
    assert {now.seen_at for now in db.session.scalars(db.select(GpuNow))} == {NOW + timedelta(seconds=2)}


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


@pytest.mark.parametrize("trouble", [OSError(errno.EIO, "Input/output error"), KeyError("minute")])
@pytest.mark.parametrize("stays", [False, True])
def test_a_batch_that_cannot_be_read_keeps_no_other_waiting(
    app: Flask, house: House, sampler: Sampler, monkeypatch: pytest.MonkeyPatch, trouble: Exception, *, stays: bool
) -> None:
    broken, tried = three_batches(house, sampler)[0], []
    real = sampler.journal.read

    def read(path: Path) -> list[Part]:
        tried.append(path)
        if path == broken:
            raise trouble
        return real(path)

    monkeypatch.setattr(sampler.journal, "read", read)
    if stays:  # the disk takes no change either
        monkeypatch.setattr(sampler.journal, "set_aside", away_from_disk)
    delivery = Delivery(app, "lab", sampler)
    assert [delivery.deliver(house.host.id), delivery.deliver(house.host.id)] == [2, 0]
    assert (list(minutes().values()), tried.count(broken), broken.exists()) == ([5], 1, stays)


def test_a_batch_that_cannot_be_read_for_want_of_descriptors_comes_later(
    app: Flask, house: House, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_batches(house, sampler)
    delivery, read = Delivery(app, "lab", sampler), sampler.journal.read

    def out_of_them(_path: Path) -> list[Part]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(sampler.journal, "read", out_of_them)
    assert delivery.deliver(house.host.id) == 0
    monkeypatch.setattr(sampler.journal, "read", read)
    assert delivery.deliver(house.host.id) == 3


def test_a_slow_database_is_asked_no_more_often(
    app: Flask, house: House, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run()
    monkeypatch.setattr("workers.delivery.BREATH", 0.0)
    delivery, given, pci = Delivery(app, "lab", sampler), list[str](), house.gpus[0].pci_address
    monkeypatch.setattr(samples, "deliver", lambda _host, name, _parts: bool(given.append(name)))
    sampler.journal.write([Part(pci, NOW, sampled_ms=1)])
    for seconds in (0, 4, 8):
        sampler.now = {pci: Now(pci, NOW + timedelta(seconds=seconds), {})}
        delivery.step()
        sampler.journal.write([Part(pci, NOW, sampled_ms=1)])
    assert len(given) == 1, "the one batch that there was has been taken, however long that took"


def test_a_batch_that_is_gone_meanwhile_or_cannot_be_removed_keeps_no_other_waiting(
    app: Flask, house: House, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = three_batches(house, sampler)
    monkeypatch.setattr(sampler.journal, "seal", lambda: [first, *others])
    monkeypatch.setattr(sampler.journal, "done", away_from_disk)
    first.unlink()
    delivery = Delivery(app, "lab", sampler)
    assert [delivery.deliver(house.host.id), delivery.deliver(house.host.id)] == [2, 0]
    assert list(minutes().values()) == [5]
    assert [path.exists() for path in others] == [True, True]


def test_what_gpus_are_at_goes_on_being_shown_while_days_of_what_they_did_flow(
    app: Flask, house: House, sampler: Sampler, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    booked(house)
    three_batches(house, sampler)
    delivery = Delivery(app, "lab", sampler)
    monkeypatch.setattr("workers.delivery.BREATH", 0.0)  # time for one at a time
    seen, waiting = [], []
    for number in range(1, 5):
        steps(sampler, house, freeze, NOW + timedelta(seconds=20 * number), 1)
        delivery.step()
        seen.append(db.session.query(GpuNow.seen_at).first()[0] - NOW)
        waiting.append(len(list(sampler.journal.folder.glob("*.parts"))))
    assert seen == [timedelta(seconds=20 * number) for number in range(1, 5)]
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[0] >= 2


def three_batches(house: House, sampler: Sampler) -> list[Path]:
    """Of one minute: of 1, 2 and 3 ms."""
    house.run()
    for number in (1, 2, 3):
        sampler.journal.write([Part(house.gpus[0].pci_address, NOW, sampled_ms=number)])
        paths = sampler.journal.seal()
    return paths


def away_from_disk(_path: Path) -> None:
    raise OSError(errno.EROFS, "Read-only file system")
