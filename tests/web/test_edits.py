"""A booking's number of GPUs and purpose changed on its page: asked first, told after, nothing typed lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app.extensions import db
from app.models import Allocation, Booking, Event, Gpu, GpuState, Host, User
from app.services import edits, news, notice_words, notices, quota, resizing
from app.services.notice_words import Message
from app.services.resizing import Size
from app.services.rules import classes
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client, Form, Page
from tests.web.caller import caller

NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR = timedelta(hours=1)
NINE = NOW.replace(minute=0) + HOUR


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def host() -> Host:
    return make_host("lab03", gpus=4)


@pytest.fixture
def user(client: Client, host: Host) -> User:
    person = make_user("liwei", hours=36)
    client.login_as(person)
    return person


@pytest.fixture
def booking(user: User, host: Host) -> Booking:
    """GPU 1, Wednesday 21:00 to Thursday 01:00: four of 36 hours."""
    return make_booking(user, gpus_of(host)[1:2], NINE, NINE + 4 * HOUR, note="training")


def address(booking: Booking) -> str:
    return f"/bookings/{booking.id}/change"


def minors(booking: Booking) -> list[int]:
    query = db.select(Gpu.minor).join(Allocation, Allocation.gpu_id == Gpu.id)
    return list(db.session.scalars(query.where(Allocation.booking_id == booking.id).order_by(Gpu.minor)))


def hours_left(user: User) -> float:
    return quota.free(user.account_id or 0) / 3600


def test_more_gpus_say_first_what_they_cost(client: Client, booking: Booking, user: User) -> None:
    form = client.get(address(booking)).form("Change")
    assert (form.values["count"], form.values["note"]) == ("1", "training")
    asked = client.follow(client.submit(form.fill(**{"How many GPUs": "3", "Purpose": "thesis"})))
    assert (minors(booking), hours_left(user), booking.note) == ([1], 32, "training")
    assert "Not changed yet" in asked.text
    assert "It will have: GPU 0, GPU 1, GPU 2. It has now: GPU 1." in asked.text
    assert "Costs 8 GPU-hours more; 24 of 32 left after." in asked.text
    told = client.follow(client.submit(asked.form("Change")))
    assert "It has 3 GPUs now: GPU 0, GPU 1, GPU 2. Costs 8 GPU-hours more. Its purpose was changed." in told.text
    assert (told.h1, told.texts("//dt[.='Purpose']/following-sibling::dd[1]")) == (
        "3 GPUs on lab03 · Booked",
        ["thesis"],
    )
    assert (minors(booking), hours_left(user)) == ([0, 1, 2], 24)


def test_fewer_gpus_and_another_time_in_one_go(client: Client, booking: Booking, user: User) -> None:
    resizing.resize(user, booking.id, Size(4), 900)
    form = client.get(address(booking)).form("Change")
    asked = client.follow(
        client.submit(form.fill(**{"How many GPUs": "2", "End date": "2026-11-04", "End time": "23"}))
    )
    assert "12 GPU-hours are given back." in asked.text
    other = asked.form("Change").fill(**{"How many GPUs": "1"})  # not what was shown: shown anew
    assert "14 GPU-hours are given back." in client.follow(client.submit(other)).text
    assert len(minors(booking)) == 4
    told = client.follow(client.submit(asked.form("Change")))
    assert "Moved: it starts Wed 4 Nov 21:00 and ends Wed 4 Nov 23:00. It has 2 GPUs now" in told.text
    assert (len(minors(booking)), hours_left(user)) == (2, 32)


def test_a_time_off_the_grid_is_asked_for_once(client: Client, booking: Booking, user: User) -> None:
    typed = {"How many GPUs": "2", "End date": "2026-11-04", "End time": "23:10"}
    asked = client.follow(client.submit(client.get(address(booking)).form("Change").fill(**typed)))
    assert "Not changed yet" in asked.text
    told = client.follow(client.submit(asked.form("Change")))
    assert "ends Wed 4 Nov 23:15. It has 2 GPUs now" in told.text
    assert (len(minors(booking)), hours_left(user)) == (2, 31.5)


def test_what_was_shown_may_be_gone(client: Client, booking: Booking, host: Host, user: User) -> None:
    form = client.get(address(booking)).form("Change").fill(**{"How many GPUs": "2", "Purpose": "thesis"})
    asked = client.follow(client.submit(form))
    make_booking(make_user("chen"), gpus_of(host)[:1], NINE, NINE + 2 * HOUR)
    taken = client.submit(asked.form("Change"))
    assert taken.status == 409
    assert "GPU 0 on lab03 is taken" in taken.text
    assert "Free next for that long: Wed 4 Nov 23:00 on lab03." in taken.text
    again = taken.form("Change")
    assert (again.values["count"], again.values["note"]) == ("2", "thesis")
    asked = client.follow(client.submit(again))
    assert "It will have: GPU 1, GPU 2." in asked.text
    client.submit(asked.form("Change"))
    assert (minors(booking), booking.note, hours_left(user)) == ([1, 2], "thesis", 28)


def test_a_higher_price_than_the_one_that_was_named_is_named_again(client: Client, booking: Booking) -> None:
    asked = client.follow(client.submit(client.get(address(booking)).form("Change").fill(**{"How many GPUs": "2"})))
    classes.change(make_admin(), classes.default().id, {"weights": {"NVIDIA RTX A6000": 200}})
    dearer = client.follow(client.submit(asked.form("Change")))
    assert "Costs 8 GPU-hours more" in dearer.text
    assert minors(booking) == [1]


def test_giving_gpus_back_late_names_the_fee_first(client: Client, booking: Booking, user: User) -> None:
    resizing.resize(user, booking.id, Size(2), 900)
    classes.change(make_admin(), classes.default().id, {"late_hours": 24, "late_percent": 50})
    asked = client.follow(client.submit(client.get(address(booking)).form("Change").fill(**{"How many GPUs": "1"})))
    assert "2 GPU-hours are charged: 50%" in asked.text
    told = client.follow(client.submit(asked.form("Change")))
    assert "4 GPU-hours are given back. 2 GPU-hours are charged: 50%" in told.text
    assert hours_left(user) == 30


@pytest.mark.parametrize(("typed", "status", "words"), [
    ("0", 422, "Give a whole number"), ("x", 422, "Give a whole number"), ("", 422, "Give a whole number"),
    ("5", 422, "lab03 has 4 GPUs that you may book"),
])  # fmt: skip
def test_what_cannot_be_is_said_and_kept(client: Client, booking: Booking, typed: str, status: int, words: str) -> None:
    form = client.get(address(booking)).form("Change").fill(**{"How many GPUs": typed, "Purpose": "x" * 200})
    wrong = client.submit(form)
    assert wrong.status == status
    assert words in wrong.text
    assert (wrong.form("Change").values["count"], wrong.form("Change").values["note"]) == (typed, "x" * 200)
    long = client.submit(form.fill(**{"How many GPUs": "1", "Purpose": "x" * 201}))
    assert (long.status, "200 characters at most" in long.text) == (422, True)
    assert (minors(booking), booking.note) == ([1], "training")


def test_one_that_runs_keeps_its_gpus_and_has_a_purpose(
    client: Client, booking: Booking, freeze: Callable[[datetime], None]
) -> None:
    freeze(NINE + HOUR)
    page = client.get(address(booking))
    assert "count" not in page.form("Change").values
    assert client.get(page.link("Book one more beside it")).form("Check").values["host"] == "lab03"
    told = client.follow(client.submit(page.form("Change").fill(Purpose="")))
    assert "Its purpose was changed." in told.text
    assert "Nothing changed" not in told.text
    assert booking.note == ""
    forced = client.post(address(booking), {"end_date": "2026-11-05", "end_time": "01:00", "count": "2"})
    assert (forced.status, "it keeps its GPUs" in forced.text) == (422, True)


def test_changed_by_another_meanwhile(client: Client, booking: Booking, user: User) -> None:
    form = client.get(address(booking)).form("Change")
    resizing.resize(user, booking.id, Size(2), 900)
    edits.describe(make_admin("boss"), booking.id, "boss says")
    stale = client.submit(form.fill(Purpose="thesis"))  # it also has one GPU in its field
    assert (stale.status, "other GPUs by now" in stale.text) == (409, True)
    form = client.get(address(booking)).form("Change").fill(Purpose="thesis")
    edits.describe(make_admin("chief"), booking.id, "chief says")
    stale = client.submit(form)
    assert (stale.status, "purpose has changed meanwhile" in stale.text) == (409, True)
    assert "Purpose: chief says" in stale.text
    assert booking.note == "chief says"
    client.submit(stale.form("Change"))  # now it was seen
    assert booking.note == "thesis"


def test_extended_late_or_asked_by_the_calendar_what_was_not_sent_stays(client: Client, booking: Booking) -> None:
    classes.change(make_admin(), classes.default().id, {"late_hours": 24, "late_percent": 50})
    asked = client.post(f"/bookings/{booking.id}/extend", {"ends_at": (NINE + HOUR).isoformat()})
    page = client.follow(asked)
    assert (page.form("Change").values["count"], page.form("Change").values["note"]) == ("1", "training")
    client.submit(page.form("Change"))
    assert (booking.ends_at, booking.note, minors(booking)) == (NINE + HOUR, "training", [1])


def boxes(page: Page) -> dict[str, tuple[bool, bool]]:
    """By its label, whether a GPU can be chosen, and is."""
    found = page.all("//input[@name='gpu']")
    labels = (" ".join(one.getnext().text_content().split()) for one in found)
    return {
        label: ("disabled" not in one.attrib, "checked" in one.attrib) for label, one in zip(labels, found, strict=True)
    }


def choose(form: Form, *gpus: Gpu) -> Form:
    """The form with the boxes of these ticked."""
    form.values["gpu"] = [str(gpu.id) for gpu in gpus]
    return form


def test_which_gpus_can_be_chosen_and_why_not_the_others(
    client: Client, booking: Booking, host: Host, user: User
) -> None:
    gpus = gpus_of(host)
    make_booking(make_user("chen", full_name="Chen Yu"), gpus[:1], NINE + 2 * HOUR, NINE + 6 * HOUR)
    gpus[3].state = GpuState.QUARANTINE
    db.session.flush()
    page = client.get(address(booking))
    model = "NVIDIA RTX A6000"
    assert boxes(page) == {
        f"GPU 0 {model}, taken Wed 4 Nov 23:00 to Thu 5 Nov 03:00 (Chen Yu)": (False, False),
        f"GPU 1 {model}, it has this one": (True, False),
        f"GPU 2 {model}": (True, False),
        f"GPU 3 {model}, out of service": (False, False),
    }
    assert not page.form("Change").values.get("gpu")
    asked = client.follow(client.submit(choose(page.form("Change"), gpus[2])))
    assert "It will have: GPU 2. It has now: GPU 1." in asked.text
    assert "Costs the same." in asked.text
    assert boxes(asked)[f"GPU 2 {model}"] == (True, True)
    assert minors(booking) == [1]
    told = client.follow(client.submit(asked.form("Change")))
    assert "It has 1 GPU now: GPU 2. Costs the same." in told.text
    assert (minors(booking), hours_left(user)) == ([2], 32)


def test_the_gpus_are_those_of_the_time_that_was_typed(
    client: Client, booking: Booking, host: Host, user: User
) -> None:
    """From 22:00 to 23:00 GPU 0 is free; what is chosen beside it is told anew if it was not shown."""
    gpus = gpus_of(host)
    make_booking(make_user("chen"), gpus[:1], NINE + 2 * HOUR, NINE + 6 * HOUR)
    typed = {"End date": "2026-11-04", "End time": "23:00", "How many GPUs": "2"}
    asked = client.follow(client.submit(client.get(address(booking)).form("Change").fill(**typed)))
    assert "It will have: GPU 0, GPU 1." in asked.text
    assert all(free and not chosen for free, chosen in boxes(asked).values())
    other = choose(asked.form("Change"), gpus[2], gpus[3])
    asked = client.follow(client.submit(other))
    assert "It will have: GPU 2, GPU 3. It has now: GPU 1." in asked.text
    client.submit(asked.form("Change"))
    assert (minors(booking), booking.ends_at) == ([2, 3], NINE + 2 * HOUR)


def test_what_was_chosen_and_cannot_be_is_said_and_stays_chosen(
    client: Client, booking: Booking, host: Host, user: User
) -> None:
    gpus = gpus_of(host)
    form = client.get(address(booking)).form("Change")
    few = client.submit(choose(form, gpus[2], gpus[3]).fill(**{"How many GPUs": "3"}))
    assert (few.status, "You chose 2 GPUs below, but ask for 3." in few.text) == (422, True)
    assert [chosen for _free, chosen in boxes(few).values()] == [False, False, True, True]
    make_booking(make_user("chen", full_name="Chen Yu"), gpus[2:3], NINE, NINE + HOUR)
    taken = client.submit(choose(form, gpus[2]).fill(**{"How many GPUs": "1"}))
    assert (taken.status, "GPU 2 on lab03 is taken" in taken.text) == (409, True)
    label = next(label for label in boxes(taken) if label.startswith("GPU 2"))
    assert "taken Wed 4 Nov 21:00 to Wed 4 Nov 22:00 (Chen Yu)" in label
    assert boxes(taken)[label] == (True, True), "what is sent again is what was chosen"
    elsewhere = gpus_of(make_host("lab04"))[0].id
    wrong = client.post(address(booking), form.values | {"gpu": str(elsewhere)})
    assert (wrong.status, "one host: lab03" in wrong.text) == (422, True)
    assert minors(booking) == [1]


def test_other_gpus_where_its_own_are_taken_at_the_new_time(
    client: Client, booking: Booking, host: Host, user: User
) -> None:
    """Until 02:00 GPU 1 is not to be had, and GPU 2 is; nor is GPU 0 to be had before 01:00."""
    gpus, chen = gpus_of(host), make_user("chen")
    make_booking(chen, gpus[1:2], NINE + 4 * HOUR, NINE + 6 * HOUR)
    form = client.get(address(booking)).form("Change").fill(**{"End time": "02:00"})
    assert "GPU 1 on lab03 is taken" in client.submit(form).text
    asked = client.follow(client.submit(choose(form, gpus[2])))
    assert "It will have: GPU 2. It has now: GPU 1." in asked.text
    client.submit(asked.form("Change"))
    assert (minors(booking), booking.ends_at, hours_left(user)) == ([2], NINE + 5 * HOUR, 31)
    make_booking(chen, gpus[2:3], NINE + 5 * HOUR, NINE + 6 * HOUR)
    make_booking(chen, gpus[:1], NINE, NINE + HOUR)
    later = {"Start time": "22:00", "End time": "02:00"}
    form = choose(client.get(address(booking)).form("Change"), gpus[0]).fill(**later)
    client.submit(client.follow(client.submit(form)).form("Change"))
    assert (minors(booking), booking.starts_at) == ([0], NINE + HOUR)


def test_its_owner_hears_which_gpus_it_has_instead(
    app: Flask, client: Client, booking: Booking, host: Host, user: User
) -> None:
    client.login_as(make_admin("boss"))
    form = choose(client.get(address(booking)).form("Change"), gpus_of(host)[2])
    client.submit(client.follow(client.submit(form)).form("Change"))
    (said,) = told(app, user)
    assert said.title == "Other GPUs: 1 GPU on lab03, Wed 4 Nov 21:00"
    assert "It has now: GPU 2. Before: GPU 1." in said.text


def told(app: Flask, user: User) -> list[Message]:
    """What its owner was told of it, each message by itself, the oldest first."""
    notices.choose(user, {event: [notices.MAIL] for event in notices.offered(user)})
    news.collect(mail=True)
    found = [one for one in notices.latest(user) if one.event == Event.MOVED]
    return [notice_words.message(user, [one], "https://b.example", app.extensions["berth"].zone) for one in found[::-1]]


def test_its_owner_hears_in_one_message_all_that_an_admin_changed_at_once(
    app: Flask, client: Client, booking: Booking, user: User
) -> None:
    client.login_as(make_admin("boss"))
    typed = {"How many GPUs": "2", "Purpose": "moved here", "Start time": "22", "End time": "2"}
    form = client.get(address(booking)).form("Change").fill(**typed)
    client.submit(client.follow(client.submit(form)).form("Change"))
    (said,) = told(app, user)
    assert said.title == "Changed: 2 GPUs on lab03, Wed 4 Nov 22:00"
    for line in (
        "2 GPUs on lab03, Wed 4 Nov 22:00 to Thu 5 Nov 02:00",
        "Before, it started Wed 4 Nov 21:00.",
        "Before, it ended Thu 5 Nov 01:00.",
        "Before, it had 1 GPU.",
        "Its purpose: moved here",
        "Changed by boss.",
    ):
        assert line in said.text, line


def test_what_was_changed_one_after_the_other_is_told_so(
    app: Flask, client: Client, booking: Booking, user: User
) -> None:
    """One thing at a time it says what; both ends of its time are one."""
    client.login_as(make_admin("boss"))
    for typed in ({"How many GPUs": "2"}, {"Purpose": "here"}, {"Start time": "22", "End time": "2"}):
        done = client.submit(client.get(address(booking)).form("Change").fill(**typed))
        if "agreed" in done.location:
            client.submit(client.follow(done).form("Change"))
        found = told(app, user)
    assert [one.title for one in found] == [
        "More or fewer GPUs: now 2 GPUs on lab03, Wed 4 Nov 21:00",
        "Another purpose: 2 GPUs on lab03, Wed 4 Nov 21:00",
        "Now starts Wed 4 Nov 22:00: 2 GPUs on lab03",
    ]


def test_over_the_api_its_purpose(client: Client, booking: Booking, user: User) -> None:
    person = caller(client, user)
    answer = person("PATCH", f"/bookings/{booking.id}", {"note": " thesis "})
    assert (answer.status, answer.json["note"], booking.note) == (200, "thesis", "thesis")
    assert person("PATCH", f"/bookings/{booking.id}", {"note": "x" * 201}).fields() == ["note"]
    assert person("PATCH", f"/bookings/{booking.id}", {}).fields() == ["note"]
    assert person("PATCH", f"/bookings/{booking.id}", data=b"{", content_type="application/json").status == 400
    other = caller(client, make_user("chen"))
    assert other("PATCH", f"/bookings/{booking.id}", {"note": "mine"}).status == 404
    reader = caller(client, user, "read")
    assert reader("PATCH", f"/bookings/{booking.id}", {"note": "x"}).status == 403
    assert booking.note == "thesis"


def test_what_is_unticked_where_it_is_asked_about_is_not_taken(client: Client, booking: Booking, host: Host) -> None:
    form = choose(client.get(address(booking)).form("Change"), gpus_of(host)[2])
    asked = client.follow(client.submit(form)).form("Change")
    page = client.follow(client.submit(choose(asked)))
    assert "It has" not in page.text
    assert minors(booking) == [1]


def test_another_number_than_were_chosen_is_said_where_it_is_asked_about(
    client: Client, booking: Booking, host: Host
) -> None:
    form = choose(client.get(address(booking)).form("Change"), *gpus_of(host)[2:4])
    asked = client.follow(client.submit(form)).form("Change")
    refused = client.submit(asked.fill(**{"How many GPUs": "1"}))
    assert refused.status == 422
    assert "You chose 2 GPUs below, but ask for 1." in refused.text
    assert minors(booking) == [1]
