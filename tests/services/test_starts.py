"""The start of a booking moved: what it costs, what the rules say, and whom it would push away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import Conflict, InvalidInput, RuleRefused, SlotTaken
from app.models import Booking, User
from app.services import bookings, changes, quota, starts
from app.services.bookings import Ask
from app.services.rules import fees, tariff
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.services.conftest import Freeze
from tests.services.test_classes import ledger, set_rules

NOW = datetime(2026, 11, 3, 4, 0, tzinfo=UTC)  # Tuesday noon in the lab
HOUR = timedelta(hours=1)
SLOT = 900

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture(autouse=True)
def _still(freeze: Freeze) -> None:
    freeze(NOW)


@pytest.fixture
def alice() -> User:
    return make_user("alice", hours=20)


@pytest.fixture
def booking(alice: User) -> Booking:
    """Two GPUs, from 16:00 to 20:00 in the lab."""
    make_host(gpus=2)
    return bookings.create(alice, Ask(starts_at=NOW + 4 * HOUR, ends_at=NOW + 8 * HOUR, count=2), SLOT)


def free(user: User) -> float:
    return quota.free(user.account_id or 0) / 3600


def test_earlier_it_holds_more_and_later_it_gives_back(booking: Booking, alice: User) -> None:
    starts.move_start(alice, booking.id, NOW + 2 * HOUR, SLOT)
    assert (free(alice), quota.held_for(booking.id)) == (8, tariff.cost(booking))
    starts.move_start(alice, booking.id, NOW + 5 * HOUR + timedelta(minutes=7), SLOT)
    assert booking.starts_at == NOW + 5 * HOUR  # snapped as a new one would be
    assert {one.starts_at for one in booking.allocations} == {booking.starts_at}
    assert (free(alice), quota.held_for(booking.id)) == (14, tariff.cost(booking))
    assert [kind for kind, _amount in ledger(booking)] == ["hold", "hold", "release"]


def test_an_end_that_stays_is_not_snapped_to_a_grid_that_came_later(booking: Booking, alice: User) -> None:
    changes.move_end(alice, booking.id, NOW + 6.25 * HOUR, SLOT)
    set_rules(make_admin("boss"), alice, grid_minutes=60)
    starts.move(alice, booking.id, Window(NOW + 5 * HOUR, booking.ends_at), SLOT)
    assert (booking.starts_at, booking.ends_at) == (NOW + 5 * HOUR, NOW + 6.25 * HOUR)
    assert free(alice) == 20 - 2 * 1.25


def test_what_cannot_be_changes_nothing(booking: Booking, alice: User, freeze: Freeze) -> None:
    make_booking(make_user("bob"), gpus_of(booking.host)[:1], NOW + HOUR, NOW + 2 * HOUR)
    with pytest.raises(SlotTaken, match="Bob"):
        starts.move_start(alice, booking.id, NOW + HOUR, SLOT)
    with pytest.raises(InvalidInput, match="before the end"):
        starts.move_start(alice, booking.id, NOW + 8 * HOUR, SLOT)
    with pytest.raises(InvalidInput, match="past"):
        starts.move_start(alice, booking.id, NOW - HOUR, SLOT)
    with pytest.raises(Conflict, match="changed meanwhile"):
        starts.move_start(alice, booking.id, NOW + 5 * HOUR, SLOT, seen=NOW + 3 * HOUR)
    assert (booking.starts_at, free(alice)) == (NOW + 4 * HOUR, 12)
    freeze(NOW + 4 * HOUR)
    with pytest.raises(RuleRefused, match="has started"):
        starts.move_start(alice, booking.id, NOW + 5 * HOUR, SLOT)
    freeze(NOW + 8 * HOUR)
    with pytest.raises(RuleRefused, match="past bookings"):
        starts.move_start(alice, booking.id, NOW + 7 * HOUR, SLOT)


def test_rules_hold_for_an_earlier_start(booking: Booking, alice: User) -> None:
    boss = make_admin("boss")
    set_rules(boss, alice, max_hours=6, notice_minutes=60)
    with pytest.raises(RuleRefused, match="6 hours at most"):
        starts.move_start(alice, booking.id, NOW + HOUR, SLOT)
    set_rules(boss, alice, notice_minutes=180)
    with pytest.raises(RuleRefused, match="180 minutes before"):
        starts.move_start(alice, booking.id, NOW + 2 * HOUR, SLOT)
    starts.move_start(alice, booking.id, NOW + 3 * HOUR, SLOT)
    changes.move_end(alice, booking.id, NOW + 9 * HOUR, SLOT)  # a later end needs no notice


def test_giving_back_the_beginning_late_costs_as_cancelling_it_would(booking: Booking, alice: User) -> None:
    set_rules(make_admin("boss"), alice, late_hours=6, late_percent=50)
    whole = fees.late(booking, booking.starts_at, booking.ends_at, NOW)
    starts.move_start(alice, booking.id, NOW + 7 * HOUR, SLOT)
    assert [amount for kind, amount in ledger(booking) if kind == "settle"] == [-whole]
    assert fees.late(booking, booking.starts_at, booking.ends_at, NOW) == 0


def test_both_ends_at_once_need_no_more_than_the_new_time(booking: Booking, alice: User) -> None:
    changes.move_end(alice, booking.id, NOW + 14 * HOUR, SLOT)  # all of the quota
    for begins in (6, 1):  # later, then earlier: each as long as before
        starts.move(alice, booking.id, Window(NOW + begins * HOUR, NOW + (begins + 10) * HOUR), SLOT)
        assert (booking.starts_at, free(alice)) == (NOW + begins * HOUR, 0)
    with pytest.raises(InvalidInput, match="no moment in common"):
        starts.move(alice, booking.id, Window(NOW + 12 * HOUR, NOW + 14 * HOUR), SLOT)
    with pytest.raises(InvalidInput, match="after the start"):
        starts.move(alice, booking.id, Window(NOW + 3 * HOUR, NOW + 2 * HOUR), SLOT)
