"""Find a slot: what is wished is read, proposals book with one click, and what is free this minute."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.extensions import db
from app.models import Booking, User
from app.services.rules import classes
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client

NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def busy(user: User) -> None:
    """lab01: two GPUs, free from Thursday 02:00; lab02: two of another model, free now and taken from 23:00 on."""
    other = make_user("chen-yu", hours=1000)
    at = NOW.replace(minute=0)
    make_booking(other, gpus_of(make_host("lab01", gpus=2, model="NVIDIA RTX A6000")), NOW - HOUR, at + 6 * HOUR)
    make_booking(other, gpus_of(make_host("lab02", gpus=2, model="NVIDIA L40S")), at + 3 * HOUR, at + 40 * HOUR)
    assert user.id


@pytest.mark.usefixtures("busy")
def test_a_proposal_is_booked_with_one_click(client: Client, woken: list[str]) -> None:
    page = client.get(client.get("/calendar").link("Find a slot"))
    found = client.submit(page.form("Find").fill(GPUs="2", Duration="6"))
    assert "2 proposals" in found.text
    first, second = found.texts("//ul[@class='offers']/li")
    assert first.startswith(
        "Earliest: 2 GPUs on lab01, Thu 5 Nov 02:00 to 08:00, 6 h. Costs 12 GPU-hours; 88 of 100 left"
    )
    assert second.startswith("Or: 2 GPUs on lab02, Fri 6 Nov 12:00 to 18:00")
    booked = client.submit(found.form("Book 2 GPUs on lab01"))
    booking = db.session.scalars(db.select(Booking).order_by(Booking.id.desc())).first()
    assert booking is not None
    assert booked.location == f"/bookings/{booking.id}"
    assert (booking.starts_at, booking.ends_at) == (NOW.replace(minute=0) + 6 * HOUR, NOW.replace(minute=0) + 12 * HOUR)
    assert woken == []


@pytest.mark.usefixtures("busy")
def test_the_wish_is_read(client: Client) -> None:
    def first(query: str) -> str:
        return client.get(f"/find?find=1&{query}").texts("//ul[@class='offers']/li")[0]

    assert "lab02, Wed 4 Nov 20:03 to 22:15" in first("count=1&hours=2")
    assert "lab01, Thu 5 Nov 02:00 to 05:30" in first("count=1&hours=3,5&model=NVIDIA+RTX+A6000")
    assert first("count=1&hours=3.5 h&host=lab02").startswith("Earliest: 1 GPU on lab02, Fri 6 Nov 12:00")
    assert first("count=1&hours=2&near_date=2026-11-07&near_time=20:00").startswith(
        "Closest: 1 GPU on lab01, Sat 7 Nov"
    )
    assert "Thu 5 Nov 20:00 to 22:00" in first("count=1&hours=2&near_time=20")
    assert "Sun 8 Nov 00:00" in first("count=1&hours=2&after_date=2026-11-08")
    late = client.get("/find?find=1&count=2&hours=24&before_date=2026-11-05")
    assert "None by then. The earliest after it:" in late.text
    nothing = client.get("/find?find=1&count=2&hours=24&after_date=2027-11-05")
    assert "Nothing is free for that long" in nothing.text


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    ("query", "label"),
    [
        ("count=0&hours=2", "GPUs"),
        ("count=x&hours=2", "GPUs"),
        ("count=1&hours=soon", "Duration"),
        ("count=1&hours=0", "Duration"),
        ("count=1&hours=2&near_time=25", "at"),
        ("count=1&hours=2&before_date=yesterday", "Over before"),
    ],
)
def test_what_cannot_be_meant_is_said_beside_the_field(client: Client, query: str, label: str) -> None:
    page = client.get(f"/find?find=1&{query}")
    assert page.status == 422
    assert page.texts("//div[contains(@class, 'wrong')]/label") == [label]


@pytest.mark.usefixtures("busy")
def test_what_the_rules_refuse_says_why(client: Client) -> None:
    page = client.get("/find?find=1&count=3&hours=2")
    assert page.status == 422
    assert "the most on one host is 2" in page.text
    poor = client.get("/find?find=1&count=2&hours=60")
    assert "See your quota and ask for more hours" in poor.links()


@pytest.mark.usefixtures("busy")
def test_what_is_free_this_minute_is_one_click_away(client: Client, woken: list[str]) -> None:
    page = client.get("/find")
    (offer,) = page.texts("//ul[@class='offers']/li")
    assert offer.startswith("lab02, L40S: 1 GPU on lab02, Wed 4 Nov 20:03 to 23:00")
    booked = client.submit(page.form("Book now, until Wed 23:00"))
    assert "/bookings/" in booked.location
    assert woken == ["lab02"]
    assert "Nothing that you could book is free this minute." in client.get("/find?model=NVIDIA+RTX+A6000").text


@pytest.mark.usefixtures("busy")
def test_who_must_book_ahead_is_told_why_nothing_is_theirs_this_minute(client: Client) -> None:
    admin = make_admin()
    classes.change(admin, classes.of_account(None).id, {"notice_minutes": 60})
    db.session.commit()
    assert "Free this minute A booking must be made 60 minutes before it starts." in client.get("/find").text
    found = client.get("/find?find=1&count=1&hours=1")
    assert found.texts("//ul[@class='offers']/li")[0].startswith("Earliest: 1 GPU on lab02, Wed 4 Nov 21:15 to 22:15")
