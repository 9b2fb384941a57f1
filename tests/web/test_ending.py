"""What pages say of a booking's end: the banner on all of them, and more on the booking's own."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.extensions import db
from app.models import Allocation, Booking, Host, User
from app.services import policy
from app.services.plan import Trouble
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.page import Client, Page

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)  # Wednesday 20:00 in the lab
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(NOW)
    monkeypatch.setattr("app.queue.wake", lambda _host: None)


@pytest.fixture
def host() -> Host:
    policy.current().grace_seconds = 20
    return make_host("lab03", seen_at=NOW)


@pytest.fixture
def ending(user: User, host: Host) -> Booking:
    """Two GPUs that go in twelve minutes."""
    booking = make_booking(user, gpus_of(host)[:2], NOW - HOUR, NOW + 12 * MINUTE)
    for allocation in allocations(booking):
        allocation.attached_at = NOW - HOUR
    db.session.flush()
    return booking


def allocations(booking: Booking) -> list[Allocation]:
    query = db.select(Allocation).where(Allocation.booking_id == booking.id).order_by(Allocation.id)
    return list(db.session.scalars(query))


def banner(page: Page) -> str:
    return " ".join(page.texts("//header//*[contains(@class, 'banner')]"))


def show(client: Client, booking: Booking) -> Page:
    return client.get(f"/bookings/{booking.id}")


@pytest.mark.parametrize("path", ["/", "/calendar", "/bookings/new", "/bookings", "/machines", "/quota", "/nix"])
def test_the_banner_is_on_every_page(client: Client, ending: Booking, path: str) -> None:
    page = client.get(path)
    assert banner(page) == "Your 2 GPUs on lab03 go at 20:12 (in 12 min). Extend"
    assert client.get(page.link("Extend").partition("#")[0]).h1.startswith("2 GPUs on lab03 · ")
    assert client.get(page.link("Extend")).all("//*[@id='actions']")


def test_its_own_page_says_it_anyway(client: Client, ending: Booking) -> None:
    assert banner(show(client, ending)) == ""
    assert "Ends Wed 4 Nov 20:12 (in 12 min)" in show(client, ending).text


def test_one_banner_for_several_and_for_simulated_hosts(
    client: Client, user: User, host: Host, ending: Booking
) -> None:
    make_booking(user, gpus_of(host)[2:3], NOW - HOUR, NOW + 14 * MINUTE)
    host.endpoint = "sim:lab03"
    db.session.flush()
    page = client.get("/quota")
    assert len(page.all("//*[contains(@class, 'banner')]")) == 1
    assert banner(page).endswith("Extend 1 more booking ends soon. Simulated hosts.")


def test_nothing_ends_soon(
    client: Client, user: User, host: Host, count_queries: Callable[[], Any], freeze: Callable[[datetime], None]
) -> None:
    make_booking(user, gpus_of(host)[:1], NOW - HOUR, NOW + 16 * MINUTE)
    make_booking(user, gpus_of(host)[1:2], NOW + MINUTE, NOW + 10 * MINUTE)
    make_booking(user, gpus_of(host)[2:3], NOW - HOUR, NOW + MINUTE, cancelled_at=NOW, settled_at=NOW)
    make_booking(make_user("bob"), gpus_of(host)[3:], NOW - HOUR, NOW + 5 * MINUTE)
    client.get("/nix")  # what was prepared is committed
    with count_queries() as queries:
        assert banner(client.get("/nix")) == ""
    quiet = len(queries)
    freeze(NOW + 2 * MINUTE)
    with count_queries() as queries:
        assert "in 8 min" in banner(client.get("/nix"))
    assert len(queries) == quiet + 1


def test_signed_out_there_is_none(client: Client, ending: Booking) -> None:
    client.post("/logout")
    assert banner(client.get("/login")) == ""


def test_what_goes_on_is_not_announced(client: Client, user: User, host: Host, ending: Booking) -> None:
    make_booking(user, gpus_of(host)[:2], ending.ends_at, ending.ends_at + HOUR)
    assert banner(client.get("/quota")) == ""
    assert "your next booking of them begins at once" in show(client, ending).text


def test_the_grace_after_the_end(client: Client, ending: Booking) -> None:
    words = "At the end GPU 0, GPU 1 are taken off at once. What still uses them gets 20 s to end, then it is killed."
    assert words in show(client, ending).text
    policy.current().grace_seconds = 0
    db.session.flush()
    assert "what still uses them is killed" in show(client, ending).text


def test_the_grace_before_the_end(client: Client, host: Host, ending: Booking) -> None:
    make_booking(make_user("bob"), gpus_of(host)[:1], ending.ends_at, ending.ends_at + HOUR)
    words = (
        "Somebody has booked right after you. What uses GPU 0, GPU 1 is asked to end at 20:11:40, 20 s before the end"
    )
    assert words in show(client, ending).text


def test_programs_that_hold_both_are_named_and_both_ends_aligned(
    client: Client, user: User, host: Host, ending: Booking
) -> None:
    lasting = make_booking(user, gpus_of(host)[2:3], NOW - HOUR, NOW + 2 * HOUR)
    before = show(client, ending)
    poll = before.all("//*[@id='status']/@hx-get")[0]
    allocations(ending)[0].holders = [
        {"pid": 7, "name": "<b>python</b>", "also": [lasting.id]}, {"pid": 8, "name": "jupyter", "also": []},
    ]  # fmt: skip
    changed = client.get(poll, htmx=True)  # the buttons come along, since something has changed
    sentence = f"<b>python</b> also uses a GPU of your booking {lasting.id}, which goes on until 22:00."
    assert sentence in changed.texts("//*[@id='actions']")[0]
    assert sentence in changed.texts("//*[@id='spoken']")[0]
    assert not client.get(changed.all("//*[@id='status']/@hx-get")[0], htmx=True).all("//*[@id='actions']")
    page = show(client, ending)
    assert "jupyter" not in page.text
    assert client.submit(page.form("Let both end at 22:00")).status == 303
    assert ending.ends_at == lasting.ends_at
    assert "also uses" not in show(client, ending).text


def test_ends_that_cannot_be_aligned_have_no_button(client: Client, user: User, host: Host, ending: Booking) -> None:
    lasting = make_booking(user, gpus_of(host)[2:3], NOW - HOUR, NOW + 2 * HOUR)
    make_booking(make_user("bob"), gpus_of(host)[:1], NOW + HOUR, NOW + 3 * HOUR)
    allocations(ending)[0].holders = [{"pid": 7, "name": "python", "also": [lasting.id]}]
    page = show(client, ending)
    assert "This one cannot go on so long." in page.text
    assert not any("both" in name for name in page.buttons())


def test_another_gpu_was_given(client: Client, user: User, host: Host, ending: Booking) -> None:
    allocations(ending)[0].instead_of_id = gpus_of(host)[3].id
    assert "You were given GPU 0 in place of GPU 3, which could not be freed." in show(client, ending).text


def test_after_the_end_until_all_are_back(
    client: Client, user: User, ending: Booking, freeze: Callable[[datetime], None]
) -> None:
    freeze(ending.ends_at + timedelta(seconds=5))
    allocations(ending)[1].attached_at = None  # one never came
    page = show(client, ending)
    assert page.texts("//li[@aria-current='step']") == ["Taking the GPUs back"]
    assert "What still uses them has until 20:12:20 to end." in page.text
    freeze(ending.ends_at + timedelta(seconds=30))
    assert "has until" not in show(client, ending).text
    allocations(ending)[0].detached_at = ending.ends_at + timedelta(seconds=30)
    page = show(client, ending)
    assert page.texts("//li[@aria-current='step']")[0].startswith("GPUs taken back")
    assert page.all("//*[@id='status']/@hx-trigger") == []


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (
            Trouble.EVICTING,
            "GPU 0 is being taken back from its last user: what still uses it is ended, which takes 25 s",
        ),
        (Trouble.QUARANTINED, "the admins know. You keep your place"),
    ],
)
def test_why_it_is_not_there_yet(client: Client, ending: Booking, trouble: Trouble, words: str) -> None:
    allocations(ending)[0].trouble = trouble
    assert words in show(client, ending).text
