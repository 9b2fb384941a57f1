"""Classes on their pages: made, given rules that are tried first, switched on, given to people, and read by them."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from app import clock
from app.extensions import lab_zone
from app.models import User
from app.services import quota
from app.services.rules import classes
from app.web import rule_words
from tests.factories import attach, gpus_of, make_admin, make_booking, make_host, make_pending, make_user
from tests.page import Client, Form, Page

HOUR = timedelta(hours=1)


@pytest.fixture
def admin(client: Client) -> Client:
    return client.login_as(make_admin("boss"))


@pytest.fixture
def student(client: Client) -> User:
    person = make_user("liwei", full_name="Li Wei")
    assert person.account is not None
    classes.assign(person, person.account, classes.create(person, "Student").id)
    return person


def page_of(client: Client, name: str = "Student") -> Page:
    return client.get(client.get("/rules/classes").link(name))


def trying(page: Page, **values: str | bool) -> Form:
    """The form of the rules filled in, by rule or by label."""
    labels = {name: rule_words.label(name) for name in values}
    return page.form("Try these rules").fill(**{labels[name]: value for name, value in values.items()})


def test_what_changed_is_told_in_words(admin: Client, student: User) -> None:
    admin.submit(page_of(admin).form("Rename").fill(**{"Name of the class": "Undergraduate"}))
    rows = page_of(admin, "Undergraduate").texts("//caption[contains(., 'What changed')]/..//tbody//td[3]")
    assert rows == ["Name of the class: Student → Undergraduate", "Created"]


def last_month() -> datetime:
    return quota.month_start(clock.now(), lab_zone()) - timedelta(days=3)


def test_a_class_is_made_tried_and_switched_on(admin: Client, student: User) -> None:
    gpus = gpus_of(make_host("lab01"))
    then = last_month()
    make_booking(student, gpus[:3], then, then + 2 * HOUR, created_at=then - HOUR)
    attach(make_booking(student, gpus[:1], then + 4 * HOUR, then + 6 * HOUR, created_at=then - HOUR))
    tried = admin.submit(trying(page_of(admin), max_gpus="2", hours_week="20"))
    assert tried.status == 200
    assert tried.texts("//caption[contains(., 'would change')]/..//tbody//*[self::th or self::td]") == [
        "How many GPUs one booking may take", "not set", "2 GPUs",
        "GPU-hours that may be booked a week", "not set", "20 GPU-hours",
    ]  # fmt: skip
    assert "1 of 2 bookings would have been refused." in tried.text
    assert "Not looked at: whether GPUs would have been free for longer bookings" in tried.text
    assert "Given back after 60 minutes of doing nothing, had nobody kept them: 0 (in fact 0)" in tried.text
    assert "Bookings of which it is not known what their GPUs did: 1." in tried.text
    assert "Li Wei" in tried.texts("//caption[contains(., 'By person')]/..//th[@scope='row']")
    assert "One booking may take 2 GPUs at most; you asked for 3." in tried.text
    assert classes.rules_for(student.account_id).max_gpus == 8, "nothing has changed yet"
    further = admin.get(tried.link("Change them further"))
    assert further.form("Try these rules").values["max_gpus"] == "2"
    saved = admin.follow(admin.submit(tried.form("Switch these rules on")))
    assert "Rules saved." in saved.text
    assert "GPU-hours that may be booked a week: not set → 20 GPU-hours" in saved.text
    assert (classes.rules_for(student.account_id).max_gpus, classes.rules_for(student.account_id).hours_week) == (2, 20)


def test_a_trial_says_what_would_have_become_of_the_bookings(admin: Client, student: User) -> None:
    """On a grid of a day, two hours become 24: of two GPUs 44 GPU-hours more; nobody cancelled, nobody stayed away."""
    then = last_month().replace(hour=1)
    made = then - timedelta(days=2)
    make_booking(student, gpus_of(make_host("lab01"))[:2], then, then + 2 * HOUR, created_at=made)
    tried = admin.submit(
        trying(page_of(admin), grid_minutes="1440", late_hours="2", late_percent="50", noshow_minutes="9")
    )
    assert "1 booking would have been longer, to lie on the grid: 44 GPU-hours more." in tried.text
    assert "Charged for giving back late: 0 GPU-hours (in fact 0). Bookings: 0." in tried.text
    assert "Ended since nobody came: 0 (in fact 0), 0 GPU-hours before their time." in tried.text


def test_two_admins_do_not_overwrite_each_other(admin: Client, student: User) -> None:
    tried = admin.submit(trying(page_of(admin), max_gpus="2"))
    classes.change(student, classes.of_account(student.account_id).id, {"max_hours": 9})
    late = admin.submit(tried.form("Switch these rules on"))
    assert late.status == 409
    assert "Somebody changed these rules meanwhile." in late.text
    assert late.form("Try these rules").values["max_gpus"] == "2", "what was typed is kept"
    assert classes.rules_for(student.account_id).max_gpus == 8


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [("max_gpus", "99", "from 1 to 64"), ("hours_day", "many", "from 1 to"), ("far_days", "3", "both numbers")],
)
def test_nonsense_keeps_what_was_typed(admin: Client, student: User, field: str, text: str, says: str) -> None:
    page = admin.submit(trying(page_of(admin), max_hours="7", **{field: text}))
    assert page.status == 422
    assert says in page.texts("//*[@role='alert']")[-1]
    assert page.form("Try these rules").values["max_hours"] == "7"
    assert page.form("Try these rules").values[field] == text


def test_prices_and_lists_come_back_as_they_were_set(admin: Client, student: User) -> None:
    make_host("lab01")
    more = {"What an hour on NVIDIA RTX A6000 costs": "150", "lab01": True, "Saturday": True}
    form = trying(page_of(admin), peak_percent="200", **more)
    admin.follow(admin.submit(admin.submit(form).form("Switch these rules on")))
    rules = classes.rules_for(student.account_id)
    assert (dict(rules.weights), rules.hosts) == ({"NVIDIA RTX A6000": 150}, ("lab01",))
    assert (rules.peak_percent, rules.peak_from, rules.peak_days) == (200, 9, (0, 1, 2, 3, 4, 5))
    again = admin.submit(page_of(admin).form("Try these rules"))
    assert "These are the rules as they are now." in again.text


def test_a_class_gets_another_name_and_goes(admin: Client, student: User) -> None:
    page = admin.follow(admin.submit(page_of(admin).form("Rename").fill(**{"Name of the class": "Master"})))
    assert page.h1 == "Class Master"
    assert admin.submit(page.form("Rename").fill(**{"Name of the class": "Standard"})).status == 422
    ask = admin.get(page.link("Remove class…"))
    assert "Its accounts (1) book by the rules of Standard then." in ask.text
    admin.follow(admin.submit(ask.form("Remove class")))
    assert classes.of_account(student.account_id).is_default
    assert "Remove class…" not in page_of(admin, "Standard").links()


def test_people_are_put_into_a_class_when_approved_or_later(admin: Client, student: User) -> None:
    make_pending("zhao", full_name="Zhao")
    number = str(classes.of_account(student.account_id).id)
    admin.submit(admin.get("/people").form("Approve Zhao").fill(**{"Class of Zhao": number}))
    page = admin.get("/people/zhao")
    assert page.form("Set class").values["class"] == number
    default = str(classes.default().id)
    page = admin.follow(admin.submit(page.form("Set class").fill(**{"Class of Zhao": default})))
    assert "Class changed." in page.text
    assert page.form("Set class").values["class"] == default


def test_one_reads_ones_rules_and_what_is_left_before_one_books(client: Client, student: User, freeze) -> None:
    freeze(clock.now().replace(day=10, hour=4))  # the hour that is counted is all in this month
    gpus = gpus_of(make_host("lab01"))
    classes.change(
        student,
        classes.of_account(student.account_id).id,
        {"hours_month": 30, "weights": {"NVIDIA RTX A6000": 150}, "late_hours": 12, "late_percent": 50},
    )
    now = clock.now().replace(microsecond=0)
    make_booking(student, gpus[:2], now - HOUR, now)
    page = client.login_as(student).get("/quota")
    assert "Rules for Student accounts" in page.texts("//h2")
    (row,) = page.texts("//caption[contains(., 'may be booked')]/..//tbody/tr")
    assert row.startswith("This month 2 30 "), row
    assert "An hour on NVIDIA RTX A6000 counts 150%." in page.text
    form = client.get("/bookings/new")
    assert "You have 98 GPU-hours left to book. This month" in form.text
    start = (now + timedelta(days=1)).astimezone(lab_zone())
    query = f"check=1&count=1&start_date={start:%Y-%m-%d}&start_time={start:%H}:00&hours=2"
    found = client.get(f"/bookings/new?{query}")
    assert "Costs 3 GPU-hours; 95 of 98 left after. It is 2 GPU-hours of time, weighted by your rules." in found.text
    shown = client.follow(client.submit(found.form("Book")))
    client.get(shown.link("Quota"))


def test_a_refusal_of_a_class_rule_offers_what_would_work(client: Client, student: User) -> None:
    make_host("lab01")
    classes.change(student, classes.of_account(student.account_id).id, {"gpus_at_once": 2})
    page = client.login_as(student).get("/bookings/new?check=1&count=3&start_time=&end_time=23:59")
    assert page.status == 422
    assert "You may have 2 GPUs at once" in page.text
    booked = client.follow(client.submit(page.form("Book 2 GPUs on lab01 instead")))
    assert "2 GPUs on lab01" in booked.h1


def test_giving_back_late_says_what_it_costs_first(client: Client, student: User) -> None:
    gpus = gpus_of(make_host("lab01"))
    classes.change(student, classes.of_account(student.account_id).id, {"late_hours": 48, "late_percent": 50})
    start = clock.now().replace(microsecond=0) + 2 * HOUR
    booking = make_booking(student, gpus[:1], start, start + 4 * HOUR)
    ask = client.login_as(student).get(f"/bookings/{booking.id}/cancel")
    assert "4 GPU-hours are given back." in ask.text
    assert "2 GPU-hours are charged: 50% of what is given back less than 48 hours ahead." in ask.text
    client.follow(client.submit(ask.form("Cancel booking")))
    assert "Charged for giving back late" in client.get("/quota").text


def test_the_address_of_a_trial_carries_no_secret(admin: Client, student: User) -> None:
    form = page_of(admin).form("Try these rules")
    assert "csrf_token" not in form.values
    assert "csrf_token" not in parse_qs(urlsplit(form.action).query)
