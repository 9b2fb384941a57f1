"""Bookings over the nights in which clocks change, in a lab that has such nights: length, cost and what pages say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.config import Settings
from app.extensions import db
from app.models import Booking, Host, User
from app.services import changes, policy, quota
from app.services.rules import classes
from tests.conftest import settings_for
from tests.factories import make_admin, make_host, make_user
from tests.page import Client


@pytest.fixture
def settings(shared_db: str, tmp_path: Path) -> Settings:
    return settings_for(shared_db, tmp_path, BERTH_TZ="Europe/Berlin")


@pytest.fixture
def host(client: Client, freeze: Callable[[datetime], None], woken: list[str]) -> Host:
    freeze(datetime(2027, 3, 1, 12, tzinfo=UTC))
    policy.current().horizon_days = 300
    return make_host("lab03")


@pytest.fixture
def user(client: Client, host: Host) -> User:
    person = make_user("liwei")
    client.login_as(person)
    return person


def _book(client: Client, start: str, end: str) -> tuple[str, Booking]:
    (first_day, first), (last_day, last) = start.split(), end.split()
    typed = {"start_date": first_day, "start_time": first, "end_date": last_day, "end_time": last}
    page = client.get("/bookings/new", query_string={**typed, "count": "2", "check": "1"})
    client.submit(page.form("Book"))
    return page.text, db.session.scalars(db.select(Booking).order_by(Booking.id.desc())).first()


@pytest.mark.parametrize(
    ("start", "end", "hours", "shown"),
    [
        # Forward: 02:00 is 03:00.
        ("2027-03-27 20:00", "2027-03-28 08:00", 11, "Sat 27 Mar 20:00 to Sun 28 Mar 08:00 (next day), 11 h."),
        ("2027-03-28 01:00", "2027-03-28 04:00", 2, "Sun 28 Mar 01:00 to 04:00, 2 h."),
        # Back: 03:00 is 02:00 once more.
        ("2027-10-30 20:00", "2027-10-31 08:00", 13, "Sat 30 Oct 20:00 to Sun 31 Oct 08:00 (next day), 13 h."),
        ("2027-10-31 02:30", "2027-10-31 04:00", 2.5, "Sun 31 Oct 02:30 CEST to 04:00, 2 h 30 min."),
        ("2027-10-31 01:00", "2027-10-31 02:30", 1.5, "Sun 31 Oct 01:00 to 02:30 CEST, 1 h 30 min."),
    ],
)
def test_length_cost_and_words_are_right(
    client: Client, user: User, start: str, end: str, hours: float, shown: str
) -> None:
    text, booking = _book(client, start, end)
    assert f"2 GPUs on lab03, {shown}" in text
    assert f"Costs {2 * hours:g} GPU-hours" in text
    assert (booking.ends_at - booking.starts_at).total_seconds() == hours * 3600
    assert quota.held_for(booking.id) == 2 * hours * 3600


def test_an_end_in_the_second_of_the_two_hours_says_so(client: Client, user: User) -> None:
    _text, booking = _book(client, "2027-10-31 01:00", "2027-10-31 02:30")
    changes.move_end(user, booking.id, datetime(2027, 10, 31, 1, 30, tzinfo=UTC), 900)
    assert "02:30 CET" in client.get(f"/bookings/{booking.id}").text
    assert quota.held_for(booking.id) == 2 * 2.5 * 3600


def test_an_edge_that_is_not_changed_stays_in_the_second_of_the_two_hours(client: Client, user: User) -> None:
    _text, booking = _book(client, "2027-10-31 01:00", "2027-10-31 02:30")
    end = datetime(2027, 10, 31, 1, 30, tzinfo=UTC)
    changes.move_end(user, booking.id, end, 900)
    form = client.get(f"/bookings/{booking.id}/change").form("Change").fill(**{"Start time": "1:30"})
    client.submit(form)
    assert (booking.starts_at, booking.ends_at) == (datetime(2027, 10, 30, 23, 30, tzinfo=UTC), end)
    form = client.get(f"/bookings/{booking.id}/change").form("Change").fill(**{"End time": "02:15"})
    client.submit(form)
    assert booking.ends_at == datetime(2027, 10, 31, 0, 15, tzinfo=UTC), "of two, the first"


def test_what_asks_first_asks_for_the_second_of_the_two_hours(
    client: Client, user: User, freeze: Callable[[datetime], None]
) -> None:
    _text, booking = _book(client, "2027-10-31 01:00", "2027-10-31 02:30")
    end = datetime(2027, 10, 31, 1, 30, tzinfo=UTC)
    changes.move_end(user, booking.id, end, 900)
    classes.change(make_admin(), classes.default().id, {"late_hours": 24, "late_percent": 50})
    freeze(end - timedelta(hours=9))
    client.login_as(user)
    at = (end - timedelta(minutes=15)).isoformat()
    page = client.get(client.post(f"/calendar/bookings/{booking.id}/end", {"at": at}).location)
    assert "0.25 GPU-hours are charged" in page.text
    client.submit(page.form("Change"))
    assert booking.ends_at == end - timedelta(minutes=15)


def test_somebody_elsewhere_sees_both_clocks_and_their_distance_changes(client: Client, user: User) -> None:
    user.timezone = "Asia/Shanghai"
    db.session.flush()
    text, _booking = _book(client, "2027-10-31 03:00", "2027-10-31 15:00")
    assert "Sun 31 Oct 03:00 (lab: Sat 21:00) to Sun 31 Oct 15:00 (lab: 08:00), 12 h." in text


def test_a_refusal_names_both_clocks_too(client: Client, user: User, host: Host) -> None:
    user.timezone = "Asia/Shanghai"
    db.session.flush()
    _book(client, "2027-06-01 20:00", "2027-06-01 22:00")
    typed = {"start_date": "2027-06-01", "start_time": "21:00", "end_time": "22:00", "count": "4", "check": "1"}
    text = client.get("/bookings/new", query_string=typed).text
    assert "No host has 4 free GPUs from Tue 1 Jun 21:00 (lab: 15:00) to Tue 1 Jun 22:00 (lab: 16:00)." in text
