"""Bookings in people's own calendar programs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask
from icalendar import Calendar

from app.extensions import db
from app.models import AuditEvent, Host, User, UserState
from app.services import changes, edits, feeds, ical, maintenance
from app.services.edits import Edit
from app.services.resizing import Size
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client

NOW = datetime(2026, 10, 23, 12, 0, tzinfo=UTC)  # two days before the clocks go back in Berlin


@pytest.fixture
def host(app: Flask, freeze) -> Host:
    freeze(NOW)
    return make_host("lab03")


@pytest.fixture
def alice(client: Client, host: Host) -> User:
    user = make_user("alice", timezone="Europe/Berlin", full_name="Alice")
    client.login_as(user)
    return user


def _address(client: Client, **values: str) -> str:
    page = client.submit(client.get("/settings/calendars").form("Make address").fill(**values))
    assert page.headers["Cache-Control"] == "no-store"
    return str(page.all("//input[@id='address']/@value")[0]).partition("//")[2].partition("/")[2]


def _read(app: Flask, address: str) -> tuple[Calendar, str]:
    answer = app.test_client().get(f"/{address}")  # no cookies
    assert answer.status_code == 200
    assert answer.mimetype == "text/calendar"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    text = answer.get_data(as_text=True)
    return Calendar.from_ical(text), text


def test_a_booking_over_the_change_of_clocks_is_where_it_is(
    app: Flask, client: Client, host: Host, alice: User
) -> None:
    start = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
    booking = make_booking(alice, gpus_of(host)[:2], start, start + timedelta(hours=10), note="Training; phase, two")
    calendar, text = _read(app, _address(client))
    (entry,) = calendar.walk("VEVENT")
    assert "BEGIN:VTIMEZONE" in text
    assert "DTSTART;TZID=Europe/Berlin:20261024T220000" in text, "on summer's clock"
    assert "DTEND;TZID=Europe/Berlin:20261025T070000" in text, "on winter's: nine hours later by the clock"
    assert entry.decoded("DTEND") - entry.decoded("DTSTART") == timedelta(hours=9), "naive arithmetic, within a zone"
    assert entry.decoded("DTEND").astimezone(UTC) - entry.decoded("DTSTART").astimezone(UTC) == timedelta(hours=10)
    assert entry["SUMMARY"] == "2 GPUs on lab03"
    assert entry["LOCATION"] == "lab03, GPU 0, GPU 1"
    assert "Training; phase, two" in entry["DESCRIPTION"]
    assert entry["UID"].startswith(f"booking-{booking.id}@")
    (zone,) = calendar.walk("VTIMEZONE")
    own = zone.to_tz(lookup_tzid=False)
    for moment in (start, start + timedelta(hours=10)):
        assert moment.astimezone(own).utcoffset() == moment.astimezone(ZoneInfo("Europe/Berlin")).utcoffset()


def test_an_edge_in_the_second_of_the_two_hours_is_where_it_is(
    app: Flask, client: Client, host: Host, alice: User
) -> None:
    start = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)  # 02:45 on summer's clock; half an hour later it is 02:15
    make_booking(alice, gpus_of(host)[:1], start, start + timedelta(minutes=30))
    (entry,) = _read(app, _address(client))[0].walk("VEVENT")
    assert [entry.decoded(name).astimezone(UTC) for name in ("DTSTART", "DTEND")] == [
        start,
        start + timedelta(minutes=30),
    ]


def test_where_there_are_too_many_the_oldest_are_left_out(
    app: Flask, client: Client, host: Host, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ical, "MOST", 2)
    starts = [NOW - timedelta(days=9), NOW - timedelta(days=8), NOW + timedelta(days=1)]
    for start in starts:
        make_booking(alice, gpus_of(host)[:1], start, start + timedelta(hours=1))
    entries = _read(app, _address(client))[0].walk("VEVENT")
    assert [entry.decoded("DTSTART").astimezone(UTC) for entry in entries] == starts[1:]


def test_nothing_that_somebody_typed_becomes_a_property(app: Flask, client: Client, host: Host, alice: User) -> None:
    make_booking(alice, gpus_of(host)[:1], NOW, NOW + timedelta(hours=1), note="a\r\nBEGIN:VALARM\r\nX-EVIL:1")
    calendar, text = _read(app, _address(client))
    (entry,) = calendar.walk("VEVENT")
    assert calendar.walk("VALARM") == []
    assert "X-EVIL" not in entry
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))


def test_a_hosts_calendar_says_who_has_it_and_not_what_for(app: Flask, client: Client, host: Host, alice: User) -> None:
    make_booking(alice, gpus_of(host)[:1], NOW, NOW + timedelta(hours=1), note="secret plans")
    bob = make_user("bob", full_name="Bob")
    make_booking(bob, gpus_of(host)[1:2], NOW, NOW + timedelta(hours=1))
    make_booking(bob, gpus_of(make_host("lab04"))[1:2], NOW, NOW + timedelta(hours=1))
    calendar, text = _read(app, _address(client, **{"Which bookings": "lab03"}))
    assert [entry["SUMMARY"] for entry in calendar.walk("VEVENT")] == ["Alice: 1 GPU on lab03", "Bob: 1 GPU on lab03"]
    assert "secret plans" not in text


def test_a_hosts_calendar_has_its_maintenance(app: Flask, client: Client, host: Host, alice: User) -> None:
    window = Window(NOW + timedelta(hours=5), NOW + timedelta(hours=6))
    gpus = gpus_of(host)[:2]
    maintenance.schedule(make_admin(), host, gpus, window, "new fans", maintenance.fingerprint([]))
    calendar, _text = _read(app, _address(client, **{"Which bookings": "lab03"}))
    (entry,) = calendar.walk("VEVENT")
    assert (entry["SUMMARY"], entry["LOCATION"]) == ("Maintenance: new fans", "lab03, GPU 0, GPU 1")
    assert entry.decoded("DTSTART").astimezone(UTC) == window.starts_at


def test_another_purpose_and_number_of_gpus_are_there_at_once(
    app: Flask, client: Client, host: Host, alice: User
) -> None:
    hour = timedelta(hours=1)
    made = make_booking(alice, gpus_of(host)[:1], NOW + hour, NOW + 2 * hour, note="training")
    address = _address(client)
    edits.change(alice, made.id, Edit(size=Size(2), note="thesis"), 900)
    (entry,) = _read(app, address)[0].walk("VEVENT")
    assert (entry["SUMMARY"], entry["SEQUENCE"]) == ("2 GPUs on lab03", 2)
    assert "thesis" in entry["DESCRIPTION"]


def test_what_changed_says_so_in_order(app: Flask, client: Client, host: Host, alice: User) -> None:
    """Programs take a change of an entry that they have only with a higher SEQUENCE or a later LAST-MODIFIED."""
    made = make_booking(alice, gpus_of(host)[:1], NOW + timedelta(hours=1), NOW + timedelta(hours=2), created_at=NOW)
    make_booking(alice, gpus_of(host)[1:2], NOW + timedelta(hours=1), NOW + timedelta(hours=2), created_at=NOW)
    address = _address(client)
    changes.move_end(alice, made.id, NOW + timedelta(hours=3), 900)
    changes.move_end(alice, made.id, NOW + timedelta(hours=4), 900)
    last = db.session.scalar(sa.select(sa.func.max(AuditEvent.created_at)).where(AuditEvent.action == "booking.moved"))
    assert last is not None
    moved, as_booked = _read(app, address)[0].walk("VEVENT")
    for entry, times, moment in ((moved, 2, last.replace(microsecond=0)), (as_booked, 0, NOW)):
        assert entry["SEQUENCE"] == times
        assert entry.decoded("LAST-MODIFIED") == entry.decoded("DTSTAMP") == moment
    assert _read(app, address)[1] == _read(app, address)[1], "unchanged, it is the same to the letter"


def test_what_was_cancelled_or_is_long_over_is_not_in_it(app: Flask, client: Client, host: Host, alice: User) -> None:
    booking = make_booking(alice, gpus_of(host)[:1], NOW + timedelta(hours=1), NOW + timedelta(hours=2))
    changes.cancel(alice, booking.id)
    make_booking(alice, gpus_of(host)[:1], NOW - timedelta(days=41), NOW - timedelta(days=40))
    assert _read(app, _address(client))[0].walk("VEVENT") == []


def test_a_withdrawn_address_and_one_of_a_suspended_person_open_nothing(
    app: Flask, client: Client, host: Host, alice: User
) -> None:
    address, other = _address(client, Name="phone"), _address(client, Name="desk")
    page = client.get(client.get("/settings/calendars").link("Withdraw phone…"))
    client.submit(page.form("Withdraw address"))
    assert app.test_client().get(f"/{address}").status_code == 404
    assert app.test_client().get(f"/{other}").status_code == 200
    alice.state = UserState.DISABLED
    assert app.test_client().get(f"/{other}").status_code == 404
    assert app.test_client().get(f"/ics/{'x' * 43}.ics").status_code == 404


def test_the_secret_is_stored_and_logged_nowhere(
    app: Flask, client: Client, host: Host, alice: User, caplog: pytest.LogCaptureFixture, monkeypatch
) -> None:
    caplog.set_level(logging.DEBUG)
    address = _address(client)
    secret = address.removeprefix("ics/").removesuffix(".ics")
    monkeypatch.setattr("app.services.ical.of", lambda *_: 1 / 0)
    assert app.test_client().get(f"/{address}").status_code == 500
    assert "unexpected error" in caplog.text
    assert secret not in caplog.text.replace("GET /ics", "")
    stored = db.session.execute(sa.text("SELECT string_agg(f::text, '') FROM feeds f")).scalar_one()
    stored += db.session.execute(sa.text("SELECT string_agg(a::text, '') FROM audit_events a")).scalar_one()
    assert secret not in stored
    assert feeds.digest(secret) in stored


def test_another_ones_address_cannot_be_withdrawn(client: Client, host: Host, alice: User) -> None:
    feed, _secret = feeds.create(make_user("bob"), "theirs", None, "")
    assert client.post(f"/settings/calendars/{feed.id}/withdraw").status == 404
