"""The calendar that keeps up: ends moved and undone, news by themselves, a day and a month, a booking's price."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from app.extensions import db
from app.models import Booking, User
from app.services import bookings, quota
from app.services.bookings import Ask
from app.services.rules import classes
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client, Page

NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR = timedelta(hours=1)
NINE = NOW.replace(minute=0) + HOUR  # Wednesday 21:00


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def booking(user: User) -> Booking:
    """Two GPUs, Wednesday 21:00 to Thursday 01:00, made as pages make it."""
    make_host("lab03", gpus=3)
    made = bookings.create(user, Ask(ends_at=NINE + 4 * HOUR, starts_at=NINE, count=2), 900)
    db.session.commit()
    return made


def move(client: Client, booking_id: int, end: datetime, *, htmx: bool = False, **more: str) -> Page:
    data = {"at": end.isoformat(), **more}
    return client.post(f"/calendar/bookings/{booking_id}/end?day=2026-11-04", data, htmx=htmx)


def test_an_end_is_moved_and_undone(client: Client, booking: Booking, woken: list[str]) -> None:
    moved = move(client, booking.id, NINE + 6 * HOUR, htmx=True)
    assert moved.status == 200
    assert "2 GPUs on lab03: extended by 2 h, it ends Thu 5 Nov 03:00." in moved.text
    assert moved.all("/*[@id='week'] | //*[@id='week']")
    undone = client.submit(moved.form("Undo"))
    assert "day=2026-11-04" in undone.location
    page = client.get(undone.location)
    assert "undone, it ends Thu 5 Nov 01:00." in page.text
    assert "Undo" not in page.buttons()
    shorter = client.get(move(client, booking.id, NINE + HOUR).location)
    assert "shortened, it ends Wed 4 Nov 22:00, 6 GPU-hours given back." in shorter.text
    assert "Undo" in shorter.buttons()
    assert woken == []


def test_what_costs_a_late_fee_asks_first(client: Client, booking: Booking) -> None:
    """Also the undo of what was done just now: it gives back as late as anything else."""
    account = booking.account_id
    classes.change(make_admin(), classes.default().id, {"late_hours": 24, "late_percent": 50})
    longer = move(client, booking.id, NINE + 6 * HOUR, htmx=True)
    free = quota.free(account)
    for asked, ends in (
        (client.submit(longer.form("Undo")).location, NINE + 4 * HOUR),
        (move(client, booking.id, NINE + 4 * HOUR, htmx=True).headers["HX-Redirect"], NINE + 4 * HOUR),
        (move(client, booking.id, NINE + 5 * HOUR).location, NINE + 5 * HOUR),
    ):
        assert (booking.ends_at, quota.free(account)) == (NINE + 6 * HOUR, free)
        page = client.get(asked)
        gives = (NINE + 6 * HOUR - ends) // HOUR * 2
        assert f"{gives} GPU-hours are given back." in page.text
        assert f"{gives // 2} GPU-hours are charged: 50% of what is given back less than 24 hours" in page.text
        assert page.form("Change").values["end_time"] == f"{ends + 8 * HOUR:%H:%M}"
    again = client.submit(page.form("Change").fill(**{"End time": "00:00"}))  # the fee that it named is another
    assert (booking.ends_at, quota.free(account)) == (NINE + 6 * HOUR, free)
    page = client.follow(client.submit(client.get(again.location).form("Change")))
    assert "it ends Thu 5 Nov 00:00, 6 GPU-hours given back. 3 GPU-hours are charged: 50%" in page.text
    assert (booking.ends_at, quota.free(account)) == (NINE + 3 * HOUR, free + 3 * 3600)
    earlier = client.post(f"/calendar/bookings/{booking.id}/start", {"at": (NINE + HOUR).isoformat()})
    assert "1 GPU-hours are charged" in client.get(earlier.location).text
    assert client.get(f"{earlier.location}&agreed=x").status == 200


def test_a_late_fee_that_has_grown_since_it_was_named_is_named_again(
    client: Client, user: User, freeze: Callable[[datetime], None]
) -> None:
    make_host("lab03", gpus=2)
    classes.change(make_admin(), classes.default().id, {"late_hours": 24, "late_percent": 100})
    start = NINE + 22 * HOUR
    booking = bookings.create(user, Ask(ends_at=start + 4 * HOUR, starts_at=start, count=2), 900)
    free = quota.free(booking.account_id)
    page = client.get(move(client, booking.id, start + HOUR).location)
    assert "0.1 GPU-hours are charged" in page.text, "so much lies within 24 hours"
    freeze(NOW + 2 * HOUR)
    asked = client.submit(page.form("Change"))
    assert (booking.ends_at, quota.free(booking.account_id)) == (start + 4 * HOUR, free)
    page = client.get(asked.location)
    assert "4.1 GPU-hours are charged" in page.text
    freeze(NOW + 2 * HOUR + timedelta(minutes=4))
    client.submit(page.form("Change"))
    back = 6 * 3600 - 2 * (2 * 3600 + 7 * 60)  # all but what lies before 14:07
    assert (booking.ends_at, quota.free(booking.account_id)) == (start + HOUR, free + back)


def test_hours_given_back_count_as_they_were_paid(client: Client, user: User) -> None:
    host = make_host("lab03", gpus=1)
    classes.change(make_admin(), classes.default().id, {"weights": {gpus_of(host)[0].model: 200}})
    made = bookings.create(user, Ask(ends_at=NINE + 4 * HOUR, starts_at=NINE), 900)
    shorter = client.get(move(client, made.id, NINE + 3 * HOUR).location)
    assert "shortened, it ends Thu 5 Nov 00:00, 2 GPU-hours given back." in shorter.text


def test_a_start_is_moved_and_undone_but_not_over_a_change_that_was_not_seen(client: Client, booking: Booking) -> None:
    where, seen = f"/calendar/bookings/{booking.id}/start?day=2026-11-04", NINE.isoformat()
    data = {"at": (NINE + HOUR / 2).isoformat(), "seen": seen}
    moved = client.post(where, data, htmx=True)
    assert "2 GPUs on lab03: later, it starts Wed 4 Nov 21:30, 1 GPU-hours given back." in moved.text
    assert "You, Wed 21:30 to Thu 01:00, booked" in moved.all("//@aria-label")
    twice = client.post(where, data, htmx=True)  # a double click: it is there already
    assert (twice.status, "nothing changed" in twice.text) == (200, True)
    stale = client.post(where, {"at": (NINE + HOUR).isoformat(), "seen": seen}, htmx=True)
    assert (stale.status, "has changed meanwhile" in stale.text) == (409, True)
    undone = client.get(client.submit(moved.form("Undo")).location)
    assert "undone, it starts Wed 4 Nov 21:00." in undone.text
    late = client.post(where, {"at": (NINE + 4 * HOUR).isoformat()}, htmx=True)
    assert (late.status, "must lie before the end" in late.text) == (422, True)
    assert client.post(where, {"at": (NOW - HOUR).isoformat()}, htmx=True).status == 422
    assert client.post(where.replace("/start", "/middle"), {"at": seen}).status == 404


def test_what_cannot_be_moved_says_why_and_shows_the_calendar(client: Client, booking: Booking) -> None:
    other = make_user("chen-yu")
    ids = [allocation.gpu_id for allocation in booking.allocations]
    gpus = [gpu for gpu in gpus_of(booking.host) if gpu.id in ids]
    make_booking(other, gpus, NINE + 5 * HOUR, NINE + 6 * HOUR)
    taken = move(client, booking.id, NINE + 8 * HOUR, htmx=True)
    assert taken.status == 409
    assert "Not changed." in taken.text
    assert "Chen Yu" in taken.texts("//*[@role='alert']")[0]
    assert "Wed 21:00 to Thu 01:00" in " ".join(taken.all("//@aria-label"))
    assert move(client, booking.id, NINE - HOUR, htmx=True).status == 422
    assert move(client, 987654321, NINE, htmx=True).status == 404
    client.login_as(other)
    assert move(client, booking.id, NINE + 2 * HOUR).status == 404


def test_the_page_asks_for_news_and_gets_them_only_if_there_are_some(
    client: Client, booking: Booking, freeze: Callable[[datetime], None]
) -> None:
    address = client.get("/calendar?open=lab03").all("//*[@id='live']/@hx-get")[0]
    assert client.get(address, htmx=True).status == 204
    assert client.get(address).location == "/calendar?open=lab03"
    bookings.create(
        db.session.get_one(User, booking.user_id), Ask(ends_at=NINE + 9 * HOUR, starts_at=NINE + 8 * HOUR), 900
    )
    db.session.commit()
    news = client.get(address, htmx=True)
    assert news.status == 200
    assert "Thu 05:00 to 06:00, booked" in " ".join(news.all("//@aria-label"))
    later = news.all("//*[@id='live']/@hx-get")[0]
    assert client.get(later, htmx=True).status == 204
    freeze(NOW + timedelta(seconds=61))
    assert client.get(later, htmx=True).status == 200  # nobody booked, but time goes on
    assert client.get("/calendar/live?mark=x.y", htmx=True).status == 200


def test_news_cost_two_questions(client: Client, booking: Booking, count_queries: Callable) -> None:
    address = client.get("/calendar").all("//*[@id='live']/@hx-get")[0]
    with count_queries() as queries:
        client.get(address, htmx=True)
    assert len([query for query in queries if "SAVEPOINT" not in query.upper()]) == 2
    assert booking.id


def test_a_day_and_a_month(client: Client, booking: Booking) -> None:
    day = client.get("/calendar?day=2026-11-04")
    assert "Wed 4 Nov 2026, Asia/Shanghai" in day.text
    assert day.texts("//thead/tr[2]/th") == [f"{hour:02}" for hour in range(24)]
    (bar, _second) = day.all("//ul[@class='lane']/li[contains(@class, 'mine')]")
    assert "s294 w42 mine after" in bar.get("class")
    assert "Thu 5 Nov 2026" in client.get(day.link("Next day")).text
    month = client.get(day.link("Month"))
    assert "November 2026" in month.text
    cells = month.texts("//tr[@class='host']/td")
    assert (len(cells), cells[2:6]) == (30, ["0", "6", "2", "0"])
    assert month.all("//tr[@class='host']/td/a/@aria-label") == ["6, some of them yours", "2, some of them yours"]
    assert (
        client.get(month.all("//tr[@class='host']/td[4]/a/@href")[0]).text
        == client.get("/calendar?day=2026-11-04&open=lab03").text
    )
    assert "December 2026" in client.get(month.link("Next month")).text
    assert "October 2026" in client.get(month.link("Previous month")).text
    assert booking.id


def test_a_month_of_others_is_not_mine(client: Client, booking: Booking) -> None:
    client.login_as(make_user("chen-yu"))
    assert "yours" not in " ".join(client.get("/calendar?month=now").all("//td//@aria-label"))
    mine = client.get("/calendar?month=now&mine=1")
    assert set(mine.texts("//tr[@class='host']/td")) == {"0"}
    assert booking.id


def test_days_with_a_clock_change_have_23_or_25_hours(client: Client, user: User) -> None:
    make_host("lab03", gpus=1)
    user.timezone = "Europe/Berlin"
    db.session.flush()
    spring = client.get("/calendar?day=2027-03-28").texts("//thead/tr[2]/th")
    assert spring[:4] == ["00", "01", "03", "04"]
    autumn = client.get("/calendar?day=2026-10-25").texts("//thead/tr[2]/th")
    assert (len(spring), len(autumn), autumn[1:5]) == (23, 25, ["01", "02", "02", "03"])


def test_one_host_alone_is_open(client: Client, user: User) -> None:
    for number in range(3):
        make_host(f"lab{number}", gpus=8)
    page = client.get("/calendar")
    assert not page.all("//tr[@class='gpu']")
    form = page.form("Show").fill(Host="lab1")
    only = client.submit(form)
    assert len(only.all("//tr[@class='gpu']")) == 8
    assert only.texts("//tr[@class='host']/th/span") == ["lab1"]
    assert user.id


def test_the_price_while_choosing(client: Client, booking: Booking) -> None:
    ids = [gpu.id for gpu in gpus_of(booking.host)]
    fields = {
        "start_date": "2026-11-06",
        "start_time": "10:00",
        "end_time": "12:00",
        "gpu": ids[0],
        "count": 1,
        "note": "",
    }

    def ask(**changes: object) -> Page:
        return client.get(f"/bookings/sentence?{urlencode(fields | changes)}", htmx=True)

    assert "Costs 2 GPU-hours; 90 of 92 left after." in ask().text
    assert ask().all("//*[@id='sentence'][contains(@class, 'in-use')] | /*[@id='sentence']")
    assert "Give a time such as 20:00." in ask(end_time="x").text
    taken = {allocation.gpu_id for allocation in booking.allocations}.pop()
    assert "is taken" in ask(start_date="2026-11-04", start_time="22:00", end_time="23:00", gpu=taken).text
    assert "/bookings/new" in client.get(f"/bookings/sentence?{urlencode(fields)}").location
