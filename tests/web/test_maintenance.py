"""The page on which an admin keeps GPUs free for work on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app.models import Booking, GpuState, Host, User
from app.services import maintenance
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client, Page

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)  # 10:00 in the lab
HOUR = timedelta(hours=1)


@pytest.fixture
def host(app: Flask, freeze) -> Host:
    freeze(NOW)
    return make_host("lab03")


@pytest.fixture
def booking(client: Client, host: Host) -> Booking:
    alice = make_user("alice", full_name="Alice")
    client.login_as(make_admin())
    return make_booking(alice, gpus_of(host), NOW + 3 * HOUR, NOW + 4 * HOUR)


def _look(client: Client, **values: str) -> Page:
    typed = {"Start time": "12:00", "End time": "18:00", "What for": "new fans", **values}
    page = client.get(client.get("/hosts/lab03").link("Maintenance"))
    return client.submit(page.form("Show what it does to bookings").fill(**typed))


def test_it_says_first_what_it_does_and_then_does_it(
    client: Client, host: Host, booking: Booking, woken: list[str]
) -> None:
    page = _look(client)
    assert "1 booking is in the way:" in page.text
    assert "Alice" in page.text
    assert "Ends" not in page.text
    assert "Is cancelled; its hours are given back" in page.text
    assert booking.cancelled_at is None
    page = client.follow(client.submit(page.form("Plan this maintenance")))
    assert "The maintenance is planned." in page.text
    assert "new fans" in page.text
    assert booking.cancelled_at is not None
    assert woken == ["lab03"]
    page = client.follow(client.submit(page.form("End it, let them be booked")))
    assert "No maintenance is planned." in page.text
    assert maintenance.to_come(host) == []


def test_it_says_where_the_rest_of_what_runs_goes(client: Client, host: Host) -> None:
    client.login_as(make_admin())
    make_booking(make_user("alice"), gpus_of(host)[:1], NOW - HOUR, NOW + 4 * HOUR)
    page = client.get(client.get("/hosts/lab03").link("Maintenance"))
    labels = [f"GPU {number} NVIDIA RTX A6000" for number in (1, 2, 3)]
    typed: dict[str, str | bool] = {"Start time": "12:00", "End time": "18:00", **dict.fromkeys(labels, False)}
    page = client.submit(page.form("Show what it does to bookings").fill(**typed))
    assert "its rest moves to GPU 1 of lab03 from then on" in page.text
    assert "Ends Tue 3 Nov 12:00" in page.text


def test_a_month_shows_it_and_what_cannot_be_booked(client: Client, host: Host, booking: Booking) -> None:
    client.follow(client.submit(_look(client).form("Plan this maintenance")))
    gpus_of(host)[1].state = GpuState.QUARANTINE
    month = client.get("/calendar?month=2026-11-03")
    assert month.all("//tr[@class='host']/td[3]/a/@aria-label") == ["0, maintenance"]
    assert [row.xpath("./td[3]")[0].text_content() for row in month.all("//tr[starts-with(@class, 'gpu')]")] == [
        ", Maintenance"
    ] * 4
    assert month.all("//tr[@class='host']/td[4]/a/@aria-label") == []
    assert "3 of 4 GPUs" in month.texts("//tr[@class='host']/th")[0]
    assert "Quarantined" in month.texts("//tr[@class='gpu closed']/th")[0]
    assert booking.cancelled_at is not None


def test_a_booking_that_came_meanwhile_is_shown_before_anything_is_done(
    client: Client, host: Host, booking: Booking, woken: list[str]
) -> None:
    page = _look(client)
    other = make_booking(make_user("bob", full_name="Bob"), gpus_of(host)[:1], NOW + 5 * HOUR, NOW + 6 * HOUR)
    page = client.submit(page.form("Plan this maintenance"))
    assert page.status == 409
    assert "The bookings have changed meanwhile." in page.text
    assert "Bob" in page.text
    assert (booking.cancelled_at, other.cancelled_at, woken) == (None, None, [])
    page = client.follow(client.submit(page.form("Plan this maintenance")))
    assert "The maintenance is planned." in page.text, page.text
    assert other.cancelled_at is not None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"End time": "9:00"}, "The end must be after the start."),
        ({"Start time": "9:00"}, "The start lies in the past."),
        ({"End time": "soon"}, "Give a time such as 20:00."),
        ({"End time": ""}, "Fill this in."),
    ],
)
def test_what_cannot_be_meant_is_named(
    client: Client, host: Host, booking: Booking, typed: dict[str, str], said: str
) -> None:
    page = _look(client, **typed)
    assert page.status == 422
    assert said in page.text


def test_at_least_one_gpu_is_chosen(client: Client, host: Host, booking: Booking) -> None:
    page = client.get("/hosts/lab03/maintenance?start_date=2026-11-03&end_date=2026-11-03&end_time=18:00")
    assert page.status == 422
    assert "Choose at least one GPU." in page.text


def test_only_for_admins(client: Client, host: Host, booking: Booking) -> None:
    person: User = make_user()
    assert client.login_as(person).get("/hosts/lab03/maintenance").status == 403
