"""Whatever people do in whatever order: no overlap, the books add up, each hold is settled once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, given
from hypothesis import settings as budget

from app import clock
from app.config import Settings
from app.errors import DomainError
from app.extensions import db
from app.models import Account, Allocation, Booking, Charge, Host, LedgerEntry, User
from app.services import bookings, changes, charges, noshows, policy, quota, recording, resizing, starts, teams
from app.services.claims import Ask
from app.services.resizing import Size
from app.services.rules import amounts, classes, gate, limits
from app.services.windows import Window
from tests.conftest import settings_for
from tests.factories import gpus_of, make_admin, make_host, make_user

NOW = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)  # the clocks of Europe change in the night that follows
SLOT = 900
ZONE = ZoneInfo("Europe/Berlin")
CAP = 2  # GPU-hours a month of a member


@pytest.fixture
def settings(shared_db: str, tmp_path: Path) -> Settings:
    """A lab where the clocks change."""
    return settings_for(shared_db, tmp_path, BERTH_TZ="Europe/Berlin")


quarter = st.integers(-4, 40).map(lambda n: timedelta(minutes=15 * n))
begins = st.sampled_from([0, 1, 4, 9, 30, -1]).map(lambda n: timedelta(minutes=15 * n))
lasts = st.sampled_from([4, 1, 2, 9, 20, 0, -1]).map(lambda n: timedelta(minutes=15 * n))
book = st.tuples(
    st.just("book"), st.integers(0, 1), st.sets(st.integers(0, 2), max_size=2), begins, lasts, st.booleans()
)
# Each run begins with one that can be had: of what is refused, nothing else can be done.
first = st.tuples(
    st.just("book"),
    st.integers(0, 1),
    st.sampled_from([{0}, {1, 2}]),
    st.sampled_from([0, 1, 9]).map(lambda n: timedelta(minutes=15 * n)),
    st.sampled_from([4, 7]).map(lambda n: timedelta(minutes=15 * n)),
    st.just(False),
)
actions = st.one_of(
    book,
    book,
    st.tuples(st.just("begin"), st.integers(0, 5), quarter),
    st.tuples(st.just("stay_away"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("move"), st.integers(0, 5), quarter),
    st.tuples(st.just("resize"), st.integers(0, 5), st.integers(0, 4)),
    st.tuples(st.just("wait"), st.integers(1, 7200)),
    st.tuples(st.just("month"), st.integers(0, 1)),
    st.tuples(st.just("idle"), st.integers(0, 5)),
    st.tuples(st.just("charge"), st.sampled_from(Charge)),
    st.tuples(st.just("attach"), st.integers(0, 5)),
    st.tuples(st.just("refund"), st.integers(0, 1), st.integers(-3, 3)),
)
CLASSES: list[dict[str, Any]] = [
    {},
    {"peak_percent": 170, "peak_from": 1, "peak_to": 5, "peak_days": [6], "weights": {"NVIDIA RTX A6000": 130}},
    {"late_hours": 3, "late_percent": 33, "gpus_at_once": 2, "hours_day": 5, "bookings_ahead": 2},
    {"noshow_minutes": 15, "late_hours": 2, "late_percent": 50},
    {"peak_percent": 0, "peak_days": [5, 6], "peak_from": 22, "peak_to": 24, "late_hours": 1, "late_percent": 100},
]


class Day:
    """One run: a host with three GPUs, two people with six GPU-hours each, of classes with these rules, and a clock.
    Both are in a team with five hours a month, of the second one's class, that lets the second one book two of them."""

    def __init__(self, *rules: dict[str, Any]) -> None:
        self.now = NOW
        self.host: Host = make_host(gpus=3)
        self.people: list[User] = [make_user(hours=6), make_user(hours=6)]
        self.boss = make_admin()
        for person, own in zip(self.people, rules, strict=True):
            assert person.account is not None
            found = classes.create(self.boss, f"class of {person.username}")
            classes.change(self.boss, found.id, own)
            classes.assign(self.boss, person.account, found.id)
        first, second = self.people
        self.team: Account = teams.create(self.boss, "crew", first.username, 5)
        teams.add(self.boss, self.team, second.username)
        teams.limit(self.boss, self.team, second.username, CAP, owner=False)
        assert second.account is not None
        classes.assign(self.boss, self.team, second.account.class_id)
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

    def book(self, who: int, numbers: set[int], start: timedelta, length: timedelta, team: bool) -> None:
        ids = tuple(gpu.id for gpu in gpus_of(self.host) if gpu.minor in numbers)
        begin = self.now + start
        payer = self.team.name if team else ""
        ask = Ask(starts_at=begin, ends_at=begin + length, gpu_ids=ids, host=self.host.name, account=payer)
        self.made.append((self.people[who], bookings.create(self.people[who], ask, SLOT).id))

    def pick(self, number: int) -> tuple[User, int]:
        return self.made[number % len(self.made)] if self.made else (self.people[0], -1)

    def cancel(self, number: int) -> None:
        changes.cancel(*self.pick(number))

    def end(self, number: int) -> None:
        changes.end_now(*self.pick(number))

    def move(self, number: int, by: timedelta) -> None:
        changes.move_end(*self.pick(number), self.now + by, SLOT)

    def begin(self, number: int, by: timedelta) -> None:
        starts.move_start(*self.pick(number), self.now + by, SLOT)

    def resize(self, number: int, count: int) -> None:
        resizing.resize(*self.pick(number), Size(count), SLOT)

    def stay_away(self, number: int) -> None:
        """A pass finds no machine of its owner's, if it runs: once the rules say so, it is given up."""
        booking = bookings.get(self.boss, self.pick(number)[1])
        for allocation in booking.allocations if booking.phase(self.now) == "running" else ():
            allocation.trouble, allocation.ready_at = "no_machine", allocation.ready_at or self.now
        db.session.flush()
        noshows.end_next(self.host)

    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def idle(self, number: int) -> None:
        """It is taken back unused, as for doing nothing."""
        changes.reclaim(*self.pick(number), lambda _booking: True, actor="idle", action="booking.reclaimed")

    def charge(self, what: Charge) -> None:
        policy.current().charge = what

    def attach(self, number: int) -> None:
        """Its GPUs are seen to be there, if it runs."""
        booking = bookings.get(*self.pick(number))
        for allocation in booking.allocations if booking.phase(self.now) == "running" else ():
            allocation.attached_at = allocation.attached_at or self.now
        db.session.flush()

    def month(self, who: int) -> None:
        """The monthly hours come now, and lapse first: as on the first of the month."""
        account = db.session.get_one(Account, self.people[who].account_id)
        quota.set_monthly(account, 4, ZONE, actor="ada")
        account.renews_at = self.now
        quota.renew_due(ZONE)

    def refund(self, who: int, hours: int) -> None:
        account = db.session.get_one(Account, self.people[who].account_id)
        if quota.free(account.id) + hours * 3600 >= 0:
            quota.grant(account, hours, actor="ada")

    def check(self) -> None:
        """What must hold after every action."""
        db.session.expire_all()
        live = db.session.scalars(sa.select(Allocation).where(Allocation.released_at.is_(None))).all()
        for gpu in gpus_of(self.host):
            windows = sorted((a.starts_at, a.ends_at) for a in live if a.gpu_id == gpu.id)
            assert all(left[1] <= right[0] for left, right in pairwise(windows))
        for account_id in (self.team.id, *(person.account_id for person in self.people)):
            account = db.session.get(Account, account_id)
            assert account is not None
            entries = db.session.scalars(sa.select(LedgerEntry).where(LedgerEntry.account_id == account.id)).all()
            assert account.balance == sum(entry.amount for entry in entries) >= 0
        self.check_rules()

    def check_rules(self) -> None:
        """What an account has at any one moment, and what it has ahead, is what its class allows."""
        capped = self.people[1].id
        shared = [one for one in gate.claims_of(self.team.id, self.now - timedelta(days=9)) if one.user_id == capped]
        assert amounts.booked_in(teams.month_of(self.team, self.now), shared) <= CAP * 3600
        for account_id in (self.team.id, *(person.account_id for person in self.people)):
            rules = classes.rules_for(account_id)
            claims = gate.claims_of(account_id or 0, self.now - timedelta(days=9))
            whole = Window(self.now - timedelta(days=9), self.now + timedelta(days=9))
            assert limits.most_at_once(whole, claims)[0] <= (rules.gpus_at_once or 99)
            if rules.hours_day is not None:
                assert all(use.booked <= use.limit for use in amounts.uses(self.now, claims, rules, ZONE))
            assert sum(claim.window.starts_at > self.now for claim in claims) <= (rules.bookings_ahead or 99)

    def check_settled(self) -> None:
        """When all is over, each booking was held, lifted and charged to the second."""
        for _person, booking_id in self.made:
            booking = db.session.get_one(Booking, booking_id)
            entries = db.session.scalars(sa.select(LedgerEntry).where(LedgerEntry.booking_id == booking_id)).all()
            kinds = Counter(entry.kind for entry in entries if not entry.key.startswith(("fee:", "unused:")))
            held = sum(entry.amount for entry in entries if entry.kind in {"hold", "release"})
            charged = -sum(e.amount for e in entries if e.key == f"settle:{booking_id}")
            used = 0 if booking.cancelled_at else self.second_by_second(booking, booking.ends_at)
            note = charges.explained(entries[-1].note)
            if note and note[0] == "attached":
                assert note == ("attached", charged, used)
                assert charged < used
                used = charged
            elif not booking.cancelled_at:
                due = self.due(booking, used)
                assert note == (None if due == used else ("given", due, used))
                used = due
            fees = [entry for entry in entries if entry.key.startswith("fee:")]
            assert not fees or classes.rules_for(booking.account_id).late_percent
            assert (held, charged, kinds["settle"]) == (0, used, 0 if booking.cancelled_at else 1)

    def due(self, booking: Booking, whole: int) -> int:
        """What of it is to be paid: of each GPU what was not lost before it, or else its owner, could have come."""
        lost, gpus = 0, bookings.get(self.boss, booking.id).allocations
        for one in gpus:
            theirs = [at for at in (one.attached_at, one.ready_at) if at is not None]
            since = min([*theirs, booking.ends_at])
            late = (since - booking.starts_at).total_seconds() > 60
            lost += self.second_by_second(booking, since) if late else 0
        return (whole * len(gpus) - lost + len(gpus) // 2) // len(gpus)

    def second_by_second(self, booking: Booking, end: datetime) -> int:
        """What it costs until then, counted without any of the product's arithmetic: minute by minute, since all lies
        on those but the moments that somebody chose by "End now" and a pass by looking."""
        own, booking = classes.rules_for(booking.account_id), bookings.get(self.boss, booking.id)
        gpus = sum(own.weights.get(allocation.gpu.model, 100) for allocation in booking.allocations)
        moment, total = booking.starts_at, 0
        while moment < end:
            step = min(timedelta(minutes=1) - timedelta(seconds=moment.second), end - moment)
            local = moment.astimezone(ZONE)
            peak = local.weekday() in own.peak_days and own.peak_from <= local.hour < own.peak_to
            percent = own.peak_percent if peak and own.peak_percent is not None else 100
            total += int(step.total_seconds()) * gpus * percent
            moment += step
        return (total + 5000) // 10_000


@budget(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first,
    st.lists(actions, min_size=3, max_size=12),
    st.tuples(st.integers(0, len(CLASSES) - 1), st.integers(0, len(CLASSES) - 1)),
)
def test_the_books_add_up(
    app: Flask, begun: tuple[object, ...], steps: list[tuple[object, ...]], kinds: tuple[int, int]
) -> None:
    example = db.session.begin_nested()
    day = Day(*(CLASSES[number] for number in kinds))
    for verb, *values in (begun, *steps):
        day.do(str(verb), *values)
        day.check()
    day.now += timedelta(days=2)
    day.do("wait", 1)
    day.check()
    day.check_settled()
    example.rollback()
