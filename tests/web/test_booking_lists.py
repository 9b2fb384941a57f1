"""My bookings, Home, and a refused request's page."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.extensions import db
from app.models import Refusal, User
from app.services import policy
from app.services.own import PAGE
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_user
from tests.page import Client

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def user(client: Client) -> User:
    person = make_user("liwei", hours=1000)
    client.login_as(person)
    return person


def refuse(client: Client, **fields: str) -> str:
    """Ask for what is refused; the address of its page."""
    values = {"start_date": "2026-11-05", "start_time": "08:00", "end_time": "20:00", "count": "9"} | fields
    assert client.post("/bookings", values).status in {409, 422}
    return client.get("/bookings").all("//a[starts-with(., 'Refused: ')]/@href")[0]


def test_empty_pages_say_what_to_do_next(client: Client, user: User) -> None:
    make_host("lab01")
    page = client.get("/bookings")
    assert "Nothing runs and nothing is booked." in page.text
    assert "This is free" in client.get(page.link("Get a GPU now")).text
    home = client.get("/")
    assert home.link("Create your machine") == "/machines/new"
    policy.current().self_service = False
    assert "Ask an admin for one." in client.get("/").text
    assert user.username == "liwei"


def test_bookings_by_what_they_are_at(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab01", gpus=4))
    make_instance(user, make_host("lab02"))
    make_booking(user, gpus[:1], NOW - HOUR, NOW + HOUR, note="now <b>")
    make_booking(user, gpus[:2], NOW + HOUR, NOW + 2 * HOUR)
    make_booking(user, gpus[:3], NOW - 3 * HOUR, NOW - 2 * HOUR)
    make_booking(make_user("other"), gpus[3:], NOW - HOUR, NOW + HOUR, note="not mine")
    page = client.get("/bookings")
    rows = {
        caption: page.texts(f"//table[caption='{caption}']//tbody/tr") for caption in ("Running", "Upcoming", "Past")
    }
    assert [len(found) for found in rows.values()] == [1, 1, 1]
    assert rows["Running"][0].startswith("1 GPU on lab01 Wed 4 Nov 19:00 to 21:00, 2 h Attaching now <b> 2")
    assert "Booked" in rows["Upcoming"][0]
    assert "Ended" in rows["Past"][0]
    assert "not mine" not in page.text
    home = client.get("/")
    assert "Ends Wed 4 Nov 21:00 (in 1 h)" in home.text
    assert "Starts Wed 4 Nov 21:00 (in 1 h), ends Wed 4 Nov 22:00" in home.text
    assert "992 left" not in home.text
    assert "reserved" in home.text


def test_the_past_comes_in_pages(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab01", gpus=1))
    for number in range(PAGE + 5):
        make_booking(user, gpus, NOW - (number + 2) * HOUR, NOW - (number + 1) * HOUR)
    first = client.get("/bookings")
    assert len(first.all("//table[caption='Past']//tbody/tr")) == PAGE
    second = client.get(first.link("Earlier"))
    assert len(second.all("//table[caption='Past']//tbody/tr")) == 5
    assert "Earlier" not in second.links()
    assert second.link("Newest") == "/bookings"
    assert client.get("/bookings?before=999999999").status == 200
    assert client.get("/bookings?before=x").status == 200


def test_why_was_it_refused(client: Client, user: User) -> None:
    make_host("lab01", gpus=4)
    page = client.get(refuse(client))
    assert page.h1 == "Not booked"
    assert "One booking may take 8 GPUs at most; you asked for 9." in page.text
    assert "Thu 5 Nov 08:00 to 20:00, 12 h" in page.text
    form = page.form("Change the request")
    assert client.submit(form).form("Check").values["count"] == "9"
    assert user.username == "liwei"


def test_a_refused_request_whose_time_has_passed(
    client: Client, user: User, freeze: Callable[[datetime], None]
) -> None:
    gpus = gpus_of(make_host("lab01", gpus=1))
    make_booking(make_user("other"), gpus, NOW + HOUR, NOW + 30 * HOUR)
    address = refuse(client, count="1")
    freeze(NOW + 31 * HOUR)
    client.login_as(user)
    page = client.get(address)
    assert "is taken" in page.text or "No host has 1 free GPU" in page.text
    assert client.submit(page.form("Book 1 GPU on lab01")).status == 303


def test_refusals_are_ones_own_and_few(client: Client, user: User) -> None:
    make_host("lab01")
    address = refuse(client)
    for _ in range(55):
        refuse_again = client.post(
            "/bookings", {"start_date": "2026-11-05", "start_time": "8", "end_time": "20", "count": "9"}
        )
        assert refuse_again.status == 422
    assert db.session.scalar(db.select(db.func.count()).select_from(Refusal)) == 50
    kept = db.session.scalar(db.select(Refusal.id).order_by(Refusal.id.desc()).limit(1))
    assert client.get(address).status == 404  # made room
    assert client.get(f"/bookings/refused/{kept}").status == 200
    client.login_as(make_user("other"))
    assert client.get(f"/bookings/refused/{kept}").status == 404
    assert user.id
