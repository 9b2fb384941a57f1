"""The rest of one of a series: maintenance ended that one early, and its rest goes with the series still.

Five nights, 20:00 to 08:00. In the first one the GPU is worked on from 02:00 on: until 08:00 alice has another."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.extensions import db
from app.models import AuditEvent, Booking, Host, Series, User
from app.services import bookings, changes, edits, maintenance, quota, resizing
from app.services.claims import Ask
from app.services.edits import Edit
from app.services.rules import classes
from app.services.series import later, making, reading
from app.services.series.patterns import WORKDAYS, Pattern
from app.services.series.reading import Place
from app.services.series.trial import Wish
from app.services.windows import Window
from tests.factories import attach, make_admin
from tests.services.conftest import NOW, Freeze

HOUR = timedelta(hours=1)
SLOT = 900
NIGHT = Pattern(WORKDAYS, 20 * 3600, 32 * 3600, "Asia/Shanghai", date(2026, 11, 4), date(2026, 11, 10))


def at(day: int, hour: float) -> datetime:
    """An hour of a day of November by the lab's clock."""
    return datetime(2026, 11, day, tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC) + hour * HOUR


def work_on(booking: Booking, window: Window) -> None:
    """Maintenance of what it has, whatever that does to it."""
    host = db.session.get_one(Host, booking.host_id)
    gpus = [one.gpu for one in bookings.get(booking.user, booking.id).allocations]
    agreed = maintenance.fingerprint(maintenance.plan(gpus, window))
    maintenance.schedule(make_admin(), host, gpus, window, "new fans", agreed)


@pytest.fixture
def series(alice: User, host: Host, freeze: Freeze) -> Series:
    made = making.create(alice, Wish(NIGHT, Ask(ends_at=NOW)), SLOT)
    freeze(at(4, 21))
    attach(made.bookings[0])
    db.session.expire_all()
    work_on(bookings.get(alice, made.bookings[0].id), Window(at(5, 2), at(5, 12)))
    return made.series


@pytest.fixture
def rest(series: Series) -> Booking:
    return next(one for one in reading.members(series.id) if one.rest_of_id is not None)


def free(alice: User) -> float:
    return quota.free(alice.account_id or 0) / 3600


def test_it_is_counted_with_the_one_of_which_it_is_the_rest(series: Series, rest: Booking) -> None:
    first, second, third, *_others = [one for one in reading.members(series.id) if one.id != rest.id]
    assert (rest.starts_at, rest.ends_at, rest.series_id) == (at(5, 2), at(5, 8), first.series_id)
    assert reading.place_of(first) == Place(1, 5, None, rest.id, later=True)
    assert reading.place_of(rest) == Place(1, 5, first.id, second.id, later=True, rest=True)
    assert reading.place_of(second) == Place(2, 5, rest.id, third.id, later=True)


def test_the_rest_of_a_rest_is_of_the_same_one(alice: User, series: Series, rest: Booking, freeze: Freeze) -> None:
    freeze(at(5, 3))
    attach(rest)
    db.session.expire_all()
    work_on(bookings.get(alice, rest.id), Window(at(5, 5), at(5, 12)))
    last = next(one for one in reading.members(series.id) if one.rest_of_id == rest.id)
    assert (last.starts_at, last.ends_at) == (at(5, 5), at(5, 8))
    place = reading.place_of(last)
    assert (place.number, place.count, place.before, place.rest) == (1, 5, rest.id, True)
    later.move(alice, series, last.starts_at, (21 * 3600, 33 * 3600), SLOT, [last.id])
    assert bookings.get(alice, last.id).ends_at == at(5, 9)


def test_this_one_and_all_later_ones_are_given_back_with_it(alice: User, series: Series, rest: Booking) -> None:
    first = reading.members(series.id)[0]
    gone = later.cancel(alice, series, first.starts_at)
    assert [one.starts_at for one in gone] == [at(5, 2), *(at(day, 20) for day in (5, 6, 9, 10))]
    assert free(alice) == 100 - 6
    assert reading.place_of(bookings.get(alice, first.id)).later is False


def test_from_the_next_one_on_it_is_let_be(alice: User, series: Series, rest: Booking) -> None:
    gone = later.cancel(alice, series, at(5, 20))
    assert rest.id not in [one.id for one in gone]
    assert bookings.get(alice, rest.id).cancelled_at is None


