from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.models import Gpu, GpuState, Host
from app.services import openings
from app.services.openings import Busy
from app.services.windows import Window
from tests.factories import gpus_of, make_booking, make_gpu, make_host, make_user

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
LATEST = NOW + timedelta(days=28)


def hosts(**sizes: int) -> list[Gpu]:
    """GPUs on hosts of these sizes, not stored; ids count up."""
    found: list[Gpu] = []
    for number, (name, size) in enumerate(sizes.items(), 1):
        host = Host(id=number, name=name, enabled=True)
        found += [Gpu(id=len(found) + n, host_id=number, host=host, minor=n, model="A") for n in range(1, size + 1)]
    return found


def window(start: float, end: float) -> Window:
    return Window(NOW + start * HOUR, NOW + end * HOUR)


def ids(gpus: list[Gpu]) -> list[int]:
    return [gpu.id for gpu in gpus]


def test_where_the_fewest_are_left_over() -> None:
    gpus = hosts(a=4, b=2, c=3)
    assert ids(openings.choose(gpus, {}, window(0, 1), 2, frozenset())) == [5, 6]
    assert ids(openings.choose(gpus, {5: [window(0, 1)]}, window(0, 1), 2, frozenset())) == [7, 8]
    assert ids(openings.choose(gpus, {5: [window(0, 1)]}, window(1, 2), 2, frozenset())) == [5, 6]
    assert openings.choose(gpus, {}, window(0, 1), 5, frozenset()) == []


def test_where_the_person_has_a_machine_if_there_is_room() -> None:
    gpus = hosts(a=4, b=2)
    assert ids(openings.choose(gpus, {}, window(0, 1), 1, frozenset({1}))) == [1]
    assert ids(openings.choose(gpus, {}, window(0, 1), 3, frozenset({2}))) == [1, 2, 3]


def test_the_earliest_is_where_something_ends() -> None:
    gpus = hosts(a=2)
    taken: Busy = {1: [window(0, 2), window(3, 4)], 2: [window(0, 5)]}
    found = openings.earliest(gpus, taken, 1, 3600, NOW, LATEST, 900)
    assert found is not None
    assert (found.gpu_ids, found.starts_at, found.ends_at) == ((1,), NOW + 2 * HOUR, NOW + 3 * HOUR)
    found = openings.earliest(gpus, taken, 1, 7200, NOW, LATEST, 900)
    assert found is not None
    assert found.starts_at == NOW + 4 * HOUR
    found = openings.earliest(gpus, taken, 2, 3600, NOW, LATEST, 900)
    assert found is not None
    assert found.starts_at == NOW + 5 * HOUR
    assert openings.earliest(gpus, taken, 2, 3600, NOW, NOW + 5 * HOUR, 900) is None


def test_an_end_between_grid_lines_opens_at_the_next_line() -> None:
    found = openings.earliest(hosts(a=1), {1: [window(0, 1.1)]}, 1, 3600, NOW, LATEST, 900)
    assert found is not None
    assert found.starts_at == NOW + 1.25 * HOUR


spans = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=6)


@given(busy=st.lists(spans, min_size=3, max_size=3), count=st.integers(1, 3), length=st.integers(1, 8))
def test_the_earliest_is_free_and_nothing_earlier_is(
    busy: list[list[tuple[int, int]]], count: int, length: int
) -> None:
    gpus = hosts(a=1, b=2)
    taken = {gpu.id: [window(start, start + more) for start, more in own]
             for gpu, own in zip(gpus, busy, strict=True)}  # fmt: skip

    def fits(hour: int) -> bool:
        return bool(openings.choose(gpus, taken, window(hour, hour + length), count, frozenset()))

    expected = next((hour for hour in range(40 - length + 1) if fits(hour)), None)
    found = openings.earliest(gpus, taken, count, length * 3600, NOW, NOW + 40 * HOUR, 900)
    assert (found and found.starts_at) == (None if expected is None else NOW + expected * HOUR)
    if found:
        chosen = [gpu for gpu in gpus if gpu.id in found.gpu_ids]
        assert len(openings.free_gpus(chosen, taken, Window(found.starts_at, found.ends_at))) == count
        assert len({gpu.host_id for gpu in chosen}) == 1


@pytest.fixture
def host(app: Flask) -> Host:
    return make_host("lab03", gpus=3, model="A")


def test_only_gpus_in_service_on_offered_hosts(host: Host) -> None:
    make_gpu(host, minor=3, model="B")
    gpus_of(host)[0].state = GpuState.MAINTENANCE
    make_host("closed", enabled=False)
    assert [gpu.minor for gpu in openings.usable_gpus()] == [1, 2, 3]
    assert [gpu.minor for gpu in openings.usable_gpus("B")] == [3]
    assert openings.usable_gpus("A", "closed") == []


def test_what_is_booked_touches_the_span_or_is_left_out(host: Host) -> None:
    gpus, user = gpus_of(host), make_user()
    make_booking(user, gpus[:1], NOW - HOUR, NOW)
    make_booking(user, gpus[:2], NOW + HOUR, NOW + 2 * HOUR)
    cancelled = make_booking(user, gpus[2:], NOW + HOUR, NOW + 2 * HOUR)
    for allocation in openings.overlapping([gpus[2].id], window(0, 5)):
        assert allocation.booking_id == cancelled.id
        allocation.released_at = NOW
    found = openings.busy(gpus, NOW, NOW + 5 * HOUR)
    assert found == {gpu.id: [window(1, 2)] for gpu in gpus[:2]}
    assert openings.busy(gpus, NOW + 2 * HOUR, NOW + 5 * HOUR) == {}
    assert not openings.any_overlap(ids(gpus), window(0, 1))
    assert not openings.any_overlap(ids(gpus[2:]), window(0, 5))
    assert openings.any_overlap(ids(gpus), window(1.5, 1.6))
