"""Series: when they are, what each of them gets, all or none, those that fit, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app import clock
from app.errors import Conflict, InvalidInput, QuotaExceeded, RuleRefused, SlotTaken
from app.extensions import db, transaction
from app.models import AuditEvent, Booking, Host, LedgerEntry, Series, User
from app.services import accounts, bookings, news, notice_words, notices, openings, policy, quota
from app.services.claims import Ask
from app.services.rules import classes
from app.services.series import later, making, places, reading
from app.services.series.patterns import DAY, WEEK, WORKDAYS, Pattern, checked
from app.services.series.reading import Place
from app.services.series.trial import NotAll, Wish
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_user
from tests.services.conftest import NOW, Freeze, waits

HOUR = timedelta(hours=1)
NIGHT = Pattern(WORKDAYS, 20 * 3600, 32 * 3600, "Asia/Shanghai", date(2026, 11, 4), date(2026, 11, 17))
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "Africa/Casablanca")
SLOT = 900


def wish(pattern: Pattern = NIGHT, **ask: Any) -> Wish:
    return Wish(pattern, Ask(ends_at=NOW, **ask))


def at(day: int, hour: float) -> datetime:
    """An hour of a day of November by the lab's clock."""
    return datetime(2026, 11, day, tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC) + hour * HOUR


def rules(**values: Any) -> None:
    classes.change(make_admin(), classes.default().id, values)


def balance_is_the_sum(account_id: int) -> bool:
    total = db.session.scalar(sa.select(sa.func.sum(LedgerEntry.amount)).where(LedgerEntry.account_id == account_id))
    return quota.free(account_id) == total


@given(
    zone=st.sampled_from(ZONES),
    first=st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    opens=st.integers(0, 95).map(lambda quarter: quarter * 900),
    length=st.integers(1, 100).map(lambda quarter: quarter * 900),
    weekdays=st.sets(st.integers(0, 6), min_size=1),
)
def test_it_keeps_to_the_wall_clock(zone: str, first: date, opens: int, length: int, weekdays: set[int]) -> None:
    pattern = Pattern(tuple(sorted(weekdays)), opens, opens + length, zone, first, first + timedelta(days=30))
    for day in pattern.days():
        assert day.weekday() in weekdays
        window = pattern.on(day)
        for moment, seconds in ((window.starts_at, opens), (window.ends_at, opens + length)):
            meant = datetime.combine(day, time()) + timedelta(seconds=seconds)
            read = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            assert read == meant or timedelta() < read - meant <= HOUR  # the clocks jump over it: as much later
        assert abs(window.seconds - length) <= 3600


