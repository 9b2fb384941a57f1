"""Series on pages: shown, booked, changed, given back; without JavaScript."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.extensions import db
from app.models import Booking, Host, User
from app.services import maintenance, openings, quota
from app.services.rules import classes
from app.services.windows import Window
from tests.factories import attach, gpus_of, make_admin, make_booking, make_host, make_instance, make_user
from tests.page import Client, Page

NOW = datetime(2026, 11, 3, 4, 3, 20, tzinfo=UTC)  # Tuesday 12:03:20 in the lab
HOUR = timedelta(hours=1)
NIGHTS = {"Start date": "2026-11-04", "Start time": "20:00", "End time": "08:00", "Last day": "2026-11-10"}
EVERY = {"Every weekday (Monday to Friday)": True}


@pytest.fixture(autouse=True)
def woken(woken: list[str], freeze: Callable[[datetime], None]) -> list[str]:
    freeze(NOW)
    return woken


@pytest.fixture
def host(user: User) -> Host:
    found = make_host("lab03", gpus=2)
    make_instance(user, found)
    return found


def at(day: int, hour: float) -> datetime:
    """An hour of a day of November in the lab."""
    return datetime(2026, 11, day, tzinfo=UTC) + timedelta(hours=hour - 8)


def check(client: Client, **fields: Any) -> Page:
    form = client.get("/bookings/new").form("Check")
    return client.submit(form.fill(**(NIGHTS | EVERY | fields)))


def book(client: Client, button: str = "Book all 5", **fields: Any) -> Page:
    return client.follow(client.submit(check(client, **fields).form(button)))


def bookings() -> list[Booking]:
    return list(
        db.session.scalars(db.select(Booking).where(Booking.cancelled_at.is_(None)).order_by(Booking.starts_at))
    )


def states(page: Page) -> list[str]:
    return page.texts("//table//td[@data-label='State']/span[1]")


@pytest.mark.usefixtures("host")
def test_every_weekday_is_shown_then_booked(client: Client) -> None:
    page = check(client, Purpose="Nightly")
    assert page.status == 200
    assert "All 5 fit" in page.text
    assert "lab03, GPU 0, every weekday 20:00–08:00 until Tue 10 Nov." in page.text
    assert "Costs 60 GPU-hours; 40 of 100 left after." in page.text
    assert states(page) == ["Fits"] * 5
    assert "Fri 6 Nov 20:00 to Sat 7 Nov 08:00 (next day), 12 h" in page.text
    assert bookings() == []
    shown = client.follow(client.submit(page.form("Book all 5")))
    assert shown.h1 == "Series: every weekday 20:00–08:00 until Tue 10 Nov"
    assert states(shown) == ["Booked"] * 5
    assert {booking.note for booking in bookings()} == {"Nightly"}
    one = client.get(shown.link("Fri 6 Nov 20:00 to Sat 7 Nov 08:00 (next day), 12 h"))
    assert "3 of 5: every weekday 20:00–08:00 until Tue 10 Nov" in one.text
    assert client.get(one.link("The next one")).text.count("4 of 5:") == 1
    assert client.get("/bookings").links().count("Series") == 5


@pytest.mark.usefixtures("host")
def test_an_end_by_a_button_is_the_end_of_each(client: Client) -> None:
    form = client.get("/bookings/new").form("2 h").fill(**(NIGHTS | EVERY | {"Start time": "21:00"}))
    shown = client.follow(client.submit(client.submit(form).form("Book all 5")))
    assert shown.h1 == "Series: every weekday 21:00–23:00 until Tue 10 Nov"


@pytest.mark.usefixtures("host")
def test_a_double_click_books_once(client: Client) -> None:
    form = check(client).form("Book all 5")
    first, again = client.submit(form), client.submit(form)
    assert first.location == again.location
    assert len(bookings()) == 5


def test_those_that_fit_are_booked_and_no_others(client: Client, host: Host, user: User) -> None:
    make_booking(make_user(), gpus_of(host), at(6, 22), at(6, 23))
    page = check(client, **{"Last day": "2026-11-16"}, **{"How many GPUs": 2})
    assert "4 of 9 fit" in page.text
    assert states(page) == ["Fits", "Fits", "Not possible", "Fits", "Fits", *["Not possible"] * 4]
    assert "No host has 2 free GPUs from Fri 6 Nov 20:00" in page.text
    assert "This costs 24 GPU-hours and you have 4 left." in page.text
    assert "Book all 9" not in page.buttons()
    client.follow(client.submit(page.form("Book the 4 that fit")))
    assert [one.starts_at for one in bookings() if one.user_id == user.id] == [at(day, 20) for day in (4, 5, 9, 10)]
    assert quota.free(user.account_id or 0) == 4 * 3600


def test_what_changed_since_the_check_is_said_and_nothing_is_lost(client: Client, host: Host) -> None:
    page = check(client, Purpose="Nightly")
    make_booking(make_user(), gpus_of(host), at(5, 22), at(5, 23))
    refused = client.submit(page.form("Book all 5"))
    assert refused.status == 409
    assert "Not booked 1 of 5 bookings is not possible. GPU 0 on lab03 is taken from Thu 5 Nov 22:00" in refused.text
    assert len(bookings()) == 1
    assert states(refused) == ["Fits", "Not possible", *["Fits"] * 3]
    again = refused.form("Check")
    assert again.values["repeat"] == ["workdays"]
    assert (again.values["until"], again.values["note"]) == ("2026-11-10", "Nightly")
    client.follow(client.submit(refused.form("Book the 4 that fit")))
    assert len(bookings()) == 5


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"Last day": "x", "Start time": "x"}, "Give a date such as 2026-11-04."),
        ({"Last day": "2026-11-03"}, "The last day lies before the first."),
        ({"Last day": "2027-11-03"}, "a series has 60 at most"),
        ({"Every weekday (Monday to Friday)": False}, "Choose the days of the week on which it repeats."),
        ({"Start date": "2026-11-03", "Start time": ""}, "Give a time such as 20:00."),
        ({"Start time": "25"}, "Give a time such as 20:00."),
        ({"Purpose": "x" * 201}, "The purpose is too long"),
    ],
)
def test_what_is_mistyped_is_said_beside_its_field(client: Client, fields: dict[str, Any], said: str) -> None:
    page = check(client, **fields)
    assert page.status == 422
    assert "There is a problem" in page.text
    assert said in " ".join(page.texts("//p[@class='error']"))
    assert bookings() == []


@pytest.mark.usefixtures("host")
def test_this_and_all_later_ones_are_cancelled(client: Client, user: User) -> None:
    book(client)
    page = client.get(f"/bookings/{bookings()[3].id}")
    sure = client.get(page.link("Cancel this and all later ones…"))
    assert sure.h1 == "Cancel 2 bookings?"
    assert "24 GPU-hours are given back." in sure.text
    done = client.follow(client.submit(sure.form("Cancel 2 bookings")))
    assert "2 bookings cancelled: 24 GPU-hours given back." in done.text
    assert states(done) == ["Booked"] * 3 + ["Cancelled"] * 2
    assert quota.free(user.account_id or 0) == (100 - 36) * 3600
    again = client.submit(sure.form("Cancel 2 bookings"))
    assert again.status == 422
    assert "Nothing of this series is to come from there on." in again.text


def test_what_later_ones_are_charged_is_told_before_and_afterwards(client: Client, host: Host) -> None:
    book(client)
    classes.change(make_admin("boss"), classes.default().id, {"late_hours": 48, "late_percent": 50})
    page = client.get(f"/bookings/{bookings()[0].id}/later/change?start_time=21:00&end_time=08:00")
    charged = "0.5 GPU-hours are charged: 50% of what is given back less than 48 hours ahead."
    assert charged in page.text
    done = client.follow(client.submit(page.form("Change all 5")))
    assert f"5 bookings changed. {charged}" in done.text


def test_the_later_ones_are_moved_as_shown(client: Client, host: Host) -> None:
    book(client)
    first, second, third, *_rest = bookings()
    page = client.get(client.get(f"/bookings/{second.id}").link("Change hours of this and later ones…"))
    form = page.form("Check")
    assert (form.values["start_time"], form.values["end_time"]) == ("20:00", "08:00")
    shown = client.submit(form.fill(**{"Start time": "21", "End time": "7"}))
    assert "All 4 fit" in shown.text
    assert "8 GPU-hours are given back." in shown.text
    make_booking(make_user(), [gpus_of(host)[0]], at(6, 12), at(6, 20))  # not in the way
    done = client.follow(client.submit(shown.form("Change all 4")))
    assert done.h1 == "Series: every weekday 21:00–07:00 until Tue 10 Nov"
    mine = [one for one in bookings() if one.series_id]
    assert [one.starts_at for one in mine] == [at(4, 20), *(at(day, 21) for day in (5, 6, 9, 10))]
    assert mine[0].series_id == first.series_id != mine[1].series_id
    page = client.get(f"/bookings/{third.id}/later/change?start_time=19:00&end_time=08:00")
    assert "2 of 3 fit" in page.text
    assert "is taken from Fri 6 Nov 12:00" in page.text
    assert states(page) == ["Not possible", "Fits", "Fits"]
    make_booking(make_user(), [gpus_of(host)[0]], at(9, 12), at(9, 20))
    refused = client.submit(page.form("Change the 2 that fit"))
    assert refused.status == 409
    assert "Not changed 1 of 2 bookings is not possible." in refused.text
    client.follow(client.submit(refused.form("Change the one that fits")))
    assert [one.starts_at for one in bookings() if one.series_id][-1] == at(10, 19)


def test_the_rest_of_one_goes_with_the_later_ones(
    client: Client, host: Host, user: User, freeze: Callable[[datetime], None]
) -> None:
    """The first night's GPU is worked on from 02:00: its rest is on the other one."""
    book(client)
    first, *_others = bookings()
    freeze(at(4, 21))
    client.login_as(user)
    attach(first)
    db.session.expire_all()
    gpus = [gpu for gpu in gpus_of(host) if openings.any_overlap([gpu.id], Window(at(4, 20), at(4, 21)))]
    work = Window(at(5, 2), at(5, 12))
    maintenance.schedule(make_admin(), host, gpus, work, "", maintenance.fingerprint(maintenance.plan(gpus, work)))
    _first, rest, second, *_others = bookings()
    page = client.get(f"/bookings/{rest.id}")
    assert "The rest of 1 of 5: every weekday 20:00–08:00 until Tue 10 Nov" in page.text
    assert "2 of 5: every weekday" in client.get(f"/bookings/{second.id}").text
    page = client.get(page.link("All of them"))
    assert "5 bookings, 60 GPU-hours." in page.text
    assert len(page.texts("//table//th//*[.='rest of an earlier one']")) == 1
    assert client.get(page.link("Cancel 5 bookings…")).h1 == "Cancel 5 bookings?"
    shown = client.get(f"/bookings/{first.id}/later/change?start_time=20:00&end_time=01:00")
    assert "4 of 5 fit" in shown.text
    shown = client.get(f"/bookings/{first.id}/later/change?start_time=20:00&end_time=06:00")
    done = client.follow(client.submit(shown.form("Change all 5")))
    assert done.h1 == "Series: every weekday 20:00–06:00 until Tue 10 Nov"
    assert (bookings()[1].id, bookings()[1].starts_at, bookings()[1].ends_at) == (rest.id, at(5, 2), at(5, 6))


@pytest.mark.usefixtures("host", "user")
def test_the_page_that_asks_names_the_fee_for_giving_back_late(client: Client) -> None:
    classes.change(make_admin(), classes.default().id, {"late_hours": 48, "late_percent": 50})
    book(client)
    page = client.get(f"/bookings/{bookings()[0].id}/later/change?start_time=21:00&end_time=07:00")
    assert "10 GPU-hours are given back. 1 GPU-hours are charged: 50% of what is given back less than" in page.text


@pytest.mark.usefixtures("host")
def test_in_another_zone_the_clock_is_the_readers(client: Client, user: User) -> None:
    user.timezone = "Europe/Berlin"
    db.session.commit()
    page = check(client)
    assert "Wed 4 Nov 20:00 (lab: Thu 03:00)" in page.text
    shown = client.follow(client.submit(page.form("Book all 5")))
    assert bookings()[0].starts_at == datetime(2026, 11, 4, 19, tzinfo=UTC)
    user.timezone = ""
    db.session.commit()
    assert client.get(shown.response.request.path).h1.endswith("until Tue 10 Nov (Europe/Berlin)")