@pytest.mark.parametrize(("hours", "ends", "more"), [((21, 33), at(5, 9), 1), ((19, 31), at(5, 7), -1)])
def test_other_hours_move_its_end_alone(
    alice: User, series: Series, rest: Booking, hours: tuple[int, int], ends: datetime, more: int
) -> None:
    """It begins where the work ended the first part; the others, of a series of their own then, begin when asked."""
    seconds = (hours[0] * 3600, hours[1] * 3600)
    shown = later.preview(alice, series, at(4, 20), seconds, SLOT)
    assert [one.refused for one in shown] == [None] * 5
    assert (shown[0].after, shown[0].more) == (Window(at(5, 2), ends), more * 3600)
    new, _moves = later.move(alice, series, at(4, 20), seconds, SLOT, [one.booking_id for one in shown])
    rest = bookings.get(alice, rest.id)
    assert (rest.starts_at, rest.ends_at, rest.unasked) == (at(5, 2), ends, more < 0)
    assert [one.starts_at for one in reading.members(new.id)] == [at(day, hours[0]) for day in (5, 6, 9, 10)]
    assert [one.id for one in reading.members(series.id)] == [rest.rest_of_id, rest.id]
    assert reading.place_of(rest) == Place(1, 1, rest.rest_of_id, None, later=True, rest=True)
    assert free(alice) == 100 - 60 - more


def test_alone_it_stays_of_its_series(alice: User, series: Series, rest: Booking) -> None:
    same, _moves = later.move(alice, series, at(4, 20), (20 * 3600, 33 * 3600), SLOT, [rest.id])
    assert (same.id, same.closes, bookings.get(alice, rest.id).ends_at) == (series.id, 32 * 3600, at(5, 9))
    assert len(reading.members(series.id)) == 6


def test_hours_that_end_before_it_begins_are_refused_it(alice: User, series: Series, rest: Booking) -> None:
    shown = later.preview(alice, series, at(4, 20), (18 * 3600, 26 * 3600), SLOT)
    assert [one.refused is None for one in shown] == [False, True, True, True, True]
    assert "before the rest of this booking begins" in str(shown[0].refused)


def test_beside_the_grid_it_keeps_its_start(alice: User, series: Series, rest: Booking) -> None:
    """Work at once begins at any second: on the grid, the rest would begin while the first part runs."""
    began = at(5, 2) + timedelta(seconds=7)
    rest.starts_at = rest.allocations[0].starts_at = began
    db.session.flush()
    later.move(alice, series, at(4, 20), (20 * 3600, 33 * 3600), SLOT, [rest.id])
    assert bookings.get(alice, rest.id).starts_at == began


def test_asked_for_it_is_a_rest_still(alice: User, series: Series, rest: Booking) -> None:
    """With more GPUs it is its owner's wish, and counts for the rules; it is not one more of the series."""
    edits.change(alice, rest.id, Edit(size=resizing.Size(2)), SLOT)
    rest = bookings.get(alice, rest.id)
    place = reading.place_of(rest)
    assert (place.number, place.count, rest.unasked) == (1, 5, False)
    changes.cancel(alice, rest.id)
    assert reading.place_of(rest).count == 5


def test_a_late_rest_costs_nothing_with_the_others(alice: User, series: Series, rest: Booking) -> None:
    """Half of what is given back within 24 hours: of the second night one hour; of the rest, nothing."""
    classes.change(make_admin(), classes.default().id, {"late_hours": 24, "late_percent": 50})
    later.cancel(alice, series, at(4, 20))
    assert quota.charged_for(rest.id) == 0
    assert free(alice) == 100 - 6 - 0.5


def test_it_goes_on_from_what_runs_whatever_the_rules_say_of_new_ones(
    alice: User, series: Series, rest: Booking
) -> None:
    classes.change(make_admin(), classes.default().id, {"gap_minutes": 30, "notice_minutes": 600, "min_minutes": 400})
    for closes in (31, 33):
        shown = later.preview(alice, series, at(4, 20), (20 * 3600, closes * 3600), SLOT)
        assert (shown[0].booking_id, shown[0].refused) == (rest.id, None)


def test_one_that_stays_as_it_is_is_not_told_of_as_changed(alice: User, series: Series, rest: Booking) -> None:
    nights = [one.id for one in later.upcoming(series, at(4, 20))]
    later.move(alice, series, at(4, 20), (21 * 3600, 32 * 3600), SLOT, nights)
    query = db.select(AuditEvent.details).where(AuditEvent.action == "series.changed")
    assert db.session.scalars(query).one()["bookings"] == [one for one in nights if one != rest.id]