def test_a_night_is_an_hour_shorter_or_longer_when_clocks_change() -> None:
    spring = Pattern((5, 6), 20 * 3600, 32 * 3600, "Europe/Berlin", date(2026, 3, 27), date(2026, 3, 29))
    autumn = replace(spring, first_day=date(2026, 10, 23), until=date(2026, 10, 25))
    assert [spring.on(day).seconds // 3600 for day in spring.days()] == [11, 12]
    assert [autumn.on(day).seconds // 3600 for day in autumn.days()] == [13, 12]


def test_a_window_that_the_clocks_jump_over_is_refused_alone(app: Flask, freeze: Freeze) -> None:
    freeze(datetime(2026, 3, 26, 12, tzinfo=UTC))
    make_host()
    gone = Pattern((5, 6), 9000, 10800, "Europe/Berlin", date(2026, 3, 28), date(2026, 3, 29))  # 02:30 to 03:00
    found = making.preview(make_user(), wish(gone), SLOT).occurrences
    assert [one.refused is None for one in found] == [True, False]
    assert "after the start" in str(found[1].refused)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"weekdays": ()}, "weekdays"),
        ({"until": date(2026, 11, 3)}, "until"),
        ({"until": date(2028, 1, 1)}, "until"),
        ({"until": date(2027, 11, 3)}, "until"),
        ({"weekdays": (5,), "until": date(2026, 11, 6)}, "until"),
        ({"closes": 20 * 3600}, "ends_at"),
        ({"opens": DAY}, "starts_at"),
    ],
)
def test_what_cannot_be_meant_names_its_field(app: Flask, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked(replace(NIGHT, **change))
    assert refused.value.field == field


def test_ten_nights_on_the_same_gpus_at_their_cost(host: Host, alice: User) -> None:
    quota.grant(accounts.account_of("alice"), 200, actor="test")
    make_booking(make_user(), gpus_of(host)[:2], at(6, 22), at(7, 1))
    made = making.create(alice, wish(count=2, note="nightly"), SLOT)
    assert len(made.bookings) == 10
    assert {tuple(one.gpu.minor for one in booking.allocations) for booking in made.bookings} == {(2, 3)}
    assert [booking.starts_at for booking in made.bookings] == [at(day, 20) for day in (4, 5, 6, *range(9, 14), 16, 17)]
    assert quota.free(alice.account_id or 0) == (300 - 240) * 3600
    assert balance_is_the_sum(alice.account_id or 0)
    ids = [booking.id for booking in made.bookings]
    assert reading.place_of(made.bookings[2]) == Place(3, 10, ids[1], ids[3], later=True)


def test_others_take_their_place_where_the_same_are_not_free(host: Host, alice: User) -> None:
    other = make_host("lab09", gpus=1)
    make_instance(alice, host)
    make_booking(make_user(hours=5000), gpus_of(host)[1:], at(4, 12), at(30, 12))
    make_booking(make_user(), gpus_of(host)[:1], at(5, 22), at(6, 1))
    made = making.create(alice, wish(replace(NIGHT, until=date(2026, 11, 6))), SLOT)
    gpu, instead = gpus_of(host)[0].id, gpus_of(other)[0].id
    assert [one.allocations[0].gpu_id for one in made.bookings] == [gpu, instead, gpu]


def test_a_preview_changes_nothing_and_says_what_booking_does(host: Host, alice: User) -> None:
    """The quota ends in the middle, and one night is taken: each refused in the words in which one booking would be."""
    make_booking(make_user(), gpus_of(host), at(5, 23), at(6, 1))
    asked = wish(count=2)
    shown = making.preview(alice, asked, SLOT)
    kinds = [type(one.refused) for one in shown.occurrences]
    assert kinds == [type(None), SlotTaken, *[type(None)] * 3, *[QuotaExceeded] * 5]
    with pytest.raises(SlotTaken) as alone:
        bookings.create(alice, Ask(at(6, 8), at(5, 20), count=2), SLOT)
    assert str(shown.occurrences[1].refused) == str(alone.value)
    assert "costs 24 GPU-hours and you have 4 left" in str(shown.occurrences[5].refused)
    assert (shown.free, shown.cost) == (100 * 3600, 96 * 3600)
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Series)) == 0
    assert quota.free(alice.account_id or 0) == 100 * 3600
    with pytest.raises(NotAll, match="6 of 10 bookings are not possible") as none:
        making.create(alice, asked, SLOT)
    assert len(none.value.refused) == 6
    assert bookings.mine(alice) == []
    made = making.create(alice, asked, SLOT, partial=True)
    assert [one.starts_at for one in made.bookings] == [one.window.starts_at for one in shown.fitting]
    assert quota.free(alice.account_id or 0) == 4 * 3600
    assert balance_is_the_sum(alice.account_id or 0)


def test_the_rules_count_those_before(host: Host, alice: User) -> None:
    rules(bookings_ahead=3, hours_week=30)
    found = making.preview(alice, wish(replace(NIGHT, until=date(2026, 11, 12))), SLOT).occurrences
    names = [one.refused and one.refused.details["rule"] for one in found]
    # two nights and a half fit into the week; three bookings may be ahead
    assert names == [None, None, "hours_week", None, "bookings_ahead", "bookings_ahead", "bookings_ahead"]
    policy.current().horizon_days = 5
    assert isinstance(making.preview(alice, wish(), SLOT).occurrences[-1].refused, RuleRefused)


def test_the_same_key_books_once(host: Host, alice: User) -> None:
    asked = wish(replace(NIGHT, until=date(2026, 11, 6)), request_key="k")
    first, again = (making.create(alice, asked, SLOT) for _ in range(2))
    assert first.series.id == again.series.id
    assert [one.id for one in first.bookings] == [one.id for one in again.bookings]
    assert len(bookings.mine(alice)) == 3


