"""The calendar's week on a real database."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import update

from app.extensions import db
from app.models import Allocation, GpuState, User, Wait
from app.services import calendar, maintenance, periods
from app.services.calendar import Shown, Wanted
from app.services.periods import Kind
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("app")


def week(viewer: User, day: date, zone: ZoneInfo, **wanted: Any) -> Shown:
    return calendar.show(viewer, periods.period(Kind.WEEK, day, zone), Wanted(**wanted))


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


def test_few_gpus_are_open_at_once_and_many_only_when_asked() -> None:
    user = make_user()
    make_host("lab01", gpus=4)
    assert [row.open for row in week(user, NOW.date(), ZONE).hosts] == [True]
    make_host("lab02", gpus=8)
    shown = week(user, NOW.date(), ZONE, open_hosts=frozenset({"lab02", "nowhere"}))
    assert [(row.host.name, row.open, len(row.rows)) for row in shown.hosts] == [
        ("lab01", False, 0),
        ("lab02", True, 8),
    ]
    assert (shown.total, shown.free_now, shown.any_booking) == (12, 12, False)


def test_one_booking_of_two_gpus_is_two_bars_and_one_entry() -> None:
    user, other = make_user("liwei"), make_user("chenyu")
    gpus = gpus_of(make_host("lab01", gpus=4))
    make_booking(other, gpus[1:3], NOW - HOUR, NOW + 3 * HOUR)
    shown = week(user, NOW.date(), ZONE)
    assert [[bar.owner for bar in row.bars] for row in shown.hosts[0].rows] == [[], ["Chenyu"], ["Chenyu"], []]
    (entry,) = shown.entries
    assert (entry.minors, entry.mine, entry.state) == ((1, 2), False, "attaching")
    assert (shown.free_now, shown.hosts[0].free_now, shown.hosts[0].next_free) == (2, 2, None)


def test_only_mine_hides_others_and_still_counts_them() -> None:
    user, other = make_user("liwei"), make_user("chenyu")
    gpus = gpus_of(make_host("lab01", gpus=1))
    make_booking(other, gpus, NOW - HOUR, NOW + 3 * HOUR)
    shown = week(user, NOW.date(), ZONE, mine_only=True)
    assert (shown.entries, shown.hosts[0].rows[0].bars) == ((), ())
    assert shown.free_now == 0
    assert shown.any_booking
    assert shown.hosts[0].next_free == NOW + 3 * HOUR
    assert shown.hosts[0].rows[0].gaps[0].starts_at == NOW + 3 * HOUR


def test_only_mine_opens_the_hosts_in_which_something_is_mine() -> None:
    """Others' bookings and a time for which any host would do open none; whose they are is not even asked."""
    user, other = make_user("liwei"), make_user("chenyu")
    booked, theirs, _waited, _none = (gpus_of(make_host(f"lab0{number}", gpus=8)) for number in range(1, 5))
    make_booking(user, booked[:1], NOW + HOUR, NOW + 3 * HOUR)
    make_booking(user, theirs[1:2], NOW + timedelta(days=9), NOW + timedelta(days=9, hours=1))
    make_booking(other, theirs[:1], NOW - HOUR, NOW + 3 * HOUR)
    for host in ("lab03", ""):
        times = {"starts_at": NOW + HOUR, "ends_at": NOW + 2 * HOUR}
        db.session.add(Wait(user_id=user.id, host=host, seconds=3600, by_itself=True, **times))
    db.session.flush()
    assert [row.open for row in week(user, NOW.date(), ZONE).hosts] == [False] * 4
    shown = week(user, NOW.date(), ZONE, mine_only=True, entries=False)
    assert [(row.host.name, row.open, row.own) for row in shown.hosts] == [
        ("lab01", True, True),
        ("lab02", False, False),
        ("lab03", True, True),
        ("lab04", False, False),
    ]
    assert [len(row.waiting) for row in shown.hosts] == [1, 0, 2, 0]
    assert [len(row.bars) for row in shown.hosts[0].rows] == [1] + [0] * 7
    opened = week(user, NOW.date(), ZONE, mine_only=True, entries=False, open_hosts=frozenset({"lab02"}))
    assert [(row.open, row.own) for row in opened.hosts[:2]] == [(True, True), (True, False)]
    assert {bar.owner for row in opened.hosts[1].rows for bar in row.bars} == set()


