"""One booking's page: its state in words, what it says when a GPU is not there, and what can be done."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.extensions import db
from app.models import Allocation, Booking, Host, LedgerEntry, User
from app.services.plan import Trouble
from app.services.rules import fees
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_user
from tests.page import Client

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)  # Wednesday 20:00 in the lab
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def woken(woken: list[str], freeze: Callable[[datetime], None]) -> list[str]:
    """Time stands still; the hosts whose agents were woken are noted."""
    freeze(NOW)
    return woken


@pytest.fixture
def host() -> Host:
    return make_host("lab03", gpus=2, seen_at=NOW)


@pytest.fixture
def running(user: User, host: Host) -> Booking:
    """One GPU from an hour ago for five hours, attached."""
    booking = make_booking(user, gpus_of(host)[:1], NOW - HOUR, NOW + 4 * HOUR, note="train")
    for allocation in allocations(booking):
        allocation.attached_at = NOW - HOUR
    db.session.flush()
    return booking


def allocations(booking: Booking) -> list[Allocation]:
    query = db.select(Allocation).where(Allocation.booking_id == booking.id).order_by(Allocation.id)
    return list(db.session.scalars(query))


def address(booking: Booking) -> str:
    return f"/bookings/{booking.id}"


def test_a_running_booking(client: Client, running: Booking) -> None:
    page = client.get(address(running))
    assert page.h1 == "1 GPU on lab03 · In use"
    assert "Ends Thu 5 Nov 00:00 (in 4 h)" in page.text
    assert "/dev/nvidia0" in page.text
    assert "0000:01:00.0" in page.text
    assert page.texts("//li[@aria-current='step']")[0].startswith("In use")
    assert page.all("//*[@id='status']/@hx-trigger") == ["every 15s"]
    assert "Updated 20:00:00 · Refresh" in page.text


def test_states_follow_the_clock(client: Client, running: Booking, freeze: Callable[[datetime], None]) -> None:
    expected = [
        (timedelta(hours=-2), "Booked", "every 15s"),
        (timedelta(hours=-1, seconds=-10), "Booked", "every 2s"),
        (timedelta(0), "In use", "every 15s"),
        (timedelta(hours=3, minutes=50), "Ends soon", "every 15s"),
        (timedelta(hours=4, seconds=-10), "Ends soon", "every 2s"),
        (timedelta(hours=4, seconds=1), "Ended", "every 2s"),  # not seen to be taken back yet
    ]
    for after, word, trigger in expected:
        freeze(NOW + after)
        page = client.get(address(running))
        assert page.h1 == f"1 GPU on lab03 · {word}"
        assert page.all("//*[@id='status']/@hx-trigger") == [trigger]
    assert "The GPUs are being taken back." in page.text
    for allocation in allocations(running):
        allocation.detached_at = NOW + 4 * HOUR
    final = client.get(address(running))
    assert final.all("//*[@id='status']/@hx-trigger") == []
    assert "GPUs taken back" in final.text
    assert final.link("Book again").startswith("/bookings/new?")


def test_attaching_asks_often(client: Client, user: User, host: Host) -> None:
    booking = make_booking(user, gpus_of(host), NOW, NOW + HOUR)
    page = client.get(address(booking))
    assert page.h1 == "2 GPUs on lab03 · Attaching"
    assert page.all("//*[@id='status']/@hx-trigger") == ["every 2s"]
    allocations(booking)[0].attached_at = NOW
    assert "Attaching" in client.get(address(booking)).h1  # one of two is not all


def test_the_live_part_speaks_only_of_changes(client: Client, running: Booking) -> None:
    page = client.get(address(running))
    poll = page.all("//*[@id='status']/@hx-get")[0]
    same = client.get(poll, htmx=True)
    assert same.all("//*[@id='status']")
    assert not same.all("//*[@id='spoken'] | //*[@id='actions']")
    allocations(running)[0].trouble = Trouble.ERROR
    changed = client.get(poll, htmx=True)
    assert changed.texts("//*[@id='state-word']") == ["Not attached: GPU 0 could not be attached"]
    assert changed.texts("//*[@id='spoken']")[0].startswith("1 GPU on lab03 · Not attached")
    assert changed.all("//*[@id='actions']")
    assert changed.all("//*[@id='status']/@hx-get") != [poll]


@pytest.mark.parametrize("trouble", [trouble for trouble in Trouble if trouble])
def test_every_trouble_has_words(client: Client, running: Booking, user: User, host: Host, trouble: Trouble) -> None:
    if trouble != Trouble.NO_MACHINE:
        make_instance(user, host, "liwei-one")
    allocation = allocations(running)[0]
    allocation.trouble, allocation.trouble_text, allocation.trouble_at = trouble, "<b>no</b>", NOW - HOUR / 2
    page = client.get(address(running))
    assert page.h1.startswith("1 GPU on lab03 · Not attached: ")
    assert page.all("//*[@id='status']//div[contains(@class, 'refused')]/p")
    assert "Since Wed 4 Nov 19:30" in page.text
    assert ("<b>no</b>" in page.text) == (trouble == Trouble.ERROR)
    costs_nothing = "If you wait longer than a minute for GPU 0, that time costs nothing."
    assert costs_nothing not in page.text, "it was attached once"
    allocation.attached_at = None
    allocation.ready_at = allocation.starts_at if trouble in fees.OWN_TROUBLE else None
    assert (costs_nothing in client.get(address(running)).text) == (trouble not in fees.OWN_TROUBLE)


def test_what_came_late_costs_nothing_until_then(client: Client, running: Booking) -> None:
    late = "GPU 0 came late, through no fault of yours: the time before Wed 4 Nov 19:30 costs nothing."
    page = client.get(address(running))
    assert late not in page.text
    allocation = allocations(running)[0]
    allocation.attached_at = NOW - HOUR / 2
    assert late in client.get(address(running)).text
    allocation.ready_at = NOW - HOUR
    assert "costs nothing" not in client.get(address(running)).text
    allocation.attached_at = allocation.ready_at = None
    assert "If you wait longer than a minute for GPU 0, that time costs nothing." in client.get(address(running)).text
    running.ends_at = allocation.ends_at = NOW
    page = client.get(address(running))
    assert "GPU 0 could not be given, through no fault of yours, and cost nothing." in page.text


def test_what_to_do_is_one_click(client: Client, running: Booking, user: User, host: Host) -> None:
    allocation = allocations(running)[0]
    allocation.trouble = Trouble.NO_MACHINE
    assert client.get(address(running)).link("Create a machine on lab03") == "/machines/new?host=lab03"
    make_instance(user, host, "liwei-one", status="stopped")
    allocations(running)[0].trouble = Trouble.STOPPED
    page = client.get(address(running))
    assert page.form("Start machine").action == "/machines/liwei-one/start"
    assert client.submit(page.form("Start machine")).status == 303


def test_extend_by_two_hours(client: Client, running: Booking, woken: list[str]) -> None:
    page = client.get(address(running))
    assert "+1 h → 01:00" in page.buttons()
    shown = client.follow(client.submit(page.form("+2 h → 02:00")))
    assert "Extended by 2 h" in " ".join(shown.texts("//*[@role='status']"))
    assert "Ends Thu 5 Nov 02:00" in shown.text
    assert woken == ["lab03"]
    again = client.submit(page.form("+2 h → 02:00"))  # an impatient second click
    assert "Nothing changed" in client.follow(again).text
    assert running.ends_at == NOW + 6 * HOUR


def test_a_button_that_cannot_work_is_its_reason(client: Client, running: Booking, host: Host) -> None:
    other = make_booking(make_user("chen-yu"), gpus_of(host)[:1], NOW + 5.5 * HOUR, NOW + 8 * HOUR)
    page = client.get(address(running))
    assert "+1 h → 01:00" in page.buttons()
    assert not any(name.startswith("+2 h") for name in page.buttons())
    assert "Taken from Thu 5 Nov 01:30 by Chen Yu. Until Thu 5 Nov 01:30 it can go on." in page.text
    assert client.submit(page.form("Extend to 01:30")).status == 303
    late = client.post(f"{address(running)}/extend", {"ends_at": (NOW + 7 * HOUR).isoformat()})
    assert late.status == 409
    assert "is taken from" in late.text
    assert running.ends_at == other.starts_at


def test_no_hours_left_to_extend(client: Client, host: Host) -> None:
    poor = make_user("poor", hours=5.5)
    booking = make_booking(poor, gpus_of(host)[:1], NOW - HOUR, NOW + 4 * HOUR)
    client.login_as(poor)
    page = client.get(address(booking))
    assert "costs 1 GPU-hours more and you have 0.5 left" in page.text
    assert "Extend to 00:30" in page.buttons()
    refused = client.post(f"{address(booking)}/extend", {"ends_at": (NOW + 6 * HOUR).isoformat()})
    assert refused.status == 422
    assert "you have 0.5 left" in refused.text


def test_change_the_end_to_what_is_typed(client: Client, running: Booking) -> None:
    form = client.get(client.get(address(running)).link("Change…")).form("Change")
    assert (form.values["end_date"], form.values["end_time"]) == ("2026-11-05", "00:00")
    shorter = client.follow(client.submit(form.fill(**{"End date": "2026-11-04", "End time": "22"})))
    assert "Shortened: it ends Wed 4 Nov 22:00, 2 GPU-hours given back." in shorter.text
    for typed, words in (("19:00", "must lie after now"), ("99", "Give a time"), ("", "Give a time")):
        wrong = client.submit(form.fill(**{"End time": typed}))
        assert wrong.status == 422
        assert words in wrong.text
        assert wrong.form("Change").values["end_time"] == typed
    assert running.ends_at == NOW + 2 * HOUR


def test_end_early_and_get_hours_back(client: Client, running: Booking, woken: list[str]) -> None:
    sure = client.submit(client.get(address(running)).form("End now (gives back 4 GPU-hours)"))
    assert sure.h1 == "End 1 GPU on lab03 now?"
    assert "4 GPU-hours are given back." in sure.text
    assert running.ends_at == NOW + 4 * HOUR  # asking changes nothing
    shown = client.follow(client.submit(sure.form("End booking")))
    assert shown.h1 == "1 GPU on lab03 · Ended early"
    assert "Ended early: 4 GPU-hours given back." in shown.text
    assert "+4" in shown.texts("//tr[contains(., 'Given back')]")[0]
    assert woken == ["lab03"]
    twice = client.post(f"{address(running)}/end")
    assert twice.status == 422
    assert "past bookings cannot change" in twice.text


def test_cancel_before_it_starts(client: Client, user: User, host: Host) -> None:
    booking = make_booking(user, gpus_of(host), NOW + HOUR, NOW + 2 * HOUR)
    sure = client.submit(client.get(address(booking)).form("Cancel booking…"))
    shown = client.follow(client.submit(sure.form("Cancel booking")))
    assert shown.h1 == "2 GPUs on lab03 · Cancelled"
    assert "Cancelled: 2 GPU-hours given back." in shown.text
    assert shown.all("//*[@id='status']/@hx-trigger") == []
    assert client.post(f"{address(booking)}/cancel").status == 422


def test_running_cannot_be_cancelled_nor_upcoming_ended(
    client: Client, running: Booking, user: User, host: Host
) -> None:
    assert "cannot be cancelled any more" in client.post(f"{address(running)}/cancel").text
    later = make_booking(user, gpus_of(host)[1:], NOW + HOUR, NOW + 2 * HOUR)
    assert "has not started yet" in client.post(f"{address(later)}/end").text


@pytest.mark.parametrize("path", ["", "/change", "/end", "/cancel"])
def test_somebody_elses_booking_is_not_there(client: Client, running: Booking, path: str) -> None:
    client.login_as(make_user("chen-yu"))
    assert client.get(f"{address(running)}{path}").status == 404
    for action in ("extend", "change", "end", "cancel"):
        ends = {"ends_at": (NOW + 9 * HOUR).isoformat(), "end_date": "2026-11-05", "end_time": "08:00"}
        assert client.post(f"{address(running)}/{action}", ends).status == 404
    assert running.ends_at == NOW + 4 * HOUR
    assert client.get("/bookings/0").status == 404
    assert client.get(f"/bookings/{10**30}").status == 404


def test_an_admin_sees_whose_it_is(client: Client, running: Booking) -> None:
    client.login_as(make_admin())
    page = client.get(address(running))
    assert "Liwei" in page.texts("//dt[.='Booked by']/following-sibling::dd[1]")


def test_looking_changes_nothing(client: Client, running: Booking) -> None:
    def state() -> tuple[object, ...]:
        entries = db.session.scalar(db.select(db.func.count()).select_from(LedgerEntry))
        return running.ends_at, running.cancelled_at, running.released_at, entries

    before = state()
    for path in ("", "/change", "/end", "/cancel", "/extend"):
        client.get(f"{address(running)}{path}")
    assert state() == before


def test_forged_moments_are_refused(client: Client, running: Booking) -> None:
    for value in ("", "soon", "2026-11-05T02:00", "99999-01-01T00:00Z"):
        page = client.post(f"{address(running)}/extend", {"ends_at": value})
        assert page.status == 422
        assert "no longer valid" in page.text