def test_what_was_shown_is_booked_or_nothing(host: Host, alice: User, freeze: Freeze) -> None:
    asked = wish(replace(NIGHT, until=date(2026, 11, 6)))
    plan = {
        one.window.starts_at: tuple(gpu.id for gpu in one.gpus) for one in making.preview(alice, asked, SLOT).fitting
    }
    other = gpus_of(make_host())[0].id
    made = making.create(alice, asked, SLOT, plan={at(5, 20): (other,)})
    assert [(one.starts_at, one.allocations[0].gpu_id) for one in made.bookings] == [(at(5, 20), other)]
    make_booking(make_user(), gpus_of(host)[:1], at(6, 21), at(6, 22))
    with pytest.raises(NotAll, match="1 of 3 bookings is not possible"):
        making.create(alice, asked, SLOT, plan=plan)
    with pytest.raises(Conflict, match="not what they were"):
        making.create(alice, replace(asked, pattern=replace(asked.pattern, zone="Asia/Tokyo")), SLOT, plan=plan)
    assert len(bookings.mine(alice)) == 1


def test_days_that_are_over_are_left_out(host: Host, alice: User, freeze: Freeze) -> None:
    freeze(at(5, 21))
    assert making.preview(alice, wish(), SLOT).occurrences[0].window.starts_at == at(6, 20)
    freeze(at(18, 1))
    with pytest.raises(InvalidInput, match="None of these days"):
        making.preview(alice, wish(), SLOT)


def test_a_race_books_all_of_one_series_and_nothing_of_the_other(
    core: Flask, aside: Callable[..., Future[Any]]
) -> None:
    """Four people want crossing nights of the same two GPUs: nobody waits in a circle, and there is no half series."""
    today = clock.now().astimezone(ZoneInfo("Asia/Shanghai")).date()
    with core.app_context():
        ids = [gpu.id for gpu in gpus_of(make_host("ws1", gpus=2))]
        names = [make_user().username for _ in range(4)]
        db.session.commit()
    pattern = Pattern(WEEK, 72000, 75600, "Asia/Shanghai", today + timedelta(1), today + timedelta(5))

    def book(name: str, gpu_ids: list[int]) -> int:
        plan = {pattern.on(day).starts_at: (gpu_ids[number % 2],) for number, day in enumerate(pattern.days())}
        return len(making.create(accounts.get(name), wish(pattern), SLOT, plan=plan).bookings)

    with core.app_context(), db.engine.begin() as connection:
        connection.execute(sa.text(f"SELECT 1 FROM gpus WHERE id = {ids[0]} FOR UPDATE"))
        racing = [aside(book, name, ids[:: (-1) ** number]) for number, name in enumerate(names)]
        waits(core, 4)
    ends = [one.exception(20) for one in racing]
    assert sorted(type(end).__name__ for end in ends) == ["NoneType", "NoneType", "NotAll", "NotAll"]
    with core.app_context():
        made = db.session.scalars(sa.select(Booking.series_id)).all()
        assert sorted(made.count(number) for number in set(made)) == [5, 5]
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Series)) == 2
        told = db.session.scalars(sa.select(AuditEvent.action)).all()
        assert sorted(told) == ["booking.created"] * 10 + ["series.created"] * 2


def a_week(alice: User, **ask: Any) -> making.Made:
    """Wednesday to Friday, and Monday, Tuesday."""
    return making.create(alice, wish(replace(NIGHT, until=date(2026, 11, 10)), **ask), SLOT)


def test_this_one_and_all_later_ones_are_given_back(host: Host, alice: User, freeze: Freeze) -> None:
    rules(late_hours=24, late_percent=50)
    made = a_week(alice)
    freeze(at(5, 8))
    gone = later.cancel(alice, made.series, made.bookings[1].starts_at)
    assert [booking.id for booking in gone] == [booking.id for booking in made.bookings[1:]]
    # Of four nights, half of the 12 h of the next day's are charged; the first one is held still.
    assert quota.free(alice.account_id or 0) == (100 - 12 - 6) * 3600
    assert balance_is_the_sum(alice.account_id or 0)
    assert not openings.any_overlap([gone[0].allocations[0].gpu_id], Window(at(5, 8), at(12, 8)))
    with pytest.raises(RuleRefused, match="Nothing of this series"):
        later.cancel(alice, made.series, at(5, 8))


