"""What pages say of a booking when its minutes, and later its hours, are not kept any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Idling, Outcome
from app.services import folding, policy, samples
from app.services.idle import told
from app.services.reports import counted, one
from app.services.samples import Part
from tests.factories import gpus_of, make_booking, make_host, make_user

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
START = datetime(2026, 11, 3, 2, 15, tzinfo=UTC)

Freeze = Callable[[datetime], None]


@pytest.fixture
def booking(app: object, freeze: Freeze) -> Booking:
    """An hour and a half from a quarter past on, busy in every minute."""
    freeze(START)
    host, end = make_host("lab03", gpus=1), START + 90 * MINUTE
    made = make_booking(make_user("liwei"), gpus_of(host), START, end)
    db.session.execute(sa.update(Allocation).values(attached_at=START, detached_at=end))
    freeze(end + 5 * MINUTE)
    address = gpus_of(host)[0].pci_address
    parts = [Part(address, START + at * MINUTE, made.id, "liwei", 60_000, 60_000) for at in range(90)]
    samples.deliver(host.id, "a", parts)
    made.settled_at = clock.now()
    db.session.flush()
    query = sa.select(Booking).options(selectinload(Booking.allocations))
    return db.session.scalars(query.execution_options(populate_existing=True)).one()


def prune(freeze: Freeze, days: int) -> None:
    freeze(START + days * DAY)
    while folding.prune():
        pass
    counted.count()


def test_a_bookings_numbers_stay(booking: Booking, freeze: Freeze) -> None:
    def numbers() -> tuple[float, float, float]:
        whole = one.whole(booking)
        return whole.busy, whole.attached, whole.no_data

    assert numbers() == (5400, 5400, 0)
    prune(freeze, policy.current().minute_days + 2)
    assert one.by_minute(booking, START, START + 90 * MINUTE) == []
    assert numbers() == (5400, 5400, 0)
    prune(freeze, policy.current().hour_days + 2)
    assert numbers() == (5400, 5400, 0)


def test_how_busy_it_was_after_a_trial_ended_it_is_unknown_then_not_nothing(booking: Booking, freeze: Freeze) -> None:
    closed = START + 30 * MINUTE
    times = {"since": START, "told_at": START, "due_at": closed, "closed_at": closed}
    db.session.add(Idling(booking_id=booking.id, trial=True, held=False, outcome=Outcome.WOULD, seconds=3600, **times))
    db.session.flush()
    assert [found.busy_after for found in told.latest()] == [3600]
    policy.current().minute_days = 7
    prune(freeze, 10)
    assert [found.busy_after for found in told.latest()] == [None]
