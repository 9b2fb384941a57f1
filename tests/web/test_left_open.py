"""A form that was open for long: signed out meanwhile, changed by somebody else, sent twice, gone back to."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.extensions import db
from app.models import Booking, Host, User
from app.services import changes
from app.services.rules import classes
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import PASSWORD, Client, Page

NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR = timedelta(hours=1)
NINE = NOW.replace(minute=0) + HOUR


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def host() -> Host:
    return make_host("lab03", gpus=3)


@pytest.fixture
def user(client: Client, host: Host) -> User:
    person = make_user("liwei")
    client.login_as(person)
    return person


@pytest.fixture
def booking(user: User, host: Host) -> Booking:
    """One GPU, Wednesday 21:00 to Thursday 01:00."""
    return make_booking(user, gpus_of(host)[:1], NINE, NINE + 4 * HOUR)


def back_in(client: Client, answer: Page, who: str = "liwei") -> Page:
    """Whoever is sent to sign in does so, and is where that leads."""
    asked = client.follow(answer)
    assert "You were signed out meanwhile, and nothing was done." in asked.text
    page = client.follow(client.submit(asked.form("Sign in").fill(Username=who, Password=PASSWORD)))
    return client.follow(page) if page.status == 303 else page


def signed_out(client: Client) -> dict[str, str]:
    """The session is gone; what the form on the page carries is still there."""
    token = client.csrf_token()
    client.raw.delete_cookie("session")
    return {"csrf_token": token}


def test_signed_out_while_booking_all_that_was_typed_comes_back(client: Client, user: User, host: Host) -> None:
    gpus = [str(gpu.id) for gpu in gpus_of(host)[1:]]
    typed = {"count": "2", "start_date": "2026-11-06", "start_time": "20:00", "end_time": "8", "note": "Für Ä & co"}
    page = back_in(client, client.post("/bookings", typed | {"gpu": gpus} | signed_out(client)))
    values = page.form("Check").values
    assert {name: values[name] for name in typed} == typed
    assert sorted(values["gpu"]) == sorted(gpus)
    checked = client.submit(page.form("Check"))
    client.raw.delete_cookie("session")
    shown = back_in(client, client.submit(checked.form("Book")))  # what was checked is checked again
    assert "2 GPUs on lab03, Fri 6 Nov 20:00 to Sat 7 Nov 08:00 (next day), 12 h." in shown.text
    assert db.session.scalar(db.select(db.func.count()).select_from(Booking)) == 0
    assert client.follow(client.submit(shown.form("Book"))).h1 == "2 GPUs on lab03 · Booked"
    assert user.id


def test_signed_out_while_changing_a_booking_the_times_come_back(client: Client, booking: Booking) -> None:
    form = client.get(f"/bookings/{booking.id}/change").form("Change").fill(**{"End time": "23:30"})
    client.raw.delete_cookie("session")
    page = back_in(client, client.submit(form))
    assert page.form("Change").values["end_time"] == "23:30"
    assert booking.ends_at == NINE + 4 * HOUR
    client.raw.delete_cookie("session")
    gone = client.post(
        f"/bookings/{booking.id}/cancel", headers={"Referer": f"http://localhost/bookings/{booking.id}/cancel"}
    )
    assert back_in(client, gone).h1 == "Cancel 1 GPU on lab03?"  # no form to fill in: where one was
    client.raw.delete_cookie("session")
    foreign = client.post("/bookings/1/cancel", headers={"Referer": "http://evil.example/bookings/1/cancel"})
    assert foreign.location == "/login"


def test_signed_out_while_joining_the_waiting_list_all_comes_back(client: Client, user: User, host: Host) -> None:
    typed = {
        "count": "2",
        "start_date": "2026-11-06",
        "start_time": "20:00",
        "end_time": "8",
        "note": "x",
        "hours": "3",
    }
    page = back_in(client, client.post("/waits", typed | {"how": "ask"} | signed_out(client)))
    values = page.form("Join the waiting list").values
    assert {name: values[name] for name in typed} == typed
    assert values["how"] == "ask"
    assert user.id


def test_signed_out_while_changing_a_classs_rules_all_come_back(client: Client, host: Host) -> None:
    client.login_as(make_admin("liwei"))
    found = classes.default()
    rules = {"max_hours": "7", "gap_minutes": "30", "hosts": "lab03", "weight:NVIDIA RTX A6000": "150"}
    sent = client.post(f"/rules/classes/{found.id}", rules | signed_out(client))
    values = back_in(client, sent).form("Try these rules").values
    assert (values["max_hours"], values["gap_minutes"], values["weight:NVIDIA RTX A6000"]) == ("7", "30", "150")
    assert "max_hours" not in classes.default().rules


def test_changed_by_another_meanwhile_nothing_is_undone_and_nothing_typed_lost(
    client: Client, booking: Booking
) -> None:
    form = client.get(f"/bookings/{booking.id}/change").form("Change").fill(**{"End time": "23:30"})
    extend = client.get(f"/bookings/{booking.id}").form("+1 h → 02:00")
    changes.move_end(make_admin("boss"), booking.id, NINE + 6 * HOUR, 900)
    stale = client.submit(form)
    assert (stale.status, stale.h1) == (409, "Change 1 GPU on lab03")
    assert "The booking has changed meanwhile." in stale.texts("//*[@role='alert']")[-1]
    assert "21:00 to Thu 5 Nov 03:00" in stale.texts("//p[@class='lead']")[0]  # as it is now
    assert stale.form("Change").values["end_time"] == "23:30"
    assert client.submit(extend).status == 409
    assert booking.ends_at == NINE + 6 * HOUR
    assert "Extended" in client.follow(client.submit(stale.form("Change"))).text  # now it was seen


def test_both_ends_are_typed_and_a_running_one_has_an_end_only(
    client: Client, booking: Booking, freeze: Callable[[datetime], None]
) -> None:
    form = client.get(client.get(f"/bookings/{booking.id}").link("Change…")).form("Change")
    assert (form.values["start_date"], form.values["start_time"]) == ("2026-11-04", "21:00")
    moved = client.submit(form.fill(**{"Start time": "22", "End date": "2026-11-05", "End time": "3"}))
    assert "Moved: it starts Wed 4 Nov 22:00 and ends Thu 5 Nov 03:00." in client.follow(moved).text
    wrong = client.get(f"/bookings/{booking.id}/change").form("Change").fill(**{"Start time": "99"})
    refused = client.submit(wrong)
    assert (refused.status, refused.form("Change").values["start_time"]) == (422, "99")
    freeze(NINE + 2 * HOUR)
    running = client.get(f"/bookings/{booking.id}/change")
    assert "start_time" not in running.form("Change").values


def test_a_double_click_and_the_back_button_do_a_thing_once(
    client: Client, user: User, host: Host, freeze: Callable[[datetime], None]
) -> None:
    make_booking(make_user("chen"), gpus_of(host)[:2], NOW, NOW + 2 * HOUR)
    checked = client.get("/bookings/new?check=1")
    first, again = (client.follow(client.submit(checked.form("Book"))) for _ in range(2))  # sent twice, or gone back to
    assert first.h1 == again.h1
    assert len(db.session.scalars(db.select(Booking).where(Booking.user_id == user.id)).all()) == 1
    longer = next(name for name in first.buttons() if name.startswith("+2 h"))
    ends = {client.follow(client.submit(first.form(longer))).texts("//dl/dd")[0] for _ in range(2)}
    assert len(ends) == 1
    freeze(NOW + HOUR)
    end = client.submit(first.form(next(name for name in first.buttons() if name.startswith("End now"))))
    assert "Ended early" in client.follow(client.submit(end.form("End booking"))).text
    assert client.submit(end.form("End booking")).status == 422  # said, not done again
