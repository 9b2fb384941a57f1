"""Every number of a report is what one gets by counting raw samples and bookings one by one, whatever the clocks do."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from app import clock
from app.config import Settings
from app.drivers.fake import FakeLxd
from app.extensions import db, lab_zone
from app.models import Account, Allocation, Booking, Gpu, Host, UsageMinute
from app.models.accounts import TEAM
from app.services import folding, inventory, policy, samples, zones
from app.services.policy import Kept
from app.services.reports import counted, periods, report
from app.services.reports.numbers import Numbers, total
from app.services.reports.periods import Choice, Range
from app.services.reports.pieces import BEFORE, Key, Scope, numbers
from app.services.reports.report import Group, Row
from app.services.reports.spans import Span
from app.services.reports.table import amounts
from app.services.samples import Part
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_user

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# Clocks go back; they go forward; they stand half an hour beside UTC's hours.
PLACES = [
    ("Europe/Berlin", date(2026, 10, 24)),
    ("America/New_York", date(2026, 3, 7)),
    ("Asia/Kolkata", date(2026, 1, 31)),
]


@pytest.fixture(params=PLACES, ids=lambda place: place[0])
def first_day(request: pytest.FixtureRequest) -> date:
    return request.param[1]


@pytest.fixture
def settings(shared_db: str, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    callspec = getattr(request.node, "callspec", None)
    place = callspec.params["first_day"] if callspec else PLACES[0]
    return settings_for(shared_db, tmp_path, BERTH_TZ=place[0])


class Lab:
    """Three days of two hosts, with all that was put into them kept aside in plain lists."""

    def __init__(self, first: date, seed: int) -> None:
        self.dice = random.Random(seed)
        self.start = datetime.combine(first, datetime.min.time(), lab_zone()).astimezone(UTC)
        self.hosts = [make_host(gpus=2, model=model) for model in ("NVIDIA A100", "NVIDIA L40S")]
        self.people = [make_user(hours=9000) for _ in range(3)]
        team = Account(name=f"{TEAM}vision {seed}")
        db.session.add(team)
        db.session.flush()
        self.bookings: list[Booking] = []
        self.samples: list[tuple[int, int, datetime, Part]] = []  # booking, GPU, minute
        for host in self.hosts:
            for gpu in gpus_of(host):
                self._fill(gpu, team)
        self._deliver()

    def _fill(self, gpu: Gpu, team: Account) -> None:
        dice, at = self.dice, self.start - 5 * HOUR
        while at < self.start + 75 * HOUR:
            end = at + dice.choice([HOUR, 3 * HOUR, 7 * HOUR, 29 * HOUR]) + dice.choice([0, 15, 30]) * MINUTE
            booking = make_booking(dice.choice(self.people), [gpu], at, end)
            if dice.random() < 0.3:
                booking.account_id = team.id
            [allocation] = db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id))
            if dice.random() < 0.75:
                allocation.attached_at = at + timedelta(seconds=dice.choice([-4, 0, 3.25, 1800]))
                allocation.detached_at = end + timedelta(seconds=dice.choice([-600, 0, 7]))
                self._measure(booking, gpu, allocation)
            if allocation.attached_at is None and dice.random() < 0.3:
                self._replace(allocation)
            if dice.random() < 0.2:
                allocation.ready_at = at + timedelta(seconds=dice.choice([0, 59, 61, 1500.5]))
            if dice.random() < 0.2:
                allocation.trouble = dice.choice(["stopped", "unreachable"])
            if dice.random() < 0.1:
                allocation.released_at = at
            if self.bookings and dice.random() < (0.3 if allocation.attached_at else 0.8):
                booking.rest_of_id = self.bookings[-1].id
                booking.extended_at = at if dice.random() < 0.3 else None
            self.bookings.append(booking)
            at = end + dice.choice([0, 15, 240]) * MINUTE
        db.session.flush()

    def _replace(self, allocation: Allocation) -> None:
        """Its GPU could not be freed; this one was somebody else's until later, and may be the one that was booked."""
        allocation.booked_from = allocation.starts_at
        allocation.starts_at += self.dice.choice([7, 45]) * MINUTE + timedelta(seconds=self.dice.choice([0, 11]))
        host = db.session.get_one(Host, db.session.get_one(Gpu, allocation.gpu_id).host_id)
        others = [gpu.id for gpu in gpus_of(host) if gpu.id != allocation.gpu_id]
        allocation.instead_of_id = self.dice.choice([*others, None])

    def _measure(self, booking: Booking, gpu: Gpu, allocation: Allocation) -> None:
        minute = (allocation.attached_at or booking.starts_at).replace(second=0, microsecond=0)
        wild = (
            booking.ends_at - booking.starts_at < 2 * HOUR
        )  # an agent whose clock jumps, so that it measured too much
        lost = minute + self.dice.randrange(300) * MINUTE  # for an hour nobody looked
        while minute < min(allocation.detached_at or booking.ends_at, clock.now()):
            if not lost <= minute < lost + HOUR and (wild or self.dice.random() < 0.25):  # some minutes, to be quick
                busy = self.dice.choice([0, 0, 24_000, 60_000] if not wild else [24_000, 120_000])
                part = Part(
                    gpu.pci_address,
                    minute,
                    booking.id,
                    "m2" if minute.hour % 5 == 0 else "m1",  # more than one machine had it in a day
                    max(60_000 + 60_000 * wild, busy),
                    busy,
                    6000,
                    busy // 1000,
                    60,
                )
                self.samples.append((booking.id, gpu.id, minute, part))
            minute += MINUTE

    def _deliver(self) -> None:
        for host in self.hosts:
            own = {gpu.id for gpu in gpus_of(host)}
            parts = [part for _, gpu, _, part in self.samples if gpu in own]
            self.dice.shuffle(parts)  # late, and in any order
            for number in range(0, len(parts), 1500):
                for _twice in range(2):
                    samples.deliver(host.id, f"b{number}", parts[number : number + 1500])

    def count(self, start: datetime, end: datetime, group: Callable[[Booking, Gpu, date], Any]) -> dict[Any, Numbers]:
        """By hand: each booking, GPU and day of the lab's by itself."""
        found: dict[Any, Numbers] = defaultdict(Numbers)
        zone, gpus = lab_zone(), {gpu.id: gpu for gpu in db.session.scalars(sa.select(Gpu))}
        used: dict[Any, list[Part]] = defaultdict(list)
        for booking_id, gpu_id, minute, part in self.samples:
            if start <= minute < end:
                used[booking_id, gpu_id, minute.astimezone(zone).date()].append(part)
        for booking in self.bookings:
            for one in db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id)):
                day = booking.starts_at.astimezone(zone).date()
                while one.released_at is None and day <= booking.ends_at.astimezone(zone).date():
                    left, right = (max(start, _at(day, zone)), min(end, _at(day + timedelta(days=1), zone)))
                    if (lost := _shared(left, right, one.booked_from or one.starts_at, one.starts_at)) > 0:
                        booked = gpus[one.instead_of_id or one.gpu_id]
                        found[group(booking, booked, day)] += Numbers(lost, not_given=lost)
                    parts = used[booking.id, one.gpu_id, day]
                    if (reserved := _shared(left, right, one.starts_at, one.ends_at)) > 0:
                        has, had = one.attached_at or one.ends_at, one.detached_at or one.ends_at
                        attached = _shared(left, right, max(has, one.starts_at), min(had, one.ends_at))
                        sampled = min(sum(part.sampled_ms for part in parts) / 1000, attached)
                        busy = min(sum(part.busy_ms for part in parts) / 1000, sampled)
                        energy = sum(part.energy_j for part in parts)
                        memory = max((part.memory_mib for part in parts), default=0)
                        late = _shared(left, right, one.starts_at, one.ends_at if _untaken(booking) else _given(one))
                        piece = Numbers(reserved, attached, sampled, busy, energy, memory, late)
                        found[group(booking, gpus[one.gpu_id], day)] += piece
                    day += timedelta(days=1)
        return dict(found)


