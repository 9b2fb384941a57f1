"""The calendar's page: what it shows, where it leads, and that it stays small."""

import gzip
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, current_app, url_for

from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, User, Wait
from app.services import maintenance
from app.services.windows import Window
from app.web.calendar import blueprint
from tests.bench.filling import pack
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client, Page
from tests.web import timeline_sheet

NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR = timedelta(hours=1)
MONDAY = datetime(2026, 11, 1, 16, tzinfo=UTC)  # in the lab
EVERY = "&".join(f"open=lab{number:02}" for number in range(1, 9))


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def user(client: Client) -> User:
    person = make_user("liwei", hours=1000)
    client.login_as(person)
    return person


@pytest.fixture
def large(user: User) -> list[Gpu]:
    """Eight hosts with eight GPUs each, and a hundred bookings in view."""
    people = [user, *(make_user(name, hours=10_000) for name in ("chen-yu", "luo-xi", "zhang-min"))]
    gpus = [gpu for number in range(8) for gpu in gpus_of(make_host(f"lab{number + 1:02}", gpus=8))]
    for number in range(100):
        start = NOW.replace(minute=0) + timedelta(hours=(number // 64) * 30 - 6 + number % 5)
        make_booking(people[number % 4], [gpus[number % 64]], start, start + timedelta(hours=3 + number % 20))
    return gpus


@pytest.fixture
def full(user: User) -> None:
    """Eight hosts with eight GPUs each, and 1,536 bookings in view: 24 on each GPU."""
    people = [user, *(make_user(f"person-{number}") for number in range(47))]
    for number in range(8):
        make_host(f"lab{number + 1:02}", gpus=8)
    pack(MONDAY, [person.id for person in people])


def test_the_sheet_is_what_its_maker_makes() -> None:
    assert timeline_sheet.parted()[1] == timeline_sheet.sheet()


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("address", "raw", "packed", "elements"),
    [
        ("/calendar?open=lab03", 70_000, 10_000, 1500),
        (f"/calendar?{EVERY}", 180_000, 28_000, 6000),
        (f"/calendar?day=2026-11-04&{EVERY}", 120_000, 15_000, 3000),
        (f"/calendar?month=2026-11-04&{EVERY}", 180_000, 15_000, 6000),
    ],
)
def test_64_gpus_and_a_full_week_stay_small_and_quick_to_ask(
    client: Client, count_queries: Callable[[], Any], address: str, raw: int, packed: int, elements: int
) -> None:
    with count_queries() as queries:
        page = client.get(address)
    assert len([query for query in queries if "SAVEPOINT" not in query.upper()]) <= 6
    sizes = len(page.body.encode()), len(gzip.compress(page.body.encode(), 6)), len(page.all("//*"))
    print(address[:24], *sizes)
    assert sizes <= (raw, packed, elements)
    assert sizes[1] <= packed
    assert sizes[2] <= elements
    assert "style=" not in page.body
    assert len(page.all("//tr[@class='host']")) == 8
    assert {len(row.xpath("./td")) for row in page.all("//tr[@class='host']")} in ({42}, {24}, {30})


@pytest.mark.usefixtures("user")
def test_a_number_leads_to_the_form_filled_in(client: Client) -> None:
    make_host("lab01", gpus=8)
    make_host("lab02", gpus=8)
    page = client.get("/calendar")
    cells = page.all("//tr[@class='host'][1]/td")
    assert [cell.text_content() for cell in cells[:17]] == [""] * 17  # over
    here, later = cells[17].xpath(".//a/@href")[0], cells[18].xpath(".//a/@href")[0]
    assert here == "/bookings/new?host=lab01"  # the cell that is now
    assert later == "/bookings/new?host=lab01&start=20261104T1600Z"
    values = client.get(later).form("Check").values
    assert (values["start_date"], values["start_time"], values["end_time"], values["host"]) == (
        "2026-11-05",
        "00:00",
        "04:00",
        "lab01",
    )


def short(booking: Booking) -> str:
    """Its address as the bars have it."""
    with current_app.test_request_context():
        return url_for("short.booking", booking_id=booking.id)


def test_bars_say_who_where_when_and_what(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab03", gpus=3))
    mine = make_booking(user, gpus[:1], NOW - HOUR, NOW + 11 * HOUR)
    mine.note = "fine-tuning"
    db.session.execute(db.update(Allocation).where(Allocation.booking_id == mine.id).values(attached_at=NOW))
    waits = make_booking(make_user("chen-yu"), gpus[1:2], NOW - HOUR, NOW + HOUR)
    other = make_booking(make_user("luo-xi"), gpus[2:], NOW - 5 * HOUR, NOW - 4 * HOUR)
    waits.note = other.note = "private"
    db.session.flush()
    page = client.get("/calendar")
    assert "private" not in page.body + client.get("/calendar?view=list").body
    bars = {
        a.get("aria-label"): a.get("href") for a in page.all("//ul[@class='lane']/li[not(contains(@class, 'gap'))]/a")
    }
    assert bars == {
        "You, Wed 19:03 to Thu 07:03, in use: fine-tuning": short(mine),
        "Chen Yu, Wed 19:03 to 21:03, not attached yet": short(waits),
        "Luo Xi, Wed 15:03 to 16:03": short(other),
    }
    assert client.get(short(mine)).location == f"/bookings/{mine.id}"
    assert client.get(short(other)).location == f"/calendar?week=2026-11-04&view=list#b{other.id}"
    assert {client.get(f"/b/{odd}").status for odd in ("zzzzzzzzzzzz", "0", "a" * 13, "A1")} == {404}
    assert page.all("//ul[@class='lane']/@aria-label") == ["lab03 GPU 0", "lab03 GPU 1", "lab03 GPU 2"]
    listed = client.get("/calendar?view=list")
    (row,) = listed.texts(f"//tr[@id='b{other.id}']")
    assert "Luo Xi" in row
    assert "lab03" in row
    assert "Ended" in row
    client.login_as(make_admin())
    theirs = client.get("/calendar")
    assert client.get(short(other)).location == f"/bookings/{other.id}"
    assert "Luo Xi, Wed 15:03 to 16:03: private" in theirs.all("//@aria-label")


def test_gaps_lead_to_the_form_for_that_gpu(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab03", gpus=1))
    make_booking(user, gpus, NOW + 2 * HOUR, NOW + 6 * HOUR)
    page = client.get("/calendar")
    first, second = page.all("//li[contains(@class, 'gap')]/a")
    assert first.get("aria-label") == "Book from Wed 20:03"
    assert first.get("href") == f"/bookings/new?gpu={gpus[0].id}"
    values = client.get(first.get("href")).form("Check").values  # two hours: then it is taken
    assert (values["start_time"], values["end_time"]) == ("", "22:00")
    values = client.get(second.get("href")).form("Check").values
    assert (values["start_date"], values["start_time"], [*values["gpu"]]) == ("2026-11-05", "02:03", [*str(gpus[0].id)])


def test_addresses_are_those_that_flask_makes(app: Flask) -> None:
    given = {"day": "now", "open": "lab01,ä&b", "model": "NVIDIA H100 / 80 GB?", "host": "", "mine": 1, "view": None}
    with app.test_request_context():
        page, wanted = url_for("calendar.index"), url_for("calendar.index", **given | {"host": None})
    assert blueprint.address(page, **given) == wanted
    assert (blueprint.address(page, host="", view=None), blueprint.address(page)) == (page, page)


@pytest.mark.usefixtures("large")
def test_hosts_open_and_close_by_links(client: Client) -> None:
    page = client.get("/calendar?open=lab01")
    both = client.get(page.link("lab02"))
    assert both.texts("//a[@aria-expanded='true']") == ["lab01", "lab02"]
    assert both.link("Skip to lab03") == "#host-lab03"
    closed = client.get(both.link("lab01"))
    assert closed.texts("//a[@aria-expanded='true']") == ["lab02"]
    part = client.get(page.all("//a[@id='host-lab02']/@hx-get")[0], htmx=True)
    assert part.all("/*[@id='week'] | //*[@id='week']")
    assert "<!doctype" not in part.body.lower()


def marked(page: Page, host: str = "lab01") -> dict[int, tuple[str, str, str]]:
    """A host's cells that say more than a number, by their place: the class, the name and the text of each."""
    cells = page.all(f"//tr[@class='host'][th//*[@id='host-{host}']]/td")
    named = {number: "".join(cell.xpath("./@aria-label | ./a/@aria-label")) for number, cell in enumerate(cells)}
    return {
        number: (cells[number].get("class"), name, cells[number].text_content())
        for number, name in named.items()
        if name or cells[number].get("class")
    }


def test_a_closed_hosts_cells_say_what_is_mine_and_where_maintenance_is(client: Client, user: User) -> None:
    gpus = gpus_of(host := make_host("lab01", gpus=8))
    gpus_of(make_host("lab02", gpus=8))
    make_booking(user, gpus[:1], NOW - 28 * HOUR, NOW - 27 * HOUR)  # over
    make_booking(user, gpus[:2], NOW + 4 * HOUR, NOW + 5 * HOUR)
    work = Window(NOW + 5 * HOUR, NOW + 9 * HOUR)
    maintenance.schedule(make_admin(), host, gpus[2:], work, "new fans", maintenance.fingerprint([]))
    make_booking(user, gpus, NOW + 12 * HOUR, NOW + 13 * HOUR)
    times = {"starts_at": NOW + 16 * HOUR, "ends_at": NOW + 17 * HOUR}
    db.session.add(Wait(user_id=user.id, host="lab01", seconds=3600, by_itself=True, **times))
    db.session.flush()
    page = client.get("/calendar")
    assert marked(page) == {
        10: ("mine", "over, yours", ""),
        18: ("mine kept", "0 free, yours, maintenance", "0"),
        19: ("kept", "2 free, maintenance", "2"),
        20: ("mine", "0 free, yours", "0"),
        21: ("awaited", "8 free, you wait", "8"),
    }
    assert marked(page, "lab02") == {}
    (legend,) = page.texts("//ul[@class='legend wide']")
    assert "Yours: outlined" in legend
    assert "Waiting" in legend
    opened = client.get(page.link("lab01"))
    assert marked(opened) == {}  # its rows say it
    client.login_as(make_user("luo-xi"))
    theirs = marked(client.get("/calendar"))
    assert [theirs[number][1] for number in theirs] == ["0 free, maintenance", "2 free, maintenance"]
    client.login_as(user)
    user.locale = "zh_Hans_CN"
    db.session.flush()
    assert marked(client.get("/calendar"))[18] == ("mine kept", "空闲 0，有你的，维护", "0")


def test_a_closed_host_says_which_gpus_nobody_gets(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab01", gpus=8))
    gpus_of(make_host("lab02", gpus=8))
    gpus[0].state, gpus[1].state, gpus[2].state = GpuState.QUARANTINE, GpuState.MAINTENANCE, GpuState.QUARANTINE
    db.session.flush()
    page = client.get("/calendar")
    first, second = page.texts("//tr[@class='host']/th")
    assert first == "lab01 2 quarantined 1 out of service 5 of 5 free now Skip to lab02"
    assert second == "lab02 8 of 8 free now"
    opened = client.get(page.link("lab01")).texts("//tr[@class='host']/th")[0]
    assert opened == "lab01 5 of 5 free now Skip to lab02"  # its rows say it
    assert user.id


def test_only_mine_opens_the_hosts_with_something_of_mine(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab01", gpus=8))
    theirs = gpus_of(make_host("lab02", gpus=8))
    make_booking(make_user("luo-xi"), theirs[:1], NOW + HOUR, NOW + 3 * HOUR)
    for way in ("", "&week=2026-11-02", "&day=2026-11-04", "&month=now"):
        page = client.get(f"/calendar?mine=1{way}")
        assert "No bookings of yours in these days." in page.text, way
        assert "No bookings of yours" not in client.get(f"/calendar?{way[1:]}").text
        assert page.all("//tr[starts-with(@class, 'gpu')]") == []
    make_booking(user, gpus[1:2], NOW + HOUR, NOW + 3 * HOUR)
    for way in ("", "&day=2026-11-04", "&month=now"):
        page = client.get(f"/calendar?mine=1{way}")
        assert "No bookings of yours" not in page.text, way
        assert len(page.all("//tr[starts-with(@class, 'gpu')]")) == 8
        # It cannot be closed: there is nothing to press that would do nothing.
        assert page.all("//*[@id='host-lab01']/@href") == []
        assert page.texts("//a[@aria-expanded='false']") == ["lab02"]
        both = client.get(page.link("lab02"))
        assert len(both.all("//tr[starts-with(@class, 'gpu')]")) == 16
        assert "Luo" not in both.body
    assert "No bookings of yours" in client.get("/calendar?mine=1&week=2026-11-16").text


def test_only_mine_keeps_the_numbers(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab03", gpus=2))
    make_booking(make_user("luo-xi"), gpus[:1], NOW - HOUR, NOW + 3 * HOUR)
    make_booking(user, gpus[1:], NOW + HOUR, NOW + 3 * HOUR)
    form = client.get("/calendar").form("Show")
    page = client.submit(form.fill(**{"Only mine": True}))
    assert [
        name for name in page.all("//ul[@class='lane']/li[not(contains(@class, 'gap'))]/a/@aria-label") if "Luo" in name
    ] == []
    assert "1 of 2 free now" in page.text
    listed = client.get(page.link("Show as list"))
    assert len(listed.all("//tbody/tr")) == 1
    assert listed.all("//input[@id='mine'][@checked]")


def test_empty_and_full_say_what_to_do(client: Client, user: User) -> None:
    make_host("lab02", gpus=0)
    assert "There are no GPUs to book yet. An admin adds them." in client.get("/calendar").text
    gpus = gpus_of(make_host("lab03", gpus=2))
    page = client.get("/calendar")
    assert "No bookings in these days. All 2 GPUs are free." in page.text
    assert "This is free" in client.get(page.link("Get a GPU now")).text
    three = NOW.replace(minute=0) + 3 * HOUR
    make_booking(user, gpus[:1], NOW - HOUR, NOW + 10 * HOUR)
    make_booking(make_user("luo-xi"), gpus[1:], NOW - HOUR, three)
    full = client.get("/calendar")
    assert "All GPUs are booked until Wed 23:00. Earliest GPU: Wed 23:00 on lab03." in full.text
    assert "1 GPU on lab03, Wed 4 Nov 23:00" in client.get(full.link("Book it")).text


def test_a_phone_gets_days_and_hosts(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab03", gpus=2))
    make_booking(user, gpus[:1], NOW - HOUR, NOW + 3 * HOUR)
    page = client.get("/calendar")
    days = page.texts("//ul[@class='days']//a")
    assert days[:3] == ["Mon 2 over", "Tue 3 over", "Wed 4 1 free"]
    assert page.texts("//ul[@class='days']//a[@aria-current='date']") == ["Wed 4 1 free"]
    assert "lab03, Wed 19:03" in " ".join(page.texts("//div[@class='phone']//ul[1]/li"))
    assert "lab03 1 of 2 GPUs free now" in page.texts("//ul[contains(@class, 'host-list')]/li")[0]
    thursday = client.get(page.all("//ul[@class='days']//a[contains(., 'Thu')]/@href")[0])
    assert "2 of 2 GPUs free from 00:00" in thursday.text
    monday = client.get("/calendar?week=2026-11-02")
    assert "This day is over." in monday.text


def test_weeks_and_odd_addresses(client: Client, user: User) -> None:
    make_host("lab03", gpus=2)
    page = client.get("/calendar")
    assert "2–8 Nov 2026 (week 45), Asia/Shanghai" in page.text
    assert "9–15 Nov 2026 (week 46)" in client.get(page.link("Next week")).text
    assert "26 Oct–1 Nov 2026 (week 44)" in client.get(page.link("Previous week")).text
    for odd in (
        "week=nonsense",
        "week=9999-12-31",
        "week=2026-02-30",
        "open=" + "x" * 500,
        "model=Abacus",
        "open=a&open=b",
    ):
        assert client.get(f"/calendar?{odd}").status == 200
    assert "No such GPUs here." in client.get("/calendar?model=Abacus").text
    user.timezone = "America/New_York"
    db.session.flush()
    change = client.get("/calendar?week=2026-11-01")  # Sunday with 25 hours
    assert len(change.all("//tr[@class='host']/td")) == 42


def test_a_gpu_out_of_service_says_so(client: Client, user: User) -> None:
    gpus = gpus_of(make_host("lab03", gpus=2))
    gpus[0].state, gpus[1].state = GpuState.QUARANTINE, GpuState.MAINTENANCE
    db.session.flush()
    page = client.get("/calendar")
    first, second = page.texts("//tr[starts-with(@class, 'gpu closed')]")
    assert "Quarantined" in first
    assert "Maintenance" in second
    assert "0 of 0 free now" in page.text
    assert not page.all("//*[@data-gpu]")
    assert user.id


def test_names_are_text(client: Client, user: User) -> None:
    rude = make_user("rude", full_name='<img src=x onerror=alert(1)>"')
    make_booking(rude, gpus_of(make_host("lab03", gpus=1)), NOW - HOUR, NOW + 20 * HOUR)
    for address in ("/calendar", "/calendar?view=list"):
        page = client.get(address)
        assert not page.all("//main//img")
        assert re.search("&lt;img", page.body)
    assert user.id
