"""Whatever people do in whatever order: no overlap, the books add up, each hold is settled once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import hypothesis.strategies as st
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, given, settings

from app import clock
from app.errors import DomainError
from app.extensions import db
from app.models import Account, Allocation, Booking, Host, LedgerEntry, User
from app.services import bookings, changes, recording
from app.services.claims import Ask
from app.services.windows import Window
from tests.factories import gpus_of, make_host, make_user

NOW = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)  # the clocks of Europe change in the night that follows
SLOT = 900

quarter = st.integers(-4, 40).map(lambda n: timedelta(minutes=15 * n))
actions = st.one_of(
    st.tuples(st.just("book"), st.integers(0, 1), st.sets(st.integers(0, 2), max_size=2), quarter, quarter),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("move"), st.integers(0, 5), quarter),
    st.tuples(st.just("wait"), st.integers(1, 7200)),
)


class Day:
    """One run: a host with three GPUs, two people with six GPU-hours each, and a clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.host: Host = make_host(gpus=3)
        self.people: list[User] = [make_user(hours=6), make_user(hours=6)]
        self.made: list[tuple[User, int]] = []

    def do(self, verb: str, *values: object) -> None:
        """One action; refusals are as good as any other outcome."""
        with clock.frozen(self.now):
            try:
                with db.session.begin_nested():
                    getattr(self, verb)(*values)
            except DomainError:
                pass
            recording.settle_ended(self.host)

    def book(self, who: int, numbers: set[int], start: timedelta, length: timedelta) -> None:
        ids = tuple(gpu.id for gpu in gpus_of(self.host) if gpu.minor in numbers)
        begin = self.now + start
        ask = Ask(starts_at=begin, ends_at=begin + length, gpu_ids=ids, host=self.host.name)
        self.made.append((self.people[who], bookings.create(self.people[who], ask, SLOT).id))

    def pick(self, number: int) -> tuple[User, int]:
        return self.made[number % len(self.made)] if self.made else (self.people[0], -1)

    def cancel(self, number: int) -> None:
        changes.cancel(*self.pick(number))

    def end(self, number: int) -> None:
        changes.end_now(*self.pick(number))

    def move(self, number: int, by: timedelta) -> None:
        changes.move_end(*self.pick(number), self.now + by, SLOT)

    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def check(self) -> None:
        """What must hold after every action."""
        db.session.expire_all()
        live = db.session.scalars(sa.select(Allocation).where(Allocation.released_at.is_(None))).all()
        for gpu in gpus_of(self.host):
            windows = sorted((a.starts_at, a.ends_at) for a in live if a.gpu_id == gpu.id)
            assert all(left[1] <= right[0] for left, right in pairwise(windows))
        for person in self.people:
            account = db.session.get(Account, person.account_id)
            assert account is not None
            entries = db.session.scalars(sa.select(LedgerEntry).where(LedgerEntry.account_id == account.id)).all()
            assert account.balance == sum(entry.amount for entry in entries) >= 0

    def check_settled(self) -> None:
        """When all is over, each booking was held, lifted and charged to the second."""
        for _person, booking_id in self.made:
            booking = db.session.get_one(Booking, booking_id)
            entries = db.session.scalars(sa.select(LedgerEntry).where(LedgerEntry.booking_id == booking_id)).all()
            kinds = Counter(entry.kind for entry in entries)
            held = sum(entry.amount for entry in entries if entry.kind in {"hold", "release"})
            charged = -sum(entry.amount for entry in entries if entry.kind == "settle")
            gpus = db.session.scalar(
                sa.select(sa.func.count()).select_from(Allocation).where(Allocation.booking_id == booking_id)
            )
            used = 0 if booking.cancelled_at else (gpus or 0) * Window(booking.starts_at, booking.ends_at).seconds
            assert (held, charged, kinds["settle"]) == (0, used, 0 if booking.cancelled_at else 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(actions, min_size=1, max_size=14))
def test_the_books_add_up(app: Flask, steps: list[tuple[object, ...]]) -> None:
    example = db.session.begin_nested()
    day = Day()
    for verb, *values in steps:
        day.do(str(verb), *values)
        day.check()
    day.now += timedelta(days=2)
    day.do("wait", 1)
    day.check()
    day.check_settled()
    example.rollback()