def _at(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, datetime.min.time(), zone).astimezone(UTC)


def _shared(start: datetime, end: datetime, since: datetime, until: datetime) -> float:
    return max(0.0, (min(end, until) - max(start, since)).total_seconds())


def _untaken(booking: Booking) -> bool:
    """Whether nobody asked for it, and no machine took it; each of these has one GPU."""
    [one] = db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id))
    return booking.rest_of_id is not None and booking.extended_at is None and one.attached_at is None


def _given(one: Allocation) -> datetime:
    """From when on it is its owner's doing whether the GPU is theirs."""
    if one.attached_at is None and one.trouble == "unreachable":
        return one.ends_at
    since = min(at for at in (one.attached_at, one.ready_at, one.ends_at) if at is not None).replace(microsecond=0)
    return since if since > one.starts_at + MINUTE else one.starts_at


def _rounded(found: dict[Any, Numbers]) -> dict[Any, tuple[float, ...]]:
    amounts = {
        key: (n.reserved, n.attached, n.sampled, n.busy, n.energy, n.memory, n.not_given) for key, n in found.items()
    }
    return {key: tuple(round(float(value), 3) for value in values) for key, values in amounts.items()}


GROUPS: dict[Key, Callable[[Booking, Gpu], Any]] = {
    Key.PERSON: lambda booking, gpu: booking.user_id,
    Key.HOST: lambda booking, gpu: booking.host_id,
    Key.GPU: lambda booking, gpu: gpu.id,
    Key.MODEL: lambda booking, gpu: gpu.model,
    Key.BOOKING: lambda booking, gpu: booking.id,
}


