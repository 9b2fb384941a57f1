"""The waiting list's pages: from a refusal to a place, an offer taken or declined, and who waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.extensions import db
from app.models import Booking, Host, User, Wait
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client, Page
from tests.web.caller import caller

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)  # 20:00 in the lab
HOUR = timedelta(hours=1)


@pytest.fixture
def host(client: Client, freeze: Callable[[datetime], None], woken: list[str]) -> Host:
    freeze(NOW)
    return make_host("lab01", gpus=1)


@pytest.fixture
def user(client: Client, host: Host) -> User:
    person = make_user("liwei")
    client.login_as(person)
    return person


@pytest.fixture
def taken(host: Host) -> Booking:
    """Tomorrow from 20:00 to 24:00 the one GPU is somebody's."""
    other = make_user("chenyu")
    return make_booking(other, gpus_of(host), NOW + 24 * HOUR, NOW + 28 * HOUR)


TOMORROW = {"start_date": "2026-11-05", "start_time": "20:00", "end_time": "22:00", "count": "1"}


def join(client: Client, page: Page, **fields: str) -> Page:
    return client.submit(page.form("Join the waiting list").fill(**fields))


def wait_for_tomorrow(client: Client, **fields: str) -> None:
    values = client.get("/waits/new").form("Join the waiting list").values | TOMORROW | {"hours": "", "end_date": ""}
    assert client.post("/waits", values | fields).status == 303


def state() -> list[str]:
    db.session.commit()
    return [str(wait.state) for wait in db.session.scalars(db.select(Wait).order_by(Wait.id))]


def cancelled_by_its_owner(client: Client, booking: Booking) -> None:
    owner = db.session.get_one(User, booking.user_id)
    caller(client, owner).delete(f"/bookings/{booking.id}")


def test_from_a_refusal_to_the_booking(client: Client, user: User, taken: Booking) -> None:
    refused = client.get("/bookings/new", query_string=TOMORROW | {"check": "1", "note": "Ablation"})
    form = client.get(refused.link("Join the waiting list…"))
    assert form.form("Join the waiting list").values["hours"] == "", "the very time that was asked for"
    assert "Waiting costs nothing." in form.text
    listed = client.follow(join(client, form))
    assert "You are on the waiting list." in listed.text
    assert "Thu 5 Nov 20:00 to 22:00, 2 h" in listed.text
    assert "Number 1 in line" in listed.text
    assert "Number 1 in line" in client.get("/").text
    assert "Number 1 in line" in client.get("/bookings").text
    cancelled_by_its_owner(client, taken)
    after = client.get("/waits")
    booking = client.get(after.link("1 GPU on lab01"))
    assert "1 GPU on lab01 · Booked" in booking.h1
    assert "Ablation" in booking.text
    assert state() == ["granted"]


def test_a_form_sent_twice_waits_once_and_a_wrong_one_keeps_what_was_typed(
    client: Client, user: User, taken: Booking
) -> None:
    form = client.get("/waits/new")
    wrong = join(client, form, **{"For how long": "x", "Purpose": "Ablation", "End time": "25"})
    assert wrong.status == 422
    assert wrong.form("Join the waiting list").values | {"note": "Ablation", "hours": "x", "end_time": "25"} == (
        wrong.form("Join the waiting list").values
    )
    assert join(client, form, **{"How many GPUs": "2"}).status == 422
    assert "the most on one host is 1" in join(client, form, **{"How many GPUs": "2"}).text
    values = form.form("Join the waiting list").values | TOMORROW | {"hours": "", "end_date": ""}
    assert [client.post("/waits", values).status for _ in range(2)] == [303, 303]
    assert state() == ["waiting"]


def test_what_is_free_at_once_is_booked_at_once(client: Client, user: User, woken: list[str]) -> None:
    assert join(client, client.get("/waits/new?hours=2")).status == 303
    assert state() == ["granted"]
    assert "Attaching" in client.get("/bookings").text
    assert woken == ["lab01"]


def test_an_offer_is_taken(client: Client, user: User, taken: Booking) -> None:
    wait_for_tomorrow(client, how="ask")
    cancelled_by_its_owner(client, taken)
    for page in (client.get("/"), client.get("/bookings"), client.get("/waits")):
        assert "Offered to you: 1 GPU on lab01" in page.text
        assert "Held for you until Wed 4 Nov 20:30 (in 30 min)" in page.text
    (booking,) = db.session.scalars(db.select(Booking).where(Booking.user_id == user.id))
    held = client.get(f"/bookings/{booking.id}")
    assert "This is an offer of the waiting list." in held.text
    assert "Take it" in held.buttons()
    assert "Change…" not in held.links()
    calendar = "/calendar?day=2026-11-05"
    own = "//li[contains(@class, 'mine')]/a"
    assert (len(client.get(calendar).all(own)), client.get(calendar).all(f"{own}/@data-end")) == (1, [])
    moved = client.post(f"/calendar/bookings/{booking.id}/start", {"at": NOW.isoformat()})
    assert (moved.status, "This is only offered to you yet. Take it first." in moved.text) == (422, True)
    shown = client.follow(client.submit(client.get("/waits").form("Take it")))
    assert "It is yours." in shown.text
    assert "This is an offer" not in shown.text
    assert "Change…" in client.get(f"/bookings/{booking.id}").links()
    assert len(client.get(calendar).all(f"{own}/@data-end")) == 1
    assert state() == ["granted"]
    again = client.post(f"/waits/{db.session.scalars(db.select(Wait.id)).one()}/leave")
    assert again.status == 409
    assert "This is over" in again.text