def test_what_runs_already_stays_when_the_rest_is_given_back(host: Host, alice: User, freeze: Freeze) -> None:
    made = a_week(alice)
    freeze(at(4, 21))
    assert len(later.cancel(alice, made.series, at(4, 20))) == 4
    assert bookings.get(alice, made.bookings[0].id).cancelled_at is None


def test_the_later_ones_are_moved_and_are_a_series_of_their_own(host: Host, alice: User) -> None:
    made = a_week(alice)
    since, hours = made.bookings[2].starts_at, (21 * 3600, 31 * 3600)
    shown = later.preview(alice, made.series, since, hours, SLOT)
    assert [(one.after.starts_at, one.more) for one in shown] == [(at(day, 21), -2 * 3600) for day in (6, 9, 10)]
    assert made.series.opens == 20 * 3600
    new, _moves = later.move(alice, made.series, since, hours, SLOT, [one.booking_id for one in shown])
    assert [one.starts_at for one in reading.members(made.series.id)] == [at(4, 20), at(5, 20)]
    assert [one.starts_at for one in reading.members(new.id)] == [at(day, 21) for day in (6, 9, 10)]
    assert reading.pattern_of(new).on(date(2026, 11, 9)) == Window(at(9, 21), at(10, 7))
    assert quota.free(alice.account_id or 0) == (100 - 2 * 12 - 3 * 10) * 3600
    assert balance_is_the_sum(alice.account_id or 0)
    again, _moves = later.move(alice, new, since, (20 * 3600, 32 * 3600), SLOT, [one.booking_id for one in shown])
    assert (again.id, again.opens) == (new.id, 20 * 3600)


def test_those_that_cannot_move_say_why_and_hold_all_back(host: Host, alice: User) -> None:
    rules(late_hours=24, late_percent=50)
    made = a_week(alice)
    taken = [one.gpu for one in made.bookings[3].allocations]
    make_booking(make_user(), taken, at(9, 16), at(9, 20))
    shown = later.preview(alice, made.series, NOW, (18 * 3600, 32 * 3600), SLOT)
    assert [one.refused is None for one in shown] == [True, True, True, False, True]
    assert "is taken from Mon 9 Nov 16:00" in str(shown[3].refused)
    ids = [one.booking_id for one in shown]
    with pytest.raises(NotAll, match="1 of 5"):
        later.move(alice, made.series, NOW, (18 * 3600, 32 * 3600), SLOT, ids)
    assert [one.starts_at for one in reading.members(made.series.id)] == [one.starts_at for one in made.bookings]
    assert quota.free(alice.account_id or 0) == 40 * 3600
    del ids[3]
    new, moves = later.move(alice, made.series, NOW, (18 * 3600, 32 * 3600), SLOT, ids)
    assert len(moves) == len(reading.members(new.id)) == 4
    assert quota.free(alice.account_id or 0) == 32 * 3600
    with pytest.raises(Conflict, match="not what they were"):
        later.move(alice, made.series, NOW, (18 * 3600, 32 * 3600), SLOT, ids)


def test_nights_that_touch_make_room_for_each_other(host: Host, alice: User) -> None:
    days = replace(NIGHT, weekdays=WEEK, until=date(2026, 11, 7), closes=44 * 3600)
    made = making.create(alice, wish(days), SLOT)
    assert len({booking.allocations[0].gpu_id for booking in made.bookings}) == 1
    for opens in (22, 19):
        shown = later.preview(alice, made.series, NOW, (opens * 3600, (opens + 24) * 3600), SLOT)
        assert [one.refused for one in shown] == [None] * 4