def test_all_numbers_are_what_counting_by_hand_gives(app: object, first_day: date, freeze: Any) -> None:
    """Whether nothing, the oldest or everything of it was counted before and is kept."""
    freeze(_at(first_day + timedelta(days=3), lab_zone()) + 5 * HOUR + 20 * MINUTE)
    lab = Lab(first_day, first_day.toordinal())
    untaken = [one for one in lab.bookings if _untaken(one) and lab.start <= one.starts_at < clock.now()]
    assert untaken, "rests that no machine took are among them"
    zones.write(str(lab_zone()))
    found = [_as_by_hand(lab, first_day)]
    for later in (timedelta(0), timedelta(days=4)):
        freeze(clock.now() + later)
        found.append(settle_and_count(lab.bookings))
        _as_by_hand(lab, first_day)
    none, some, rest = found
    live = {one.id for one in lab.bookings if not _released(one)}
    assert (none, some & rest, some | rest) == (None, set(), live)
    assert some, "what ended two days ago"
    assert rest


def test_nothing_is_less_than_nothing() -> None:
    """Sums of floats differ by a hair from what they are parts of; "-0" would be printed."""
    sums = 0.1 + 0.2, 0.3
    assert sums[0] > sums[1]
    one = Numbers(reserved=sums[1], attached=sums[0])
    parts = [one, Numbers(attached=sums[1], sampled=sums[0]), Numbers(sampled=sums[1], busy=sums[0])]
    for number in parts:
        assert not [text for text in map(str, amounts(Row(1, "", number)).values()) if text.startswith("-")]


def settle_and_count(bookings: list[Booking]) -> set[int]:
    """Close the books of what is over and count what is long over; the ids of those."""
    for one in bookings:
        one.settled_at = one.ends_at if one.ends_at <= clock.now() else None
    db.session.flush()
    marked = sa.select(Allocation.booking_id).where(Allocation.counted)
    before = set(db.session.scalars(marked))
    while counted.count(7):
        pass
    db.session.expire_all()
    return set(db.session.scalars(marked)) - before


