from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import InvalidInput, NotFound, QuotaExceeded, RuleRefused, SlotTaken
from app.extensions import db
from app.models import Booking, Host, LedgerEntry, Phase, User
from app.services import audit, bookings, changes, quota, recording
from tests.factories import attach, gpus_of, make_admin, make_booking, make_user
from tests.services.conftest import NOW, Freeze

HOUR = timedelta(hours=1)
SLOT = 900


@pytest.fixture
def alice(host: Host) -> User:
    return make_user("alice", hours=10)


@pytest.fixture
def booking(host: Host, alice: User) -> Booking:
    """Two GPUs for two hours from an hour on: four of the ten hours."""
    return make_booking(alice, gpus_of(host)[:2], NOW + HOUR, NOW + 3 * HOUR)


def lines(booking: Booking) -> list[tuple[str, int]]:
    query = db.select(LedgerEntry).where(LedgerEntry.booking_id == booking.id).order_by(LedgerEntry.id)
    return [(entry.kind, entry.amount) for entry in db.session.scalars(query)]


def free(user: User) -> float:
    return quota.free(user.account_id or 0) / 3600


def test_cancelled_before_its_start_it_gives_all_back(booking: Booking, alice: User, host: Host) -> None:
    changes.cancel(alice, booking.id)
    assert booking.phase(NOW) == Phase.CANCELLED
    assert free(alice) == 10
    assert lines(booking) == [("hold", -14_400), ("release", 14_400)]
    make_booking(alice, gpus_of(host)[:2], NOW + HOUR, NOW + 3 * HOUR)


def test_it_cannot_be_cancelled_twice_nor_once_it_runs(booking: Booking, alice: User, freeze: Freeze) -> None:
    freeze(NOW + HOUR)
    with pytest.raises(RuleRefused, match="has started"):
        changes.cancel(alice, booking.id)
    freeze(NOW)
    changes.cancel(alice, booking.id)
    with pytest.raises(RuleRefused, match="was cancelled"):
        changes.cancel(alice, booking.id)
    assert free(alice) == 10


def test_released_early_it_costs_what_it_took(booking: Booking, alice: User, host: Host, freeze: Freeze) -> None:
    freeze(NOW + HOUR + timedelta(minutes=30, seconds=7))
    changes.end_now(alice, booking.id)
    assert booking.phase(NOW + 2 * HOUR) == Phase.PAST
    assert booking.booked_until == NOW + 3 * HOUR
    attach(booking)
    used = 2 * (30 * 60 + 7)
    assert quota.free(alice.account_id or 0) == 36_000 - used
    recording.settle_ended(host)
    assert lines(booking) == [("hold", -14_400), ("release", 14_400 - used), ("release", used), ("settle", -used)]
    assert quota.free(alice.account_id or 0) == 36_000 - used


def test_released_in_its_first_second_it_has_lasted_one(booking: Booking, alice: User, freeze: Freeze) -> None:
    freeze(NOW + HOUR + timedelta(milliseconds=300))
    changes.end_now(alice, booking.id)
    assert (booking.ends_at - booking.starts_at).total_seconds() == 1


def test_it_cannot_be_released_before_or_after(booking: Booking, alice: User, freeze: Freeze) -> None:
    with pytest.raises(RuleRefused, match="not started"):
        changes.end_now(alice, booking.id)
    freeze(NOW + 3 * HOUR)
    with pytest.raises(RuleRefused, match="past bookings cannot change"):
        changes.end_now(alice, booking.id)


@pytest.mark.parametrize("running", [False, True])
def test_extended_and_shortened_it_holds_what_it_costs(
    booking: Booking, alice: User, freeze: Freeze, running: bool
) -> None:
    freeze(NOW + HOUR + timedelta(minutes=5) if running else NOW)
    changes.move_end(alice, booking.id, NOW + 4 * HOUR, SLOT)
    assert free(alice) == 4
    changes.move_end(alice, booking.id, NOW + 2 * HOUR, SLOT)
    assert free(alice) == 8
    assert booking.booked_until == booking.ends_at == NOW + 2 * HOUR
    assert all(allocation.ends_at == NOW + 2 * HOUR for allocation in booking.allocations)
    changes.move_end(alice, booking.id, NOW + 2 * HOUR, SLOT)
    assert free(alice) == 8


