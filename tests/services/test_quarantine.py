"""A GPU that could not be proven free: held back, let go again, and another one given in its place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.extensions import db, lab_zone
from app.models import Allocation, AuditEvent, Booking, Gpu, GpuState, Host, User
from app.services import alarms, bookings, inventory, samples, usage
from app.services.quarantine import quarantine, release_quarantine, replacement
from app.services.reports import one
from app.services.reports.numbers import total
from app.services.reports.pieces import Key, Scope, numbers
from app.services.reports.spans import Span
from app.services.samples import Now
from tests.factories import gpus_of, make_booking, make_gpu, make_host, make_user

pytestmark = pytest.mark.usefixtures("app")
NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
SILENCE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def now(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def host() -> Host:
    return make_host("lab01", gpus=3, seen_at=NOW)


def booked(gpu: Gpu, start: datetime = NOW, end: datetime = NOW + 4 * HOUR) -> Allocation:
    booking = make_booking(make_user(), [gpu], start, end)
    return db.session.scalars(db.select(Allocation).where(Allocation.booking_id == booking.id)).one()


def events(action: str) -> list[AuditEvent]:
    return list(db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


def test_held_back_once_with_since_when_and_why(host: Host, freeze: Callable[[datetime], None]) -> None:
    gpu = gpus_of(host)[1]
    assert quarantine("agent:lab01", gpu, "pid 7 does not end")
    freeze(NOW + HOUR)
    assert not quarantine("agent:lab01", gpu, "another reason")
    assert (gpu.state, gpu.quarantined_at, gpu.quarantine_reason) == (GpuState.QUARANTINE, NOW, "pid 7 does not end")
    (event,) = events("gpu.quarantined")
    assert (event.actor, event.target) == ("agent:lab01", f"gpu:{gpu.id}")
    assert event.details == {"host": "lab01", "pci_address": gpu.pci_address, "reason": "pid 7 does not end"}


def test_let_go_once_and_by_whom(host: Host) -> None:
    gpu = gpus_of(host)[1]
    assert not release_quarantine("boss", gpu, "looked")
    quarantine("agent:lab01", gpu, "pid 7 does not end")
    assert release_quarantine("boss", gpu, "looked")
    assert not release_quarantine("boss", gpu, "looked")
    assert (gpu.state, gpu.quarantined_at, gpu.quarantine_reason) == (GpuState.IN_SERVICE, None, "")
    (event,) = events("gpu.released")
    assert (event.actor, event.details["how"], event.details["since"]) == ("boss", "looked", NOW.isoformat())


def test_other_ways_out_of_quarantine_leave_nothing_behind(host: Host) -> None:
    gpu = gpus_of(host)[1]
    quarantine("agent:lab01", gpu, "why")
    inventory.set_gpu_state("boss", gpu, GpuState.MAINTENANCE)
    assert (gpu.quarantined_at, gpu.quarantine_reason) == (None, "")


def test_what_an_admin_took_out_of_service_comes_back_by_their_word_only(host: Host) -> None:
    gpu = gpus_of(host)[1]
    inventory.set_gpu_state("boss", gpu, GpuState.MAINTENANCE)
    assert not quarantine("agent:lab01", gpu, "pid 7 does not end")
    assert not release_quarantine("agent:lab01", gpu, "a later look")
    assert gpu.state == GpuState.MAINTENANCE


def test_the_booking_gets_another_gpu_and_it_is_on_record(host: Host) -> None:
    first, second, _third = gpus_of(host)
    allocation = booked(first)
    allocation.trouble, allocation.trouble_text, allocation.trouble_at = "held", "pid 7", NOW
    quarantine("agent:lab01", first, "why")
    assert replacement(allocation, NOW + timedelta(seconds=25)) == second
    db.session.refresh(allocation)
    assert (allocation.gpu_id, allocation.instead_of_id) == (second.id, first.id)
    assert (allocation.starts_at, allocation.ends_at) == (NOW, NOW + 4 * HOUR)
    assert (allocation.trouble, allocation.trouble_at) == ("", None)
    (event,) = events("booking.gpu_replaced")
    assert event.target == f"booking:{allocation.booking_id}"
    assert event.details == {"gpu": second.id, "instead_of": first.id}


def test_what_was_booked_is_remembered_over_two_moves(host: Host) -> None:
    first, second, third = gpus_of(host)
    allocation = booked(first)
    quarantine("agent:lab01", first, "why")
    assert replacement(allocation, NOW) == second
    quarantine("agent:lab01", second, "why")
    assert replacement(allocation, NOW) == third
    assert allocation.instead_of_id == first.id
    release_quarantine("boss", first, "looked")
    assert replacement(allocation, NOW) == first
    assert allocation.instead_of_id is None


def test_one_that_somebody_had_earlier_is_given_for_the_rest(host: Host) -> None:
    first, second, third = gpus_of(host)
    allocation = booked(first, NOW - HOUR)
    booked(second, NOW - 2 * HOUR, NOW)
    booked(third)
    moment = NOW + timedelta(seconds=25, microseconds=7)
    assert replacement(allocation, moment) == second
    assert (allocation.starts_at, allocation.ends_at) == (NOW + timedelta(seconds=25), NOW + 4 * HOUR)
    assert allocation.booked_from == NOW - HOUR
    assert db.session.get_one(Booking, allocation.booking_id).starts_at == NOW - HOUR, "what was booked stays"


def test_the_time_until_it_was_given_stays_booked_and_counts_as_not_given(
    host: Host, freeze: Callable[[datetime], None]
) -> None:
    first, second, third = gpus_of(host)
    allocation = booked(first, NOW - HOUR)
    booked(second, NOW - 2 * HOUR, NOW)
    booked(third)
    assert replacement(allocation, NOW) == second
    allocation.attached_at, allocation.detached_at = NOW, NOW + 4 * HOUR
    freeze(NOW + 5 * HOUR)
    user = db.session.get_one(User, db.session.get_one(Booking, allocation.booking_id).user_id)
    booking = bookings.get(user, allocation.booking_id)
    for had in (one.whole(booking), total(hour.numbers for hour in one.by_hour(booking))):
        assert (had.reserved, had.attached, had.not_given) == (5 * 3600, 4 * 3600, 3600)
    span = Span.of(NOW - HOUR, NOW + 4 * HOUR, lab_zone(), NOW + 5 * HOUR)
    by_gpu = numbers(span, Key.GPU, Scope(booking_id=booking.id))
    assert {gpu: had.reserved for (gpu, _), had in by_gpu.items()} == {first.id: 3600, second.id: 4 * 3600}
    [used] = usage.by_booking(NOW - HOUR, NOW + 4 * HOUR, user)
    assert used.gpu_ids == (first.id, second.id)
    [used] = usage.by_booking(NOW - HOUR, NOW - HOUR / 2, user)
    assert (used.gpu_ids, used.numbers.not_given) == ((first.id,), 1800), "before the replacement"
    assert usage.bookings_of(NOW - HOUR, NOW - HOUR / 2, [user.id]) == {user.id: (user.username, 1)}
    [used] = usage.by_booking(NOW + HOUR, NOW + 2 * HOUR, user)
    assert used.gpu_ids == (second.id,)


def test_rather_one_that_was_free_all_the_time_and_is_not_being_taken_away(host: Host) -> None:
    first, second, third = gpus_of(host)
    fourth = make_gpu(host, minor=3)
    allocation = booked(first, NOW - HOUR)
    booked(second, NOW - 2 * HOUR, NOW)
    ended = booked(third, NOW - 3 * HOUR, NOW - 2 * HOUR)
    ended.attached_at = NOW - 3 * HOUR
    db.session.flush()
    assert replacement(allocation, NOW) == fourth


def test_none_where_nothing_fits(host: Host) -> None:
    first, second, third = gpus_of(host)
    allocation = booked(first)
    second.state = GpuState.MAINTENANCE
    booked(third, NOW + 3 * HOUR, NOW + 5 * HOUR)
    make_gpu(host, minor=3, model="NVIDIA L40S")
    make_host("lab02")
    db.session.flush()
    assert replacement(allocation, NOW) is None
    assert (allocation.gpu_id, allocation.instead_of_id) == (first.id, None)
    assert events("booking.gpu_replaced") == []


def test_a_second_one_of_the_same_booking_is_not_given_twice(host: Host) -> None:
    gpus = gpus_of(host)
    booking = make_booking(make_user(), gpus[:2], NOW, NOW + HOUR)
    first, second = db.session.scalars(
        db.select(Allocation).where(Allocation.booking_id == booking.id).order_by(Allocation.gpu_id)
    )
    assert replacement(first, NOW) == gpus[2]
    gpus[0].state = GpuState.QUARANTINE
    db.session.flush()
    assert replacement(second, NOW) is None


def test_none_for_what_is_over_withdrawn_or_in_use(host: Host) -> None:
    first, second, third = gpus_of(host)
    over, withdrawn, in_use = booked(first, NOW - HOUR, NOW), booked(second), booked(third)
    make_gpu(host, minor=3)
    withdrawn.released_at, in_use.attached_at = NOW, NOW
    db.session.flush()
    assert [replacement(one, NOW) for one in (over, withdrawn, in_use)] == [None, None, None]


def test_alarms_count_hosts_not_reasons(host: Host) -> None:
    assert alarms.count(SILENCE) == 0
    quarantine("agent:lab01", gpus_of(host)[0], "why")
    quarantine("agent:lab01", gpus_of(host)[1], "why")
    host.trouble = "Connect to LXD: refused"
    db.session.flush()
    assert alarms.count(SILENCE) == 1
    make_host("lab02")
    make_host("lab03", seen_at=NOW - 2 * SILENCE)
    make_host("lab04", seen_at=NOW, trouble="away")
    assert alarms.count(SILENCE) == 4


@pytest.mark.parametrize(
    ("why", "ago", "number"), [("GPU is lost", 5, 1), ("NVML says nothing: no driver", 5, 0), ("GPU is lost", 90, 0)]
)
def test_a_gpu_that_does_not_answer_is_an_alarm(host: Host, why: str, ago: int, number: int) -> None:
    [gpu, *_rest] = gpus_of(host)
    samples.show(host.name, [Now(gpu.pci_address, NOW - timedelta(seconds=ago), trouble=why)])
    assert alarms.count(SILENCE) == number
    inventory.set_gpu_state("boss", gpu, GpuState.MAINTENANCE)
    assert alarms.count(SILENCE) == 0


def test_a_host_that_nobody_counts_on_may_be_switched_off() -> None:
    gone = make_host("lab01", enabled=False)
    assert alarms.count(SILENCE) == 0
    booked(gpus_of(gone)[0])
    assert alarms.count(SILENCE) == 1


def test_events_are_those_of_the_host(host: Host) -> None:
    gpu, other = gpus_of(host)[0], gpus_of(make_host("lab02"))[0]
    for target in (gpu, other):
        quarantine("agent:x", target, "why")
        release_quarantine("boss", target, "looked")
    inventory.set_gpu_state("boss", gpu, GpuState.MAINTENANCE)
    found = alarms.events(host, [gpu.id])
    assert [(event.action, event.target) for event in found] == [
        ("gpu.released", f"gpu:{gpu.id}"), ("gpu.quarantined", f"gpu:{gpu.id}"),
    ]  # fmt: skip