def test_the_days_stay_where_the_grid_pulls_a_start_over_midnight(host: Host, alice: User) -> None:
    rules(grid_minutes=60)
    zone = ZoneInfo("Asia/Kolkata")  # half an hour beside the grid
    week = Pattern(WORKDAYS, 0, 8 * 3600, str(zone), date(2026, 11, 5), date(2026, 11, 11))
    made = making.create(alice, wish(week), SLOT)
    assert made.bookings[0].starts_at.astimezone(zone).time() == time(23, 30)

    def moved(series: Series, since: datetime, hours: tuple[int, int]) -> tuple[Series, list[date]]:
        ids = [booking.id for booking in later.upcoming(series, since)]
        series, _moves = later.move(alice, series, since, hours, SLOT, ids)
        return series, [one.starts_at.astimezone(zone).date() for one in reading.members(series.id)]

    days = week.days()
    _series, found = moved(made.series, NOW, (10 * 3600, 14 * 3600))
    assert found == days
    series, found = moved(made.series, made.bookings[1].starts_at, (0, 8 * 3600))
    assert [day + timedelta(days=1) for day in found] == days[1:]
    assert series.first_day == days[1]
    assert moved(series, NOW, (9 * 3600, 10 * 3600))[1] == days[1:]


def test_hours_that_a_move_gives_up_late_are_charged(host: Host, alice: User) -> None:
    rules(late_hours=24, late_percent=50)
    made = making.create(alice, wish(replace(NIGHT, until=NIGHT.first_day)), SLOT)  # begins in 22 h
    ids = [booking.id for booking in made.bookings]
    (shown,) = later.preview(alice, made.series, NOW, (23 * 3600, 32 * 3600), SLOT)
    assert (shown.more, shown.fee) == (-3 * 3600, 3600)
    later.move(alice, made.series, NOW, (23 * 3600, 32 * 3600), SLOT, ids)
    assert quota.free(alice.account_id or 0) == (100 - 9 - 1) * 3600  # 2 of the 3 h lie within the next 24


def test_many_bookings_are_told_once(host: Host, alice: User) -> None:
    notices.choose(alice, {event: [notices.MAIL] for event in notices.offered(alice)})
    made = a_week(alice)
    later.cancel(alice, made.series, made.bookings[4].starts_at)
    later.cancel(make_admin("root-admin"), made.series, made.bookings[2].starts_at)
    news.collect(mail=True)
    moved, booked = notices.latest(alice)
    said = notice_words.message(alice, [booked], "https://berth.example", ZoneInfo("Asia/Shanghai"))
    assert said.title == "Booked: 5 bookings of 1 GPU, first Wed 4 Nov 20:00"
    assert f"https://berth.example/bookings/series/{made.series.id}" in said.text
    said = notice_words.message(alice, [moved], "https://berth.example", ZoneInfo("Asia/Shanghai"))
    assert said.title == "Cancelled: 2 bookings of 1 GPU, from Fri 6 Nov 20:00"
    assert "Changed by root-admin" in said.text


def test_a_gpu_that_is_booked_while_it_is_chosen_is_not_given(
    core: Flask, aside: Callable[..., Future[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    today = clock.now().astimezone(ZoneInfo("Asia/Shanghai")).date()
    pattern = Pattern(WEEK, 72000, 75600, "Asia/Shanghai", today + timedelta(1), today + timedelta(3))
    second = pattern.on(today + timedelta(2))
    with core.app_context():
        make_host("ws1", gpus=2)
        names = [make_user().username for _ in range(2)]
        db.session.commit()
    chosen, turns = places.chosen, []

    def slowly(*values: Any) -> list[tuple[int, ...]]:
        found = chosen(*values)
        turns.append(found[0])
        if len(turns) == 1:
            with core.app_context(), transaction():
                ask = Ask(second.ends_at, second.starts_at, gpu_ids=found[0])
                bookings.create(accounts.get(names[1]), ask, SLOT)
        return found

    monkeypatch.setattr(places, "chosen", slowly)

    def book() -> list[int]:
        made = making.create(accounts.get(names[0]), wish(pattern), SLOT).bookings
        return [booking.allocations[0].gpu_id for booking in made]

    given = aside(book).result(20)
    assert len(turns) == 2
    assert given == [turns[1][0]] * 3 != [turns[0][0]] * 3
