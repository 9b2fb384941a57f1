"""The booking form: checked, booked, mistyped, refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.extensions import db
from app.models import Allocation, Booking, GpuState, Host, Refusal, User
from app.services import policy
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_user
from tests.page import Client, Page

NOW = datetime(2026, 11, 3, 4, 3, 20, tzinfo=UTC)  # Tuesday 12:03:20 in the lab
HOUR = timedelta(hours=1)
FIELDS = {"start_date": "2026-11-04", "start_time": "20:00", "end_time": "08:00", "count": "2", "check": "1"}


@pytest.fixture(autouse=True)
def woken(woken: list[str], freeze: Callable[[datetime], None]) -> list[str]:
    """Time stands still; the hosts whose agents were woken are noted."""
    freeze(NOW)
    return woken


@pytest.fixture
def host(user: User) -> Host:
    found = make_host("lab03", gpus=4)
    make_instance(user, found)
    return found


def at(hours: float) -> datetime:
    """So many hours after Wednesday 00:00 in the lab."""
    return datetime(2026, 11, 3, 16, tzinfo=UTC) + timedelta(hours=hours)


def check(client: Client, **fields: Any) -> Page:
    return client.get("/bookings/new", query_string=FIELDS | fields)


def bookings() -> list[Booking]:
    return list(db.session.scalars(db.select(Booking).order_by(Booking.id)))


@pytest.mark.usefixtures("host")
def test_two_gpus_tomorrow_night(client: Client) -> None:
    form = client.get("/bookings/new").form("Check")
    form.fill(**{"How many GPUs": 2, "Start date": "2026-11-04", "Start time": "20:00", "End time": "08:00"})
    page = client.submit(form)
    sentence = "2 GPUs on lab03, Wed 4 Nov 20:00 to Thu 5 Nov 08:00 (next day), 12 h."
    assert f"{sentence} Costs 24 GPU-hours; 76 of 100 left after." in page.text
    assert bookings() == []  # a check books nothing
    shown = client.follow(client.submit(page.form("Book")))
    assert shown.h1 == "2 GPUs on lab03 · Booked"
    assert "(next day), 12 h" in shown.text
    assert "24 GPU-hours" in shown.text
    (booking,) = bookings()
    assert (booking.starts_at, booking.ends_at) == (at(20), at(32))


@pytest.mark.usefixtures("host")
def test_get_a_gpu_now_is_two_clicks(client: Client, woken: list[str]) -> None:
    page = client.submit(client.get("/").form("Get a GPU now"))
    assert "1 GPU on lab03, Tue 3 Nov 12:03 to 16:00, 3 h 57 min." in page.text
    shown = client.follow(client.submit(page.form("Book")))
    assert shown.h1 == "1 GPU on lab03 · Attaching"
    assert woken == ["lab03"]


@pytest.mark.usefixtures("host")
def test_the_form_as_it_comes_can_be_checked(client: Client) -> None:
    page = client.submit(client.get("/bookings/new").form("Check"))
    assert "This is free" in page.text


@pytest.mark.parametrize(
    ("typed", "hour"), [("20", 20), ("2000", 20), ("20:00", 20), ("8", 8), ("0830", 8.5), ("20.30", 20.5)]
)
@pytest.mark.usefixtures("host")
def test_times_as_people_type_them(client: Client, typed: str, hour: float) -> None:
    page = check(client, start_time=typed, end_date="2026-11-05", end_time="24:00", count="1")
    client.submit(page.form("Book"))
    assert (bookings()[0].starts_at, bookings()[0].ends_at) == (at(hour), at(48))


@pytest.mark.usefixtures("host")
def test_quick_choices_set_the_end(client: Client) -> None:
    page = client.submit(client.get("/bookings/new", query_string=FIELDS).form("12 h"))
    assert "Wed 4 Nov 20:00 to Thu 5 Nov 08:00 (next day), 12 h" in page.text
    assert client.get("/bookings/new", query_string=FIELDS | {"hours": "9999"}).status == 200


@pytest.mark.parametrize(
    ("field", "value", "label", "words"),
    [
        ("start_time", "25", "Start time", "Give a time such as 20:00."),
        ("start_time", "later", "Start time", "Give a time such as 20:00."),
        ("start_time", "", "Start time", "Give a time such as 20:00."),
        ("start_date", "tomorrow", "Start date", "Give a date such as 2026-11-04."),
        ("start_date", "9999-12-31", "Start date", "Give a date such as 2026-11-04."),
        ("start_date", "2026-11-01", "Start time", "The start lies in the past."),
        ("end_time", "", "End time", "Give a time such as 08:00."),
        ("end_time", "20:00", "End time", "The end must be after the start."),
        ("end_date", "2026-11-04", "End time", "The end must be after the start."),
        ("end_date", "2028-11-04", "End time", "The window is longer than a year."),
        ("end_date", "x" * 5000, "End date", "Give a date such as 2026-11-04."),
        ("count", "0", "How many GPUs", "Give a whole number from 1 on."),
        ("count", "-1", "How many GPUs", "Give a whole number from 1 on."),
        ("count", "٣", "How many GPUs", "Give a whole number from 1 on."),
        ("count", "99999999999999999999", "How many GPUs", "Give a whole number from 1 on."),
        ("model", "Abacus", "GPU model", "There is no such model."),
        ("host", "nowhere", "Host", "There is no such host."),
        ("note", "x" * 201, "Purpose", "The purpose is too long: 200 characters at most."),
        ("note", "one\ntwo", "Purpose", "The purpose must be one line of text."),
        ("note", "nul\x00", "Purpose", "The purpose must be one line of text."),
    ],
)
@pytest.mark.usefixtures("host")
def test_mistakes_are_named_and_nothing_typed_is_lost(
    client: Client, field: str, value: str, label: str, words: str
) -> None:
    page = check(client, **{"note": "training", field: value})
    assert page.status == 422
    assert page.all("//title")[0].text.startswith("Error: ")
    assert any(f"{label}: {words}" in text for text in page.texts("//div[@role='alert']//li")), page.text
    assert any(words in text for text in page.texts("//*[contains(@class, 'field')]//p[@class='error']"))
    assert page.form("Check").values["count"] == (value if field == "count" else "2")
    for name in ("start_time", "end_time", "note"):
        kept = page.form("Check").values[name]
        assert (
            kept == (value if field == name else {**FIELDS, "note": "training"}[name])
            or "\n" in value
            or "\x00" in value
        )


@pytest.mark.usefixtures("host")
def test_ten_megabytes_are_refused_with_a_sentence(client: Client) -> None:
    page = client.post("/bookings", FIELDS | {"note": "x" * 10_000_000})
    assert page.status == 413
    assert "more than Berth accepts" in page.text


def test_markup_stays_text(client: Client, user: User, host: Host) -> None:
    note = '<script>alert(1)</script> & "quotes"'
    shown = client.follow(client.submit(check(client, note=note).form("Book")))
    assert note in shown.text
    assert not shown.all("//main//script")
    booking = bookings()[0]
    assert booking.note == note
    assert (user.id, host.id) == (booking.user_id, booking.host_id)


@pytest.mark.usefixtures("host")
def test_a_hole_in_the_clock_and_an_hour_that_comes_twice(client: Client, user: User) -> None:
    user.timezone = "America/New_York"
    db.session.flush()
    with_rules = policy.current()
    with_rules.horizon_days = 400
    hole = check(client, start_date="2027-03-14", start_time="02:30", end_time="05:00")
    assert hole.status == 422
    assert "02:30 does not exist on that day: the clocks go forward. Use 03:30." in hole.text
    # 01:30 comes twice on 7 November 2027; the first is meant, so 04:00 is three and a half hours later.
    assert "3 h 30 min" in check(client, start_date="2027-11-07", start_time="01:30", end_time="04:00", count="1").text


def test_the_viewers_zone_is_printed_beside_the_labs(client: Client, user: User, host: Host) -> None:
    user.timezone = "Europe/Berlin"
    db.session.flush()
    page = check(client, start_date="2026-11-04", start_time="13:00", end_time="14:00", host=host.name)
    assert "Wed 4 Nov 13:00 (lab: 20:00) to Wed 4 Nov 14:00 (lab: 21:00), 1 h" in page.text
    client.submit(page.form("Book"))
    assert bookings()[0].starts_at == at(20)


def test_sent_twice_it_books_once(client: Client, host: Host) -> None:
    form = check(client, host=host.name).form("Book")
    first, second = client.submit(form), client.submit(form)
    assert (first.status, second.status) == (303, 303)
    assert first.location == second.location
    assert len(bookings()) == 1


def test_what_was_shown_is_what_is_booked_or_refused(client: Client, host: Host) -> None:
    form = check(client).form("Book")
    taken = gpus_of(host)[:2]
    make_booking(make_user("chen-yu"), taken, at(19), at(22))
    page = client.submit(form)
    assert page.status == 409
    assert "GPU 0, GPU 1 on lab03 is taken from Wed 4 Nov 19:00 to Wed 4 Nov 22:00 (Chen Yu)." in page.text
    assert page.form("Check").values["start_time"] == "20:00"
    assert client.submit(page.form("Book 2 GPUs on lab03")).status == 303  # the other two
    query = db.select(Allocation.gpu_id).where(Allocation.booking_id == bookings()[-1].id)
    assert not set(db.session.scalars(query)) & {gpu.id for gpu in taken}


def test_a_refused_booking_is_kept_and_says_what_works_now(client: Client, host: Host) -> None:
    form = check(client, count="1").form("Book")
    make_booking(make_user("chen-yu"), gpus_of(host), at(15), at(26))
    assert client.submit(form).status == 409
    listed = client.get("/bookings")
    (link,) = [name for name in listed.links() if name.startswith("Refused: ")]
    page = client.get(listed.link(link))
    assert page.h1 == "Not booked"
    assert "is taken from Wed 4 Nov 15:00 to Thu 5 Nov 02:00 (Chen Yu)" in page.text
    assert client.submit(page.form("Book the later time")).status == 303
    assert (bookings()[-1].starts_at, bookings()[-1].ends_at) == (at(26), at(38))


def test_a_check_that_is_refused_keeps_nothing(client: Client, host: Host) -> None:
    make_booking(make_user("chen-yu"), gpus_of(host), at(15), at(26))
    page = check(client)
    assert page.status == 409
    assert "Not booked" in page.text
    assert db.session.scalar(db.select(db.func.count()).select_from(Refusal)) == 0


def test_over_quota_offers_what_fits(client: Client, host: Host) -> None:
    poor = make_user("poor", hours=10)
    make_instance(poor, host)
    client.login_as(poor)
    page = check(client)
    assert page.status == 422
    assert "This costs 24 GPU-hours and you have 10 left." in page.text
    assert client.submit(page.form("Book 5 h instead")).status == 303
    assert (bookings()[0].starts_at, bookings()[0].ends_at) == (at(20), at(25))


@pytest.mark.parametrize(
    ("fields", "words", "button"),
    [
        (
            {"end_date": "2026-11-08"},
            "A booking may last 72 hours at most; this one lasts 84 hours.",
            "Book 72 h instead",
        ),
        ({"count": "9"}, "One booking may take 8 GPUs at most; you asked for 9.", ""),
        ({"count": "6"}, "No host has 6 such GPUs; the most on one host is 4.", "Book 4 GPUs on lab03 instead"),
        (
            {"start_date": "2026-12-01", "count": "1"},
            "A booking must end within 28 days from now.",
            "Book the earlier time",
        ),
    ],
)
@pytest.mark.usefixtures("host")
def test_rules_are_named_with_their_numbers(
    client: Client, user: User, fields: dict[str, str], words: str, button: str
) -> None:
    from app.services import quota

    quota.post(user.account_id, "grant", 10_000 * 3600, key="test:more", actor="test")  # type: ignore[arg-type]
    page = check(client, **fields)
    assert page.status == 422
    assert words in page.text
    if button:
        assert client.submit(page.form(button)).status == 303


def test_chosen_by_hand(client: Client, host: Host) -> None:
    gpus = gpus_of(host)
    both = check(client, gpu=[gpus[1].id, gpus[3].id], count="1")
    client.submit(both.form("Book"))
    assert "2 GPUs on lab03" in both.text
    fewer = check(client, gpu=[gpus[1].id])
    assert fewer.status == 422
    assert "You chose 1 GPU below, but ask for 2." in fewer.text
    assert fewer.all("//details[@open]")
    elsewhere = gpus_of(make_host("lab04", gpus=1))
    assert "on different hosts" in check(client, gpu=[gpus[0].id, elsewhere[0].id]).text
    assert "There is no GPU 987654321." in check(client, gpu=["987654321"], count="1").text
    assert check(client, gpu=["x"]).status == 422


def test_a_gpu_out_of_service_is_refused_with_another(client: Client, host: Host) -> None:
    gpus = gpus_of(host)
    gpus[0].state = GpuState.MAINTENANCE
    db.session.flush()
    page = check(client, gpu=[gpus[0].id], count="1")
    assert "GPU 0 on lab03 is out of service." in page.text
    assert client.submit(page.form("Book 1 GPU on lab03 instead")).status == 303


def test_links_fill_the_form_in_the_viewers_zone(client: Client, host: Host) -> None:
    gpu = gpus_of(host)[2]
    page = client.get(f"/bookings/new?gpu={gpu.id}&start=20261104T120000Z&end=20261104T140000Z")
    values = page.form("Check").values
    assert (values["start_date"], values["start_time"], values["end_time"]) == ("2026-11-04", "20:00", "22:00")
    assert page.all(f"//input[@id='gpu-{gpu.id}'][@checked]")
    past = client.get("/bookings/new?host=lab03&start=20261001T120000Z").form("Check").values
    assert (past["start_time"], past["host"]) == ("", "lab03")
    for odd in ("start=nonsense", "start=2026-11-04T20:00", "gpu=x&gpu=1", "count=many", "end=9999-12-31T23:59Z"):
        assert client.get(f"/bookings/new?{odd}").status == 200


def test_hidden_fields_changed_to_nonsense(client: Client, host: Host) -> None:
    form = check(client, host=host.name).form("Book")
    for name, value in (
        ("ends_at", "soon"),
        ("starts_at", "0001-01-01T00:00Z"),
        ("take", "1,x"),
        ("ends_at", "2026-11-05T00:00"),
    ):
        assert client.post("/bookings", form.values | {name: value}).status == 422
    assert client.post("/bookings", form.values | {"starts_at": at(-30).isoformat()}).status == 422  # in the past
    assert client.post("/bookings", form.values | {"csrf_token": "forged"}).status == 400
    assert bookings() == []


def test_without_a_machine_the_check_says_so(client: Client) -> None:
    client.login_as(make_user("new"))
    make_host("lab05")
    page = check(client)
    assert "You have no machine on lab05 yet" in page.text
    assert page.link("Create a machine on lab05")


def test_nobody_books_without_an_account_of_hours(client: Client, host: Host) -> None:
    client.login_as(make_user("broke", hours=0))
    home = client.get("/")
    assert "Get a GPU now" not in home.buttons()
    assert "You have no GPU-hours left to book." in home.text
    assert "you have 0 left" in client.get("/bookings/new?now=1&check=1").text
    assert host.name