def test_an_offer_is_declined_and_goes_to_the_next(client: Client, user: User, taken: Booking) -> None:
    wait_for_tomorrow(client, how="ask")
    second = make_user("second")
    client.login_as(second)
    wait_for_tomorrow(client)
    assert "Number 2 in line" in client.get("/waits").text
    cancelled_by_its_owner(client, taken)
    client.login_as(user)
    ask = client.get(client.get("/waits").link("Decline…"))
    assert "It costs you nothing." in ask.text
    assert "Declined" in client.follow(client.submit(ask.form("Decline"))).text
    assert state() == ["withdrawn", "granted"]


def test_leaving_can_be_undone(client: Client, user: User, taken: Booking, freeze: Callable[[datetime], None]) -> None:
    wait_for_tomorrow(client)
    ask = client.get(client.get("/waits").link("Leave: 1 GPU, on any host"))
    left = client.follow(client.submit(ask.form("Leave the waiting list")))
    assert "You left the waiting list." in left.text
    back = client.follow(client.submit(left.form("Undo")))
    assert "Number 1 in line" in back.text
    client.submit(ask.form("Leave the waiting list"))
    freeze(NOW + 11 * timedelta(minutes=1))
    late = client.submit(left.form("Undo"))
    assert (late.status, "Join again, at its end." in late.text) == (422, True)


def test_ways_to_the_list_from_where_nothing_is_free(client: Client, user: User, host: Host) -> None:
    make_booking(make_user(hours=1000), gpus_of(host), NOW - HOUR, NOW + 24 * 28 * HOUR)
    assert "/waits/new" in client.get("/calendar").link("Waiting list")
    found = client.get("/find?find=1&count=1&hours=6&before_date=2026-11-08")
    form = client.get(found.link("Join the waiting list…")).form("Join the waiting list").values
    assert (form["hours"], form["end_date"], form["end_time"]) == ("6", "2026-11-08", "00:00")
    now = client.get("/bookings/new?now=1&check=1")
    assert client.get(now.link("Join the waiting list…")).form("Join the waiting list").values["hours"] == "4"


def test_admins_see_who_waits(client: Client, user: User, taken: Booking) -> None:
    wait_for_tomorrow(client, note="Ablation")
    assert client.get("/waits/everybody").status == 403
    client.login_as(make_admin())
    page = client.get(client.get("/waits").link("Everybody who waits"))
    assert page.texts("//tbody/tr/th") == ["Liwei"]
    assert "Ablation" in page.text


def test_programs_wait_too(client: Client, user: User, taken: Booking) -> None:
    call = caller(client, user)
    body = {
        "count": 1,
        "starts_at": "2026-11-05T12:00:00Z",
        "ends_at": "2026-11-06T12:00:00Z",
        "hours": 22,
        "ask_first": True,
    }
    headers = {"Idempotency-Key": "k"}
    made = [call.post("/waits", body, headers=headers) for _ in range(2)]
    assert [answer.status for answer in made] == [201, 201]
    number = made[0].json["id"]
    assert made[1].json["id"] == number
    assert (made[0].json["state"], made[0].json["place"], made[0].json["hours"]) == ("waiting", 1, 22)
    assert [one["id"] for one in call.get("/waits").json] == [number]
    assert call.post(f"/waits/{number}/accept", {}).status == 409
    cancelled_by_its_owner(client, taken)
    offered = call.get(f"/waits/{number}").json
    assert (offered["state"], offered["decide_by"]) == ("offered", "2026-11-04T12:30:00Z")
    taken_up = call.post(f"/waits/{number}/accept", {})
    assert (taken_up.status, taken_up.json["booking"]) == (200, offered["booking"])
    assert call.delete(f"/waits/{number}").status == 409
    assert call.post("/waits", body | {"hours": 25}).fields() == ["hours"]


def test_an_exact_time_is_a_dashed_bar_on_each_open_host_that_could_give_it(
    client: Client, user: User, taken: Booking, count_queries: Callable[[], object]
) -> None:
    make_host("lab02", gpus=2)
    make_host("lab03", gpus=2, model="NVIDIA L40S")
    wait_for_tomorrow(client, count="2")
    page = client.get("/calendar?open=lab01&open=lab02&open=lab03")
    name = "You wait for 2 GPUs, Thu 20:00 to 22:00"
    assert page.all("//tr[.//li[contains(@class, 'in-line')]]") == []
    assert state() == ["granted"]
    wait_for_tomorrow(client, host="lab01")
    page = client.get("/calendar?open=lab01&open=lab02&open=lab03")
    bars = page.all("//ul[@aria-label='lab01 Waiting']/li/a")
    assert [bar.get("aria-label") for bar in bars] == [name.replace("2 GPUs", "1 GPU")]
    assert len(page.all("//li[contains(@class, 'in-line')]")) == 1
