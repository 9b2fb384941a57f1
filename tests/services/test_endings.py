"""How a booking ends: who comes next, which GPUs go, and what could go on together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.extensions import db
from app.models import Allocation, Booking, Host, User
from app.services import aligning, bookings, endings, policy
from tests.factories import gpus_of, make_booking, make_instance, make_user
from tests.services.conftest import NOW, Freeze

END = NOW + timedelta(minutes=10)
HOUR = timedelta(hours=1)


@pytest.fixture
def alice(host: Host) -> User:
    return make_user("alice", hours=10)


@pytest.fixture
def booking(host: Host, alice: User) -> Booking:
    """Two GPUs that go in ten minutes."""
    made = make_booking(alice, gpus_of(host)[:2], NOW - HOUR, END)
    return bookings.get(alice, made.id)


def end(booking: Booking) -> endings.End:
    db.session.flush()
    return endings.ends_of([booking])[booking.id]


def test_nobody_comes_next(booking: Booking) -> None:
    found = end(booking)
    assert found.goes == {allocation.id for allocation in booking.allocations}
    assert (found.grace.seconds, found.grace.before) == (20, False)
    assert found.grace.asked_at(END) == END
    assert found.grace.killed_at(END) == END + timedelta(seconds=20)


@pytest.mark.parametrize(("after", "before"), [(0, True), (19, True), (20, False), (3600, False)])
def test_somebody_else_at_once_puts_the_grace_before_the_end(
    booking: Booking, host: Host, after: int, before: bool
) -> None:
    start = END + timedelta(seconds=after)
    make_booking(make_user("bob"), gpus_of(host)[1:2], start, start + HOUR)
    grace = end(booking).grace
    assert grace.before is before
    if before:
        assert grace.asked_at(END) == END - timedelta(seconds=20)
        assert grace.killed_at(END) == END


def test_other_gpus_and_withdrawn_bookings_are_nobody(booking: Booking, host: Host) -> None:
    make_booking(make_user("bob"), gpus_of(host)[2:], END, END + HOUR)
    other = make_booking(make_user("carol"), gpus_of(host)[:1], END, END + HOUR, cancelled_at=NOW, settled_at=NOW)
    db.session.execute(db.update(Allocation).where(Allocation.booking_id == other.id).values(released_at=NOW))
    assert not end(booking).grace.before


def test_without_a_grace_it_cannot_lie_before(booking: Booking, host: Host) -> None:
    policy.current().grace_seconds = 0
    make_booking(make_user("bob"), gpus_of(host)[:1], END, END + HOUR)
    assert end(booking).grace == endings.Grace(0)


def test_what_goes_on_in_ones_own_next_booking_stays(booking: Booking, host: Host, alice: User) -> None:
    make_booking(alice, gpus_of(host)[:1], END, END + HOUR)
    first, second = booking.allocations
    assert end(booking).goes == {second.id}
    assert first.gpu.minor == 0
    soon = endings.soonest(alice)
    assert soon is not None
    assert soon.gpus == 1


def test_another_machine_gets_it_anew(booking: Booking, host: Host, alice: User) -> None:
    make_booking(alice, gpus_of(host)[:2], END, END + HOUR, instance_id=make_instance(alice, host).id)
    assert len(end(booking).goes) == 2
    assert endings.soonest(alice) is not None


def test_the_soonest_of_ones_own(booking: Booking, host: Host, alice: User, freeze: Freeze) -> None:
    make_booking(alice, gpus_of(host)[2:3], NOW - HOUR, END + timedelta(minutes=5))
    make_booking(make_user("bob"), gpus_of(host)[3:], NOW - HOUR, NOW + timedelta(minutes=1))
    assert endings.soonest(alice) == endings.Soon(booking.id, "lab03", END, 2, more=1)
    freeze(END)
    assert endings.soonest(alice) == endings.Soon(booking.id + 1, "lab03", END + timedelta(minutes=5), 1)
    freeze(END - timedelta(minutes=15, seconds=1))
    assert endings.soonest(alice) is None


def test_what_could_end_together(booking: Booking, host: Host, alice: User) -> None:
    later = make_booking(alice, gpus_of(host)[2:3], NOW - HOUR, END + HOUR)
    foreign = make_booking(make_user("bob"), gpus_of(host)[3:], NOW - HOUR, END + 2 * HOUR)
    assert aligning.longest(booking, [later.id, foreign.id, 10**9]) is later
    assert aligning.longest(later, [booking.id]) is None
    assert aligning.can_go_on(booking, END + HOUR)
    assert not aligning.can_go_on(booking, END + 6 * HOUR)  # ten GPU-hours, and some are held
    make_booking(make_user("carol"), gpus_of(host)[:1], END + HOUR / 2, END + HOUR)
    assert not aligning.can_go_on(booking, END + HOUR)
    assert aligning.can_go_on(booking, END + HOUR / 2)


def test_another_gpu_in_its_place(booking: Booking, host: Host, alice: User) -> None:
    assert endings.booked_instead(booking) == []
    booked, given = gpus_of(host)[0], gpus_of(host)[3]
    booking.allocations[0].gpu_id, booking.allocations[0].instead_of_id = given.id, booked.id
    db.session.flush()
    assert endings.booked_instead(bookings.get(alice, booking.id)) == [(booked, given)]
