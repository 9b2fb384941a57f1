"""Batches of what was measured arrive once, add up, and are somebody's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.extensions import db
from app.models import Booking, Consumer, Gpu, GpuNow, Host, UsageMinute
from app.services import activity, alarms, live_seen, samples
from app.services.live_seen import Seen
from app.services.samples import Now, Part
from tests.factories import gpus_of, make_booking, make_gpu, make_host, make_user

pytestmark = pytest.mark.usefixtures("app")
MINUTE = datetime(2026, 11, 2, 10, tzinfo=UTC)


@pytest.fixture
def host(freeze: Callable[[datetime], None]) -> Host:
    freeze(MINUTE)
    return make_host("ws1", gpus=2)


def booked(host: Host) -> Booking:
    return make_booking(make_user(), gpus_of(host)[:1], MINUTE, MINUTE + timedelta(hours=1))


def shown(gpu: Gpu) -> Seen:
    """As whoever looks now sees it."""
    [found] = [one for one in live_seen.gpus() if one.id == gpu.id]
    return found


def minutes() -> list[tuple[int | None, str, int, int, int, int, int]]:
    columns = (UsageMinute.sampled_ms, UsageMinute.busy_ms, UsageMinute.energy_j, UsageMinute.memory_mib)
    query = sa.select(Consumer.booking_id, Consumer.instance, *columns, UsageMinute.temperature).join(
        UsageMinute, UsageMinute.consumer_id == Consumer.id
    )
    return [tuple(row) for row in db.session.execute(query.order_by(Consumer.instance))]


def test_a_batch_is_added_once_and_parts_of_a_minute_add_up(host: Host) -> None:
    booking, address = booked(host), gpus_of(host)[0].pci_address
    mine = Part(address, MINUTE, booking.id, "li", 10_000, 4_000, 900, 800, 61)
    other = Part(address, MINUTE, booking.id, "li", 2_000, 500, 100, 900, 60)
    assert samples.deliver(host.id, "a", [mine, other, Part(address, MINUTE, 0, "", 6_000)]) == 0
    expected = [(None, "", 6_000, 0, 0, 0, 0), (booking.id, "li", 12_000, 4_500, 1_000, 900, 61)]
    assert minutes() == expected
    samples.deliver(host.id, "a", [mine])  # the answer to the first had been lost
    assert minutes() == expected
    samples.deliver(host.id, "b", [mine])
    assert minutes()[1] == (booking.id, "li", 22_000, 8_500, 1_900, 900, 61)


def test_a_booking_of_another_host_and_a_gpu_that_is_unknown_take_no_batch_down(host: Host) -> None:
    elsewhere, address = booked(make_host("ws2")), gpus_of(host)[0].pci_address
    parts = [Part(address, MINUTE, elsewhere.id, "li", 5), Part("0000:ff:00.0", MINUTE, 0, "", 7)]
    assert samples.deliver(host.id, "a", parts) == 1
    assert minutes() == [(None, "li", 5, 0, 0, 0, 0)]


def test_what_a_gpu_is_at_is_never_taken_back_to_what_it_was(host: Host) -> None:
    gpu = make_gpu(host, minor=7)
    for second, share in ((2, 80), (0, 10)):
        seen = MINUTE + timedelta(seconds=second)
        samples.show(host.name, [Now(gpu.pci_address, seen, {"utilisation": share}), Now("0000:ff:00.0", seen)])
    [now] = db.session.scalars(sa.select(GpuNow))
    assert (now.gpu_id, now.values) == (gpu.id, {"utilisation": 80})


def test_a_reading_of_a_clock_that_was_ahead_is_not_shown_as_of_now(host: Host) -> None:
    gpu, host.seen_at = gpus_of(host)[0], MINUTE
    ahead = MINUTE + timedelta(hours=8)  # as a clock in local time has it, until its host asked for the time
    samples.show(host.name, [Now(gpu.pci_address, ahead, {"utilisation": 80}, trouble="GPU_IS_LOST")])
    seen = shown(gpu)
    assert not seen.is_fresh(MINUTE)
    assert seen.is_fresh(ahead - timedelta(seconds=2)), "a little is no reason"
    assert alarms.count(timedelta(minutes=2)) == 0
    samples.show(host.name, [Now(gpu.pci_address, MINUTE, {"utilisation": 10})])
    seen = shown(gpu)
    assert (seen.values, seen.is_fresh(MINUTE)) == ({"utilisation": 10}, True)


def test_for_how_long_one_is_still_is_written_down_as_its_minutes_come(
    host: Host, freeze: Callable[[datetime], None], count_queries: Callable[[], Any]
) -> None:
    booking, gpu = booked(host), gpus_of(host)[0]
    samples.show(host.name, [Now(one.pci_address, MINUTE) for one in gpus_of(host)])
    now = MINUTE + timedelta(minutes=20)
    freeze(now)

    def deliver(name: str, shares: dict[int, int]) -> None:
        parts = [
            Part(gpu.pci_address, MINUTE + timedelta(minutes=at), booking.id, "li", 60_000, 600 * share)
            for at, share in shares.items()
        ]
        samples.deliver(host.id, name, parts)

    def idle(attached: int) -> tuple[int, int]:
        """Its minutes of nothing, by what is written down and by its minutes alike; and how many queries that took."""
        held = {gpu.id: MINUTE + timedelta(minutes=attached)}
        still = live_seen.still(live_seen.gpus())
        with count_queries() as queries:
            found = activity.idle_since(held, still, now)
        taken = len(queries)
        assert found == activity.idle_since(held, {}, now)
        return found[gpu.id] // timedelta(minutes=1), taken

    assert idle(0) == (0, 1), "nothing was written down"
    deliver("a", dict.fromkeys(range(3), 90) | dict.fromkeys(range(3, 20), 0))
    assert [idle(attached) for attached in (-60, 0, 3, 4, 10)] == [(17, 0), (17, 0), (17, 0), (16, 1), (10, 1)]
    deliver("late", {15: 90})
    assert [idle(attached) for attached in (0, 16, 17)] == [(4, 0), (4, 0), (3, 1)]
    deliver("of a time to come", {8 * 60: 90, 8 * 60 + 1: 0})  # as a clock in local time has it
    assert [idle(attached) for attached in (0, 16, 17)] == [(4, 0), (4, 0), (3, 1)]
    assert live_seen.gpus()[1].still_since is None, "of it nothing came"


def test_the_last_hour_is_written_down_as_its_minutes_come(host: Host, freeze: Callable[[datetime], None]) -> None:
    booking, gpu = booked(host), gpus_of(host)[0]
    samples.show(host.name, [Now(one.pci_address, MINUTE) for one in gpus_of(host)])

    def deliver(name: str, shares: dict[int, int], length: int = 60_000, instance: str = "li") -> None:
        parts = [
            Part(gpu.pci_address, MINUTE + timedelta(minutes=at), booking.id if instance else 0, instance, length,
                 length * share // 100)
            for at, share in shares.items()
        ]  # fmt: skip
        samples.deliver(host.id, name, parts)

    def curve(now: datetime) -> activity.Curve:
        """As it was written down."""
        freeze(now)
        one = shown(gpu)
        return activity.curve(one.curve_from, one.curve, now)

    def counted(now: datetime) -> activity.Curve:
        """By its minutes."""
        sums: dict[datetime, list[int]] = {}
        for row in db.session.scalars(sa.select(UsageMinute).where(UsageMinute.gpu_id == gpu.id)):
            found = sums.setdefault(row.minute, [0, 0])
            found[0] += row.busy_ms
            found[1] += row.sampled_ms
        end = now.replace(second=0)
        wanted = [sums.get(end - timedelta(minutes=ago)) for ago in range(60, 0, -1)]
        return tuple(None if of_it is None else round(100 * of_it[0] / of_it[1]) for of_it in wanted)

    now = MINUTE + timedelta(minutes=70, seconds=20)
    freeze(now)
    assert curve(now) == (None,) * 60, "nothing was written down"
    deliver("a", {at: at for at in range(70) if at not in {20, 30, 31}})
    assert curve(now) == counted(now)
    assert curve(now)[:12] == (*range(10, 20), None, 21)
    deliver("late", {20: 33})
    deliver("of somebody else", {21: 100}, instance="")
    assert curve(now) == counted(now)
    assert curve(now)[10:12] == (33, 60), "late minutes count, and all that was done in one"
    deliver("a part of this one", {70: 40}, length=20_000)
    for later in (0, 1, 5, 59, 60, 61, 500, -1, -5):
        then = now + timedelta(minutes=later)
        wanted = counted(then)
        if later < 0:  # a clock that was put back: what is older than what was written down is not known
            wanted = (None,) * -later + wanted[-later:]
        assert curve(then) == wanted, later
    assert live_seen.gpus()[1].curve is None, "of it nothing came"