def test_free_now_is_of_now_whichever_week_is_shown() -> None:
    user = make_user()
    gpus = gpus_of(make_host(gpus=2))
    make_booking(user, gpus[:1], NOW - HOUR, NOW + HOUR)
    for weeks in (-1, 0, 1, 5):
        shown = week(user, NOW.date() + timedelta(weeks=weeks), ZONE)
        assert shown.free_now == 1
        assert (shown.now_unit is not None, bool(shown.entries)) == (weeks == 0, weeks == 0)


def test_a_chain_over_the_weeks_end_is_followed() -> None:
    user = make_user(hours=1000)
    gpus = gpus_of(make_host(gpus=1))
    sunday_night = datetime(2026, 11, 8, 15, tzinfo=UTC)
    make_booking(user, gpus, NOW - HOUR, sunday_night + HOUR)
    make_booking(user, gpus, sunday_night + HOUR, sunday_night + 10 * HOUR)
    assert week(user, NOW.date(), ZONE).hosts[0].next_free == sunday_night + 10 * HOUR
    make_booking(user, gpus, sunday_night + 10 * HOUR, sunday_night + 13 * 24 * HOUR)
    assert week(user, NOW.date(), ZONE).hosts[0].next_free is None  # that far ahead nobody looks


def test_what_comes_after_the_week_is_read_only_where_a_host_is_booked_up_to_its_end(
    count_queries: Callable[[], Any],
) -> None:
    user = make_user(hours=1000)
    gpus = gpus_of(make_host(gpus=1))
    end = datetime(2026, 11, 8, 16, tzinfo=UTC)  # midnight in Shanghai
    make_booking(user, gpus, NOW - HOUR, end - HOUR)
    with count_queries() as queries:
        assert week(user, NOW.date(), ZONE).hosts[0].next_free == end - HOUR
    assert len(queries) == 3
    make_booking(user, gpus, end - HOUR, end)
    with count_queries() as queries:
        assert week(user, NOW.date(), ZONE).hosts[0].next_free == end
    assert len(queries) == 4


def test_moments_are_in_utc_whatever_zone_the_database_is_in() -> None:
    user = make_user()
    make_booking(user, gpus_of(make_host(gpus=1)), NOW, NOW + HOUR)
    db.session.connection().exec_driver_sql("SET LOCAL TIME ZONE 'Europe/Berlin'")
    (entry,) = week(user, NOW.date(), ZONE).entries
    assert (entry.starts_at, entry.starts_at.tzinfo, entry.ends_at.tzinfo) == (NOW, UTC, UTC)


def test_gpus_out_of_service_are_neither_free_nor_offered() -> None:
    user = make_user()
    host = make_host(gpus=2)
    gpus_of(host)[0].state = GpuState.MAINTENANCE
    db.session.flush()
    shown = week(user, NOW.date(), ZONE)
    assert (shown.total, shown.hosts[0].gpus, shown.hosts[0].cells[-1].free) == (1, 1, 1)
    assert [bool(row.gaps) for row in shown.hosts[0].rows] == [False, True]
    host.enabled = False
    db.session.flush()
    assert week(user, NOW.date(), ZONE).hosts == ()


def test_cancelled_bookings_are_gone_and_a_model_filters_hosts() -> None:
    user = make_user()
    gpus = gpus_of(make_host("lab01", gpus=1, model="NVIDIA RTX A6000"))
    make_host("lab02", gpus=1, model="NVIDIA L40S")
    booking = make_booking(user, gpus, NOW + HOUR, NOW + 2 * HOUR)
    assert len(week(user, NOW.date(), ZONE).entries) == 1
    only = week(user, NOW.date(), ZONE, model="NVIDIA L40S")
    assert ([row.host.name for row in only.hosts], only.entries, only.any_booking) == (["lab02"], (), False)
    assert only.models == ("NVIDIA L40S", "NVIDIA RTX A6000")
    db.session.execute(db.text("update allocations set released_at = now() where booking_id = :id"), {"id": booking.id})
    assert week(user, NOW.date(), ZONE).entries == ()