def _released(booking: Booking) -> bool:
    query = sa.select(Allocation.released_at).where(Allocation.booking_id == booking.id)
    return all(db.session.scalars(query))


def _as_by_hand(lab: Lab, first_day: date) -> None:
    zone, midnight = lab_zone(), lab.start
    spans = [
        (midnight, _at(first_day + timedelta(days=3), zone)),  # whole days, over a change of clocks
        (midnight + 5 * HOUR + 17 * MINUTE, midnight + 50 * HOUR + 3 * MINUTE),  # hours and minutes at its ends
        (midnight + 10 * HOUR + 5 * MINUTE, midnight + 10 * HOUR + 41 * MINUTE),
        (midnight - 3 * HOUR, midnight + 30 * timedelta(days=1)),  # ends later than now
    ]
    for start, end in spans:
        span = Span.of(start, end, zone, clock.now())
        days = tuple(range(len(span.days)))
        for key, of in GROUPS.items():
            by_day = lab.count(start, min(end, clock.now()), lambda b, g, day, of=of: (of(b, g), day))
            expected = {(group, span.days.index(day)): one for (group, day), one in by_day.items()}
            found = numbers(span, key, Scope(), days)
            assert expected, "a span in which something happened"
            assert _rounded(found) == _rounded(expected), (key, start, end)
            for one in (*found.values(), total(found.values())):
                assert -1e-6 <= one.busy <= one.sampled + 1e-6 <= one.attached + 2e-6 <= one.reserved + 3e-6
                parts = one.busy, one.idle, one.no_data, one.not_attached, one.not_given
                assert sum(parts) == pytest.approx(one.reserved)
                assert min(parts) > -1e-5
        of_each = lab.count(start, min(end, clock.now()), lambda booking, _gpu, _day: booking.id)
        for booking in (lab.bookings[0], lab.bookings[len(lab.bookings) // 2]):
            found = numbers(span, Key.BOOKING, Scope(booking_id=booking.id))
            assert _rounded(found) == _rounded({(booking.id, 0): of_each[booking.id]} if booking.id in of_each else {})
    [whole] = numbers(Span.of(*spans[0], zone, clock.now()), Key.NOTHING, Scope()).values()
    assert 0 < whole.not_given < whole.not_given + whole.not_attached
    everything = numbers(Span.of(*spans[0], zone, clock.now()), Key.TEAM, Scope())
    teams = {key for key, _bucket in everything if key}
    assert len(teams) == 1
    [one] = numbers(Span.of(*spans[0], zone, clock.now()), Key.NOTHING, Scope(account_id=teams.pop())).values()
    assert one.reserved == sum(n.reserved for (key, _), n in everything.items() if key)
    people = numbers(Span.of(*spans[1], zone, clock.now()), Key.PERSON, Scope())
    for person in lab.people:
        alone = numbers(Span.of(*spans[1], zone, clock.now()), Key.PERSON, Scope(user_id=person.id))
        assert _rounded(alone) == _rounded({key: one for key, one in people.items() if key[0] == person.id})


def test_so_is_all_else_on_a_report(app: object, first_day: date, freeze: Any) -> None:
    """Bars, rows by month, the period before, capacity, use without a booking, the week; of three days."""
    freeze(_at(first_day + timedelta(days=3), lab_zone()) + 5 * HOUR)
    lab = Lab(first_day, first_day.toordinal() + 1)
    zone, start, end = lab_zone(), lab.start, _at(first_day + timedelta(days=3), lab_zone())
    strays = [
        Part(gpus_of(lab.hosts[0])[0].pci_address, minute, 0, "stray", 60_000, 45_000)
        for minute in (start - MINUTE, start + 7 * HOUR, end - MINUTE, end)
    ]
    samples.deliver(lab.hosts[0].id, "strays", strays)
    lab.hosts[0].created_at, lab.hosts[1].created_at = start - HOUR, start + 10 * HOUR
    db.session.flush()
    shown = Range(first_day, first_day + timedelta(days=2))
    span = shown.span(zone, clock.now())
    made = report.make(Choice.CUSTOM, shown, Group.DAY, Scope(), span, clock.now())

    by_day = lab.count(start, end, lambda _b, _g, day: day)
    assert _rounded(dict(made.bars)) == _rounded(by_day)
    assert _rounded({0: made.total}) == _rounded(lab.count(start, end, lambda *_: 0))
    months = {row.day: row.numbers for row in report.rows(span, Group.MONTH, Scope())}
    assert _rounded(months) == _rounded(lab.count(start, end, lambda _b, _g, day: day.replace(day=1)))
    earlier = lab.count(_at(first_day - timedelta(days=3), zone), start, lambda *_: 0)
    assert earlier[0].reserved
    assert _rounded({0: made.before}) == _rounded(earlier)
    assert made.capacity == 4 * (end - start).total_seconds() - 2 * 10 * 3600
    assert made.unbooked == 2 * 45
    some = Span.of(start + 7 * HOUR, end + MINUTE, zone, clock.now())
    assert [report.unbooked(one) for one in (some, Span.of(end, end, zone, clock.now()))] == [3 * 45, 0]
    assert made.week == [[pytest.approx(one) if one is not None else None for one in day] for day in _week(lab, strays)]


def test_a_gpu_is_capacity_while_it_is_there(app: object, tmp_path: Path, freeze: Any) -> None:
    """One card that goes from one host to another and comes back, and one that is bought: as they are synced."""
    start = datetime(2026, 11, 2, tzinfo=UTC)

    def hours(after: int) -> float:
        span = Span.of(start, start + 100 * HOUR, lab_zone(), start + after * HOUR)
        return (report.make(Choice.CUSTOM, shown, Group.DAY, Scope(), span, clock.now()).capacity or 0) / 3600

    def sync(after: int, *gpus: int) -> None:
        freeze(start + after * HOUR)
        for host, count in zip(hosts, gpus, strict=True):
            path.write_text(json.dumps(state | {"gpus": state["gpus"][:count]}))
            inventory.sync_host("boss", host, driver)

    shown = Range(start.date(), start.date() + timedelta(days=4))
    path = tmp_path / "lab.json"
    driver = FakeLxd(path, gpus=3)
    addresses = [gpu.pci_address for gpu in driver.gpus()]
    state = json.loads(path.read_text())
    hosts = [make_host(gpus=count, created_at=start) for count in (2, 1)]
    assert [gpu.pci_address for gpu in gpus_of(hosts[0])] == addresses[:2]
    sync(0, 2, 1)
    assert hours(10) == 30
    sync(10, 1, 2)
    assert hours(20) == 60, "moved, it counts once"
    sync(20, 1, 3)
    assert hours(30) == 60 + 4 * 10, "bought, it counts from then on"
    sync(30, 1, 2)
    assert hours(40) == 100 + 3 * 10, "gone, it counts no longer, and what it gave still does"
    before = hours(40)
    sync(40, 1, 3)
    assert hours(50) == before + 10 + 4 * 10, "back, it counts again, and was never away"


def test_the_time_before_comes_with_the_same_query_whatever_lies_between(
    app: object, first_day: date, freeze: Any
) -> None:
    freeze(_at(first_day + timedelta(days=3), lab_zone()) + 5 * HOUR)
    lab = Lab(first_day, first_day.toordinal() + 2)
    zone, at = lab_zone(), lab.start
    span = Span.of(at + 30 * HOUR, at + 70 * HOUR, zone, clock.now())
    for end in (at + 30 * HOUR, at + 26 * HOUR + 20 * MINUTE, at + 5 * HOUR, at):
        before = Span.of(at, end, zone, clock.now())
        days = tuple(range(len(span.days)))
        found = numbers(span, Key.PERSON, Scope(), days, before)
        earlier = {key: one for (key, bucket), one in found.items() if bucket == BEFORE}
        assert _rounded(earlier) == _rounded(lab.count(at, end, lambda booking, _gpu, _day: booking.user_id))
        both = {key: one for key, one in found.items() if key[1] != BEFORE}
        assert _rounded(both) == _rounded(numbers(span, Key.PERSON, Scope(), days))
        assert set(days) == {bucket for _key, bucket in both}
    future = Span.of(clock.now() + HOUR, clock.now() + 9 * HOUR, zone, clock.now())
    assert {bucket for _key, bucket in numbers(future, Key.PERSON, Scope(), None, span)} == {BEFORE}


def test_the_time_before_ends_where_all_of_it_is_known(app: object, first_day: date, freeze: Any) -> None:
    """Of twelve weeks, four weeks ago. At the day's beginning, where the lab's is within an hour of UTC's, or hours are
    gone as well."""
    zone, now = lab_zone(), _at(first_day, lab_zone()) + 15 * HOUR + 20 * MINUTE
    freeze(now)
    shown = Range(first_day - timedelta(days=28), first_day + timedelta(days=55))
    span = shown.span(zone, now)
    half = bool(_at(first_day, zone).minute)
    ends = {}
    for days in ((400, 800), (2, 800), (2, 40)):
        kept = Kept(*(now - timedelta(days=one) for one in days))
        before = periods.before(span, Choice.CUSTOM, shown, now, kept)[1]
        assert before.start == _at(first_day - timedelta(days=112), zone)
        ends[days] = before.until - before.start
    passed = span.until - span.start
    whole = timedelta(days=28) if half else passed - 20 * MINUTE
    assert ends == {(400, 800): passed, (2, 800): whole, (2, 40): timedelta(days=28)}


def _week(lab: Lab, strays: list[Part]) -> list[list[float | None]]:
    """Where a zone stands half an hour beside UTC, an hour is the one of UTC's that begins in it."""
    zone, first = lab_zone(), lab.start.astimezone(lab_zone()).date()
    sums: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    half = lab.start.minute
    for part in (*(part for *_, part in lab.samples), *strays):
        local = (part.minute.replace(minute=0) if half else part.minute).astimezone(zone)
        if first <= local.date() < first + timedelta(days=3):
            sums[local.weekday(), local.hour][0] += part.busy_ms
            sums[local.weekday(), local.hour][1] += part.sampled_ms
    shares = {key: min(busy / sampled, 1.0) for key, (busy, sampled) in sums.items() if sampled}
    return [[shares.get((day, hour)) for hour in range(24)] for day in range(7)]


def test_what_is_old_goes_by_steps_and_reports_of_days_stay(app: object, freeze: Any, monkeypatch: Any) -> None:
    freeze(datetime(2026, 10, 28, tzinfo=UTC))
    lab = Lab(date(2026, 10, 24), 5)
    span = Span.of(lab.start, _at(date(2026, 10, 27), lab_zone()), lab_zone(), clock.now())
    before = numbers(span, Key.BOOKING, Scope())
    policy.current().minute_days, policy.current().hour_days = 2, 40
    monkeypatch.setattr(folding, "AT_ONCE", 100)
    line = clock.now() - timedelta(days=2)
    steps = 0
    while folding.prune():
        steps += 1
    left = db.session.scalars(sa.select(UsageMinute.minute)).all()
    kept = {(booking, gpu, minute) for booking, gpu, minute, _part in lab.samples if minute >= line}
    assert (len(left), min(left) >= line, steps > 3) == (len(kept), True, True)
    assert numbers(span, Key.BOOKING, Scope()) == before
    tables = ("usage_minutes", "usage_hours", "usage_days", "usage_batches", "usage_host_hours")
    freeze(clock.now() + timedelta(days=50))
    while folding.prune():
        pass
    counts = [db.session.scalar(sa.text(f"SELECT count(*) FROM {name}")) for name in tables]
    assert counts[:2] + counts[3:] == [0, 0, 0, 0]
    assert counts[2]
    assert numbers(span, Key.BOOKING, Scope()) == before