def test_an_end_off_the_grid_is_snapped_up(booking: Booking, alice: User) -> None:
    changes.move_end(alice, booking.id, NOW + 2 * HOUR + timedelta(minutes=1), SLOT)
    assert booking.ends_at == NOW + 2 * HOUR + timedelta(minutes=15)


def test_extending_into_somebody_elses_is_refused(booking: Booking, alice: User, host: Host) -> None:
    make_booking(make_user("bob"), gpus_of(host)[1:2], NOW + 4 * HOUR, NOW + 5 * HOUR)
    changes.move_end(alice, booking.id, NOW + 4 * HOUR, SLOT)
    with pytest.raises(SlotTaken, match="GPU 1 on lab03 is taken"):
        changes.move_end(alice, booking.id, NOW + 4 * HOUR + HOUR / 4, SLOT)
    assert booking.ends_at == NOW + 4 * HOUR


def test_extending_beyond_quota_or_rules_is_refused(booking: Booking, alice: User) -> None:
    with pytest.raises(QuotaExceeded, match="costs 8 GPU-hours and you have 6 left"):
        changes.move_end(alice, booking.id, NOW + 7 * HOUR, SLOT)
    with pytest.raises(RuleRefused, match="72 hours"):
        changes.move_end(alice, booking.id, NOW + 100 * HOUR, SLOT)
    assert free(alice) == 6
    assert lines(booking) == [("hold", -14_400)]


@pytest.mark.parametrize("end", [NOW, NOW + HOUR, NOW - HOUR], ids=["now", "the start", "the past"])
def test_an_end_that_is_none_is_refused(booking: Booking, alice: User, end: datetime) -> None:
    with pytest.raises(InvalidInput) as refused:
        changes.move_end(alice, booking.id, end, SLOT)
    assert refused.value.field == "ends_at"


def test_a_naive_end_is_refused(booking: Booking, alice: User) -> None:
    with pytest.raises(InvalidInput, match="no time zone"):
        changes.move_end(alice, booking.id, datetime(2026, 11, 3, 20), SLOT)  # noqa: DTZ001 - on purpose


def test_the_past_never_changes(booking: Booking, alice: User, freeze: Freeze) -> None:
    freeze(NOW + 3 * HOUR)
    with pytest.raises(RuleRefused, match="past bookings cannot change"):
        changes.move_end(alice, booking.id, NOW + 5 * HOUR, SLOT)


def test_only_the_owner_and_admins_change_it(booking: Booking) -> None:
    with pytest.raises(NotFound):
        changes.cancel(make_user("bob"), booking.id)
    changes.cancel(make_admin("root"), booking.id)
    assert booking.cancelled_at == NOW


def test_a_booking_is_settled_once(booking: Booking, host: Host, alice: User, freeze: Freeze) -> None:
    attach(booking)
    freeze(NOW + 3 * HOUR)
    assert recording.settle_ended(host) == 1
    assert recording.settle_ended(host) == 0
    booking.settled_at = None  # as if the job had died before it could say so
    assert recording.settle_ended(host) == 1
    assert lines(booking) == [("hold", -14_400), ("release", 14_400), ("settle", -14_400)]
    assert free(alice) == 6


def test_how_late_it_could_end(booking: Booking, alice: User, host: Host) -> None:
    from app.services import policy

    loaded = bookings.get(alice, booking.id)
    assert changes.longest_extension(loaded, policy.current(), NOW) == NOW + 73 * HOUR
    make_booking(make_user("bob"), gpus_of(host)[1:2], NOW + 5 * HOUR, NOW + 6 * HOUR)
    assert changes.longest_extension(bookings.get(alice, booking.id), policy.current(), NOW) == NOW + 5 * HOUR


def test_an_end_moved_to_where_it_is_changes_nothing(booking: Booking, alice: User) -> None:
    changes.move_end(alice, booking.id, booking.ends_at, SLOT)
    assert lines(booking) == [("hold", -14_400)]
    assert audit.recent(target=f"booking:{booking.id}") == []


def test_an_end_beyond_all_time_is_refused(booking: Booking, alice: User) -> None:
    with pytest.raises(InvalidInput):
        changes.move_end(alice, booking.id, datetime.max.replace(tzinfo=UTC), SLOT)