def test_days_say_what_is_free_for_the_rest_of_them() -> None:
    user = make_user()
    gpus = gpus_of(make_host(gpus=2))
    make_booking(user, gpus[:1], NOW - 3 * HOUR, NOW - 2 * HOUR)  # over: does not count
    make_booking(user, gpus, NOW + 30 * HOUR, NOW + 31 * HOUR)
    free = [day.free for day in week(user, NOW.date(), ZONE).days]
    assert free == [None, None, 2, 2, 0, 2, 2]


def test_a_week_with_a_clock_change() -> None:
    zone = ZoneInfo("Europe/Berlin")
    shown = week(make_user(), datetime(2026, 10, 22, tzinfo=UTC).date(), zone)
    assert shown.period.end - shown.period.start == timedelta(hours=169)
    assert [day.starts_at.astimezone(zone).hour for day in shown.days] == [0] * 7


def test_ones_own_is_known_on_a_closed_host_also_where_its_gpu_was_replaced_half_way() -> None:
    """A person's bookings are found by their end: where they started, what they hold now may not have been theirs."""
    user, other = make_user(), make_user("chenyu")
    gpus = [gpus_of(make_host(name, gpus=8))[0] for name in ("lab01", "lab02")]
    make_booking(other, gpus[:1], NOW - HOUR, NOW + 9 * HOUR)
    booking = make_booking(user, gpus[1:], NOW - 30 * HOUR, NOW + 5 * HOUR)
    db.session.execute(update(Allocation).where(Allocation.booking_id == booking.id).values(starts_at=NOW - HOUR / 2))
    shown = week(user, NOW.date(), ZONE, entries=False)
    assert [(row.open, row.own) for row in shown.hosts] == [(False, False), (False, True)]
    (entry,) = shown.entries
    assert (entry.host, entry.mine, entry.booking_id) == ("lab02", True, booking.id)


def test_64_gpus_take_three_queries(app: Flask, count_queries: Callable[[], Any]) -> None:
    user = make_user(hours=100_000)
    for number in range(8):
        gpus = gpus_of(make_host(f"lab{number:02}", gpus=8))
        for gpu in gpus:
            make_booking(user, [gpu], NOW + HOUR, NOW + 5 * HOUR)
    with count_queries() as queries:
        shown = week(user, NOW.date(), ZONE, open_hosts=frozenset({"lab03"}))
    assert len(queries) == 3  # hosts and GPUs; what is held and worked on; whose it is
    assert len(shown.entries) == 64


def test_maintenance_is_a_bar_of_nobodys_and_no_free_place() -> None:
    user, host = make_user("liwei"), make_host("lab01", gpus=2)
    gpus, work = gpus_of(host), Window(NOW - HOUR, NOW + 20 * HOUR)
    make_booking(user, gpus[:1], NOW + 30 * HOUR, NOW + 31 * HOUR)
    maintenance.schedule(make_admin(), host, gpus[:1], work, "new fans", maintenance.fingerprint([]))
    shown = week(user, NOW.date(), ZONE, mine_only=True)
    first, second = shown.hosts[0].rows
    assert [(bar.state, bar.note, bar.mine) for bar in first.bars] == [
        ("maintenance", "new fans", False),
        ("booked", "", True),
    ]
    assert second.bars == ()
    assert [gap.starts_at for gap in first.gaps] == [work.ends_at, NOW + 31 * HOUR]
    assert (shown.free_now, shown.hosts[0].next_free) == (1, None)
    everything = week(user, NOW.date(), ZONE)
    assert [(entry.state, entry.minors) for entry in everything.entries] == [("maintenance", (0,)), ("booked", (0,))]


def test_whose_a_booking_is_is_asked_where_it_is_shown_and_counts_where_it_is_not() -> None:
    user, other = make_user("liwei"), make_user("chenyu")
    shut, opened = gpus_of(make_host("lab01", gpus=8)), gpus_of(make_host("lab02", gpus=8))
    for gpus in (shut, opened):
        make_booking(other, gpus[:2], NOW - HOUR, NOW + 3 * HOUR)
    own = make_booking(user, shut[2:3], NOW - HOUR, NOW + 3 * HOUR)
    shown = week(user, NOW.date(), ZONE, open_hosts=frozenset({"lab02"}), entries=False)
    assert [entry.booking_id for entry in shown.entries] == [own.id]
    assert [row.free_now for row in shown.hosts] == [5, 6]
    assert [[bar.owner for bar in row.bars] for row in shown.hosts[1].rows[:3]] == [["Chenyu"], ["Chenyu"], []]
