"""Reports on pages and in files: who may see which, that all of them say the same, and what a wrong day gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_babel import force_locale

from app.cli.report import _rows as printed
from app.extensions import db, lab_zone
from app.models import Allocation, AuditEvent, Booking, Event, Host, Notice, User, Wait, WaitState
from app.services import audit, notice_words, notices, samples, summaries, teams
from app.services.reports import incidents, labels, table
from app.services.reports.report import Group
from app.services.reports.spans import Span
from app.services.reports.table import Table
from app.services.samples import Part
from app.web.reports import words
from tests.factories import gpus_of, make_admin, make_booking, make_gpu, make_host, make_instance, make_user
from tests.page import Client

HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 3, 4, tzinfo=UTC)  # noon in the lab
START = datetime(2026, 10, 31, 10, tzinfo=UTC)  # 18:00; October's last six hours, and November's first


@pytest.fixture
def admin(client: Client, freeze: Any) -> User:
    """A lab in which Wang wasted most in October and Li booked most; its admin is signed in."""
    freeze(NOW)
    boss = make_admin("boss")
    host = make_host("lab02", created_at=datetime(2026, 10, 1, tzinfo=UTC))
    li, wang = make_user("li", hours=500), make_user("wang", hours=500)
    team = teams.create(boss, "vision", "wang", 100)
    used(li, host.id, gpus_of(host)[0], START, 20, busy=18)
    used(wang, host.id, gpus_of(host)[1], START - 8 * HOUR, 13, busy=1)
    booking = used(wang, host.id, gpus_of(host)[2], NOW - 3 * HOUR, 2, busy=1)
    booking.account_id = team.id
    values = {"actor": audit.SYSTEM, "action": "booking.no_show", "target": f"booking:{booking.id}"}
    db.session.add(AuditEvent(created_at=NOW - HOUR, **values))
    db.session.commit()
    client.login_as(boss)
    return boss


def used(user: User, host_id: int, gpu: Any, start: datetime, hours: int, *, busy: int) -> Booking:
    """A booking whose GPU was attached all the time, and busy in its first hours; its last hour has no data."""
    booking = make_booking(user, [gpu], start, start + hours * HOUR)
    [one] = db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id))
    one.attached_at, one.detached_at = start, start + hours * HOUR
    parts = [
        Part(gpu.pci_address, start + number * timedelta(minutes=1), booking.id, "m", 60_000,
             60_000 * (number < 60 * busy), 18_000, 2048)
        for number in range(60 * (hours - 1))
    ]  # fmt: skip
    samples.deliver(host_id, f"of booking {booking.id}", parts)
    return booking


def test_who_wasted_most_last_month_is_two_clicks_away(client: Client, admin: User) -> None:
    home = client.get("/")
    page = client.get(client.get(home.link("Reports")).link("Last month"))
    assert page.texts("//table[caption='People']/tbody/tr[1]/th") == ["Wang"]
    assert "Wasted = not attached + idle" in page.text
    # Li's first six hours and all of Wang's: booked 19, attached 19, busy 6 + 1; Wang's last hour has no data.
    said = "booked 19 GPU-hours (0 % of capacity), attached 19 (100 % of booked), busy 7 (36 %)."
    assert f"October 2026: {said}" in page.text
    wang = page.texts("//table[caption='People']/tbody/tr[1]/td")
    assert wang == ["13", "13", "1", "0", "0", "11", "1", "11", "84 %", "3.6", "2.0"]
    assert page.all("//svg[@role='img']/@aria-labelledby") == ["bars-title", "heat-title"]
    this = client.get(page.link("This month"))
    assert "Bookings ended since nobody came: Wang (1)" in this.text
    assert ("as much as has passed" in this.text, "as much as has passed" in page.text) == (True, False)


def test_all_groups_add_up_to_the_same_and_files_have_the_same_rows(
    client: Client, admin: User, tmp_path: Path
) -> None:
    for group in Group:
        if group == Group.BOOKING:  # of one's own report only
            continue
        asked = f"period=custom&from=2026-10-01&to=2026-11-30&group={group}"
        page = client.get(f"/reports?{asked}")
        caption = page.texts("//table[.//th[.='Wasted']]/caption")[0]
        shown = page.texts(f"//table[caption='{caption}']/tbody/tr/td[@data-label='Wasted']")
        rows = client.get(f"/reports/report.json?{asked}").response.get_json()["rows"]
        assert [f"{row['wasted_hours']:g}" for row in rows] == shown
        sums = {name: round(sum(row[name] for row in rows), 2) for name in rows[0] if name.endswith("_hours")}
        assert [*sums.values()] == [35, 35, 20, 0, 0, 12, 3, 12], (group, sums)
        lines = client.get(f"/reports/report.csv?{asked}").lines()
        assert [line | {"wasted_percent": 0} for line in lines] == [
            {name: str(value) for name, value in row.items()} | {"wasted_percent": 0} for row in rows
        ]
        file = tmp_path / f"{group}.parquet"
        file.write_bytes(client.raw.get(f"/reports/report.parquet?{asked}").data)
        found = duckdb.sql(f"SELECT * FROM '{file}'")
        assert [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()] == rows


def test_no_two_rows_are_called_the_same(client: Client, admin: User, tmp_path: Path) -> None:
    """Two people of one name, a GPU that was put into another slot, and two bookings from one moment on."""
    li = db.session.scalars(sa.select(User).where(User.username == "li")).one()
    host = db.session.scalars(sa.select(Host)).one()
    moved = make_gpu(host, minor=1, pci_address="0000:09:00.0")
    other = make_user("wang2", full_name="Wang", hours=500)
    used(other, host.id, moved, START, 3, busy=1)
    used(li, host.id, gpus_of(host)[-1], START, 1, busy=0)
    for user in (other, db.session.scalars(sa.select(User).where(User.username == "wang")).one()):
        waited(user, START, 1, WaitState.EXPIRED)
    db.session.commit()
    asked = "period=last-month"
    page = client.get(f"/reports?{asked}")
    assert page.texts("//table[caption='People']/tbody/tr/th") == ["Wang (wang)", "Wang (wang2)", "Li"]
    assert page.texts("//table[starts-with(caption, 'Who waited')]/tbody/tr/th") == ["Wang (wang)", "Wang (wang2)"]
    gpus = client.get(f"/reports?{asked}&group=gpu").texts("//table[caption='GPUs']/tbody/tr/th")
    assert sorted(gpus) == [
        "lab02 GPU 0", "lab02 GPU 1 (0000:02:00.0)", "lab02 GPU 1 (0000:09:00.0)", "lab02 GPU 3"
    ]  # fmt: skip

    for table_ in ("usage", "waits"):
        rows = client.get(f"/reports/report.json?table={table_}&{asked}").response.get_json()["rows"]
        found = {row["user"]: row["name"] for row in rows}
        assert (found["wang"], found["wang2"]) == ("Wang (wang)", "Wang (wang2)")
        lines = client.get(f"/reports/report.csv?table={table_}&{asked}").lines()
        assert [line["user"] for line in lines] == [row["user"] for row in rows]
        file = tmp_path / f"{table_}.parquet"
        file.write_bytes(client.raw.get(f"/reports/report.parquet?table={table_}&{asked}").data)
        assert duckdb.sql(f"SELECT \"user\" FROM '{file}'").fetchall() == [(row["user"],) for row in rows]
    assert "user" not in client.get(f"/reports/report.json?group=gpu&{asked}").response.get_json()["rows"][0]

    client.login_as(li)
    names = client.get(f"/reports?of=me&{asked}").texts("//table[caption='Bookings']/tbody/tr/th")
    bookings = db.session.scalars(sa.select(Booking.id).where(Booking.user_id == li.id))
    assert sorted(names) == sorted(f"lab02, Sat 31 Oct 18:00 (booking {number})" for number in bookings)


def test_rows_stand_in_the_order_that_is_asked_for(client: Client, admin: User) -> None:
    names = "//table[caption='People']/tbody/tr/th"
    page = client.get("/reports?period=last-month")
    assert (page.texts(names), page.texts("//th[@aria-sort='descending']")) == (["Wang", "Li"], ["Wasted"])
    page = client.get(page.link("Busy"))
    assert (page.texts(names), page.texts("//th[@aria-sort='descending']")) == (["Li", "Wang"], ["Busy"])
    page = client.get(page.link("Busy"))
    assert (page.texts(names), page.texts("//th[@aria-sort='ascending']")) == (["Wang", "Li"], ["Busy"])
    file = page.all("//table[@id='rows']/following-sibling::p[@class='files']/a[.='CSV']/@href")[0]
    lines = client.get(file).lines()
    assert [line["name"] for line in lines] == ["Wang", "Li"], "a file has the page's order"
    for order in ("wasted-share", "-wasted-share"):
        assert client.get(f"/reports?period=last-month&sort={order}").texts(names)[-1] == "Li", "too little to say"
    assert client.get("/reports?period=last-month&sort=nonsense").texts(names) == ["Wang", "Li"]


def test_people_see_their_own_and_owners_their_teams(client: Client, admin: User) -> None:
    [team] = teams.every()
    address = f"/reports?of=team-{team.id}&period=this-month"
    wang = db.session.scalars(sa.select(User).where(User.username == "wang")).one()
    client.login_as(wang)
    page = client.get(client.get("/").link("My usage"))
    assert page.h1 == "My usage"
    assert "booked 2 GPU-hours, attached 2" in page.text
    assert "capacity" not in page.text
    assert client.get(page.link("Team vision")).texts("//table[caption='People']/tbody/tr/th") == ["Wang"]
    assert client.get("/reports?of=all").status == 404
    teams.add(admin, team, "li")
    client.login_as(db.session.scalars(sa.select(User).where(User.username == "li")).one())
    assert client.get(address).status == client.get(address.replace("?", "/report.csv?")).status == 404
    assert client.get("/reports?of=me&period=last-month").text.count("lab02") == 1
    assert "Wang" not in client.get("/reports?of=me&period=last-month").text


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ("from=2026-11-03&to=2026-11-01", "must not lie before"),
        ("from=soon&to=2026-11-01", "Give a date"),
        ("from=2001-01-01&to=2026-11-01", "1100 days at most"),
    ],
)
def test_days_that_cannot_be_are_said_and_kept(client: Client, admin: User, days: str, said: str) -> None:
    page = client.get(f"/reports?period=custom&group=gpu&{days}")
    assert page.status == 422
    assert said in page.texts("//*[@role='alert']")[-1]
    form = page.form("Show these days")
    assert [form.values[name] for name in ("from", "to", "group")] == [
        *(d.partition("=")[2] for d in days.split("&")),
        "gpu",
    ]


def test_an_empty_month_says_since_when_there_are_data(client: Client, admin: User) -> None:
    page = client.get("/reports?period=custom&from=2026-01-01&to=2026-01-31")
    assert "nothing was booked. What GPUs do is measured since 31 Oct 2026." in page.text


def test_of_days_to_come_nothing_is_said(client: Client, admin: User, freeze: Any) -> None:
    page = client.get("/reports?period=custom&from=2026-11-04&to=2026-11-30")
    assert "4 Nov 2026 to 30 Nov 2026: all of it is still to come." in page.text
    assert not [word for word in ("nothing was booked", "Nobody waited", "nobody came") if word in page.text]
    freeze(NOW + 99 * HOUR)
    page = client.login_as(admin).get("/reports?period=custom&from=2026-11-05&to=2026-11-30")
    assert "nothing was booked. What is still to come of it does not count." in page.text


def test_what_ran_without_a_booking_is_said_where_nothing_was_booked_too(client: Client, admin: User) -> None:
    host, first = db.session.scalars(sa.select(Host)).one(), datetime(2026, 10, 9, tzinfo=UTC)
    minutes = [first + number * timedelta(minutes=1) for number in range(90)]
    parts = [Part(gpus_of(host)[0].pci_address, minute, 0, "by-hand", 60_000, 60_000) for minute in minutes]
    samples.deliver(host.id, "strays", parts)
    said = "1.5 GPU-hours were busy without a booking."
    for days, booked in (("from=2026-10-09&to=2026-10-10", False), ("from=2026-10-09&to=2026-10-31", True)):
        page = client.get(f"/reports?period=custom&{days}")
        assert (said in page.text, "nothing was booked" in page.text) == (True, not booked)
    client.login_as(db.session.scalars(sa.select(User).where(User.username == "li")).one())
    assert said not in client.get("/reports?period=custom&from=2026-10-09&to=2026-10-10").text, "of everybody's GPUs"


def test_a_booking_explains_its_numbers_down_to_the_minute(client: Client, admin: User) -> None:
    li = db.session.scalars(sa.select(User).where(User.username == "li")).one()
    [booking] = db.session.scalars(sa.select(Booking).where(Booking.user_id == li.id))
    page = client.login_as(li).get(f"/bookings/{booking.id}")
    assert "Booked 20 GPU-hours, attached 20, busy 18 (90 %), idle 1. No data for 1. " in page.text
    assert "kWh. At most" in page.text
    page = client.get(page.link("By hour and minute"))
    rows = page.all("//table[caption='Hours']/tbody/tr")
    assert len(rows) == 20
    cells = page.texts("//table[caption='Hours']/tbody/tr/td")
    assert [cells[7 * row : 7 * row + 5] for row in (0, 18, 19)] == [
        ["60:00", "60:00", "60:00", "0:00", "0:00"],
        ["60:00", "60:00", "0:00", "60:00", "0:00"],
        ["60:00", "60:00", "0:00", "0:00", "60:00"],
    ]
    hour = client.get(str(page.all("//table[caption='Hours']/tbody/tr[3]/th/a/@href")[0]))
    assert len(hour.all("//div[@id='minutes']//tbody/tr")) == 60
    energy = [float(cell) for cell in hour.texts("//div[@id='minutes']//td[starts-with(@data-label, 'Energy')]")]
    assert round(sum(energy), 2) == float(page.texts("//table[caption='Hours']/tbody/tr[3]/td")[5]) > 0
    assert client.get(f"/bookings/{booking.id}/usage?hour=never").status == 200
    assert "Not given" not in page.texts("//table[caption='Hours']/thead//th")
    db.session.execute(sa.update(Allocation).values(attached_at=booking.starts_at + 1.5 * HOUR))
    db.session.commit()
    page = client.get(f"/bookings/{booking.id}/usage")
    assert page.texts("//table[caption='Hours']/thead//th")[1:4] == ["Booked", "Not given", "Attached"]
    late = page.texts("//table[caption='Hours']/tbody/tr/td[@data-label='Not given']")
    assert late[:3] == ["60:00", "30:00", "0:00"]


def waited(user: User, joined: datetime, hours: float, state: WaitState, **values: Any) -> None:
    """A place on the waiting list: booked, or closed, after so many hours."""
    over, times = joined + hours * HOUR, {"starts_at": joined, "ends_at": joined + 99 * HOUR, "created_at": joined}
    granted = over if state == WaitState.GRANTED else None
    wait = Wait(user_id=user.id, state=state, seconds=3600, by_itself=True, granted_at=granted, **times, **values)
    wait.closed_at = None if state == WaitState.WAITING else over
    db.session.add(wait)


@pytest.fixture
def line(admin: User) -> None:
    """Li waited for an hour, and for two in vain; Wang waits for four hours, for the team."""
    li, wang = (db.session.scalars(sa.select(User).where(User.username == one)).one() for one in ("li", "wang"))
    waited(li, START, 1, WaitState.GRANTED, model="NVIDIA RTX A6000")
    waited(li, START, 2, WaitState.EXPIRED)
    waited(wang, NOW - 4 * HOUR, 0, WaitState.WAITING, account="team:vision")
    db.session.commit()


def test_who_waited_is_shown_to_whom_it_concerns_and_files_have_it(client: Client, line: None, tmp_path: Path) -> None:
    [team] = teams.every()
    asked = "period=custom&from=2026-10-01&to=2026-11-30"
    page = client.get(f"/reports?{asked}")
    table = "//table[caption='Who waited, by person']/tbody/tr"
    assert page.texts(f"{table}/th") == ["Wang", "Li"]
    cells = page.texts(f"{table}/td")
    assert cells == [*"1000001", "4 h", "4 h", *"2100100", "1 h 30 min", "2 h"]
    assert "3 places on the waiting list: half of them waited 2 h or less, the longest 4 h." in page.text
    this = client.get("/reports?period=this-month&group=model")
    assert this.texts("//table[caption='Who waited, by GPU model']/tbody/tr/th") == ["Any model"]
    before = (
        "In the period before: 2 places on the waiting list: half of them waited 1 h 30 min or less, the longest 2 h."
    )
    assert f"Nobody waited. {before}" in client.get("/reports?period=custom&from=2026-11-01&to=2026-11-02").text
    assert "Nobody waited." in client.get("/reports?period=custom&from=2026-01-01&to=2026-01-31").text

    rows = client.get(f"/reports/report.json?table=waits&{asked}").response.get_json()["rows"]
    assert [(row["name"], row["places"], row["median_wait_hours"]) for row in rows] == [("Wang", 1, 4), ("Li", 2, 1.5)]
    lines = client.get(page.all("//a[contains(@href, 'table=waits')]/@href")[0]).lines()
    assert lines == [{name: str(value) for name, value in row.items()} for row in rows]
    file = tmp_path / "waits.parquet"
    file.write_bytes(client.raw.get(f"/reports/report.parquet?table=waits&{asked}").data)
    found = duckdb.sql(f"SELECT * FROM '{file}'")
    assert [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()] == rows

    client.login_as(db.session.scalars(sa.select(User).where(User.username == "wang")).one())
    theirs = (f"/reports?of=team-{team.id}&{asked}", f"/reports?of=me&{asked}")
    assert [client.get(where).texts(f"{table}/th") for where in theirs] == [["Wang"], ["Wang"]]
    client.login_as(db.session.scalars(sa.select(User).where(User.username == "li")).one())
    page = client.get(f"/reports?of=me&{asked}")
    assert (page.texts(f"{table}/th"), page.texts(f"{table}/td")[-1]) == (["Li"], "2 h")


NEW = ("no-shows", "evictions", "heat")


@pytest.fixture
def trouble(admin: User) -> Booking:
    """Wang's team booking had a program ended and its machine stopped; others befell nobody's booking."""
    [team] = teams.every()
    of_team = db.session.scalars(sa.select(Booking).where(Booking.account_id == team.id)).one()
    make_instance(admin, make_host("lab07"), "stray", created_at=NOW - 99 * HOUR)
    for minutes, action, target, details in (
        (3, "gpu.process_ended", "gpu:", {"booking": of_team.id, "instance": "m", "process": 7, "name": "python"}),
        (3, "instance.force_stopped", "instance:m", {"booking": of_team.id}),
        (2, "gpu.intruder", "gpu:", {"booking": of_team.id, "instance": "stray", "process": 8, "name": "miner"}),
        (1, "gpu.quarantined", "gpu:", {"reason": "held"}),
    ):
        [gpu] = db.session.scalars(sa.select(Allocation.gpu_id).where(Allocation.booking_id == of_team.id))
        values = {"actor": "agent:lab02", "action": action, "target": f"{target}{gpu if target == 'gpu:' else ''}"}
        facts = {"host": "lab02", "gpu": gpu, **details}
        db.session.add(AuditEvent(created_at=NOW - minutes * HOUR / 60, details=facts, **values))
    db.session.commit()
    return of_team


def test_what_befell_bookings_is_listed_to_whom_it_concerns_and_files_have_it(
    client: Client, admin: User, trouble: Booking, tmp_path: Path
) -> None:
    asked = "period=custom&from=2026-10-01&to=2026-11-30"
    steps = "//table[starts-with(caption, 'Evictions')]/tbody/tr/td"
    page = client.get(f"/reports?{asked}")
    assert page.texts(f"{steps}[2]") == [
        "GPU put into quarantine", "Program without a booking ended", "Program ended after the end",
        "Machine stopped by force",
    ]  # fmt: skip
    assert page.texts(f"{steps}[5]") == ["–", "Boss", "Wang", "Wang"]
    assert page.texts("//table[starts-with(caption, 'Bookings to which')]/tbody/tr/td[7]") == [
        "No machine took the GPUs"
    ]
    rows = {one: client.get(f"/reports/report.json?table={one}&{asked}").response.get_json()["rows"] for one in NEW}
    assert [(row["user"], row["booking"], row["gpu"]) for row in rows["evictions"]] == [
        ("", None, "GPU 2"), ("boss", None, "GPU 2"), ("wang", trouble.id, "GPU 2"), ("wang", trouble.id, "GPU 2")
    ]  # fmt: skip
    assert [(row["user"], row["team"], row["why"]) for row in rows["no-shows"]] == [("wang", "vision", "no-machine")]
    cells = {(row["weekday"], row["hour"]): row["busy_percent"] for row in rows["heat"]}
    shown = page.texts("//table[caption[contains(., 'hour of the week')]]/tbody/tr/td")
    assert shown == ["–" if (of := cells[day, hour]) is None else f"{of}" for hour in range(24) for day in range(1, 8)]
    assert len({of for of in cells.values() if of is not None}) > 1, "hours differ"
    for one in NEW:
        assert page.all(f"//a[contains(@href, 'table={one}') and contains(@href, '.parquet')]/@href")
        lines = client.get(f"/reports/report.csv?table={one}&{asked}").lines()
        assert lines == [{key: "" if of is None else f"{of}" for key, of in row.items()} for row in rows[one]]
        file = tmp_path / f"{one}.parquet"
        file.write_bytes(client.raw.get(f"/reports/report.parquet?table={one}&{asked}").data)
        found = duckdb.sql(f"SELECT * FROM '{file}'")
        assert [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()] == rows[one]
        span = Span.of(datetime(2026, 10, 1, tzinfo=lab_zone()), NOW, lab_zone(), NOW)
        assert printed(Table(one), span, Group.PERSON) == rows[one], "as berth report prints it"

    people = {user.username: user for user in db.session.scalars(sa.select(User))}
    [team] = teams.every()
    for who, of, steps_ in (("wang", f"team-{team.id}", 2), ("wang", "me", 2), ("li", "me", 0)):
        address = f"table=evictions&of={of}&{asked}"
        found_ = client.login_as(people[who]).get(f"/reports/report.json?{address}").response.get_json()["rows"]
        assert [row["step"] for row in found_] == ["gpu.process_ended", "instance.force_stopped"][:steps_], who
    assert client.get(f"/reports/report.json?table=evictions&of=all&{asked}").status == 404


def test_the_period_before_is_compared_on_the_page_and_in_files(client: Client, admin: User, tmp_path: Path) -> None:
    """Li's last fourteen hours, Wang's two and what is left of October beside the two days before them."""
    asked = "period=custom&from=2026-11-01&to=2026-11-02"
    page = client.get(f"/reports?{asked}")
    body = "//table[caption='Compared with the period before']/tbody/tr"
    assert page.texts(f"{body}/th") == ["Booked", "Attached", "Busy", "Wasted"]
    rows = client.get(f"/reports/report.json?table=compared&{asked}").response.get_json()["rows"]
    names = "what", "hours", "before_hours", "changed_percent"
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("booked", 14, 19, -26), ("attached", 14, 19, -26), ("busy", 12, 7, 71), ("wasted", 1, 11, -91),
    ]  # fmt: skip
    shown = [[f"{row['hours']:g}", f"{row['before_hours']:g}", f"{abs(row['changed_percent'])} %"] for row in rows]
    cells = [text.lstrip("+\N{MINUS SIGN}") for text in page.texts(f"{body}/td")]
    assert cells == [text for row in shown for text in row]
    moments = ("from", "to", "before_from", "before_to")
    assert [rows[0][name] for name in moments] == [
        "2026-10-31T16:00:00Z", "2026-11-02T16:00:00Z", "2026-10-29T16:00:00Z", "2026-10-31T16:00:00Z"
    ]  # fmt: skip
    [address] = page.all("//a[contains(@href, 'table=compared') and contains(@href, '.csv')]/@href")
    lines = client.get(address).lines()
    assert lines == [{key: f"{of}" for key, of in row.items()} for row in rows]
    file = tmp_path / "compared.parquet"
    file.write_bytes(client.raw.get(f"/reports/report.parquet?table=compared&{asked}").data)
    found = duckdb.sql(f"SELECT * FROM '{file}'")
    assert [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()] == rows
    days = (datetime(2026, 11, day, tzinfo=lab_zone()) for day in (1, 3))
    assert printed(Table.COMPARED, Span.of(*days, lab_zone(), NOW), Group.PERSON) == rows, "as berth report prints it"

    # Of this month, and of noon on a third day, as much of what was before; of others' bookings nothing.
    rows = client.get("/reports/report.json?table=compared").response.get_json()["rows"]
    assert [rows[0][name] for name in moments] == [
        "2026-10-31T16:00:00Z", "2026-11-03T04:00:00Z", "2026-09-30T16:00:00Z", "2026-10-03T04:00:00Z"
    ]  # fmt: skip
    assert {(row["before_hours"], row["changed_percent"]) for row in rows} == {(0, None)}
    half = Span.of(NOW - HOUR, NOW + HOUR, lab_zone(), NOW)
    [row, *_] = printed(Table.COMPARED, half, Group.PERSON)
    assert [row[name] for name in moments] == [
        "2026-11-03T03:00:00Z", "2026-11-03T04:00:00Z", "2026-11-03T01:00:00Z", "2026-11-03T02:00:00Z"
    ]  # fmt: skip
    client.login_as(db.session.scalars(sa.select(User).where(User.username == "li")).one())
    rows = client.get(f"/reports/report.json?table=compared&of=me&{asked}").response.get_json()["rows"]
    assert [row["before_hours"] for row in rows] == [6, 6, 6, 0]


@pytest.mark.parametrize(
    ("now", "period", "said", "until"),
    [
        ("2026-11-03T04:20", "this-month", "as much as has passed of this one.", "2026-10-03T04:20"),
        ("2026-11-03T04:20", "quarter", "as many whole hours as have passed of this one.", "2026-08-03T04:00"),
        ("2026-03-31T04:00", "this-month", "30.5 days of this period beside 28 of the one before.", "2026-02-28T16:00"),
        ("2026-04-01T04:00", "last-month", "31 days of this period beside 28 of the one before.", "2026-02-28T16:00"),
        ("2026-09-01T04:00", "last-month", "", "2026-07-31T16:00"),
    ],
)
def test_how_much_stands_beside_how_much_is_said(
    client: Client, admin: User, freeze: Any, now: str, period: str, said: str, until: str
) -> None:
    """A month that is longer than the one before, and one of which minutes are gone."""
    li, host = (db.session.scalars(sa.select(one)).first() for one in (User, Host))
    for month in range(1, 12):
        start = datetime(2026, month, 2, tzinfo=UTC)
        make_booking(li, gpus_of(host)[3:], start, start + HOUR)
    freeze(datetime.fromisoformat(f"{now}Z"))
    page = client.login_as(admin).get(f"/reports?period={period}")
    notes = page.texts("//table[caption='Compared with the period before']/following-sibling::p[1]")
    assert [note.endswith(said) if said else note.startswith("These rows") for note in notes] == [True], notes
    rows = client.get(f"/reports/report.json?table=compared&period={period}").response.get_json()["rows"]
    assert rows[0]["before_to"] == f"{until}:00Z"


@pytest.mark.usefixtures("trouble")
def test_whom_it_befell_is_told_apart_from_others_of_the_same_name(client: Client, admin: User) -> None:
    admin.full_name = "Wang"
    db.session.commit()
    page = client.login_as(admin).get("/reports?period=custom&from=2026-10-01&to=2026-11-30")
    people = page.texts("//table[starts-with(caption, 'Evictions')]/tbody/tr/td[5]")
    assert people == ["–", "Wang (boss)", "Wang (wang)", "Wang (wang)"]
    assert page.texts("//table[starts-with(caption, 'Bookings to which')]/tbody/tr/td[2]") == ["Wang (wang) vision"]
    assert "Bookings ended since nobody came: Wang (wang) (1)" in page.text
    rows = page.texts("//table[caption='People']/tbody/tr/th")
    assert set(rows) == {"Wang (wang)", "Li"}, "also where the other has no row"
    nameless = make_user("li2", full_name="")
    admin.full_name = "li2"
    db.session.flush()
    assert labels.people([nameless.id, admin.id]) == {nameless.id: "li2 (li2)", admin.id: "li2 (boss)"}


def test_the_page_has_the_last_ones_and_a_file_too_long_is_refused(
    client: Client, admin: User, trouble: Booking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "SHOWN", 1)
    page = client.get("/reports")
    assert page.texts("//table[starts-with(caption, 'Evictions')]/tbody/tr/td[2]") == ["GPU put into quarantine"]
    assert "The last 1 of 4; the files have all of them." in page.text
    monkeypatch.setattr(table, "MOST", 3)
    assert client.get("/reports/report.csv?table=evictions").status == 422
    monkeypatch.setattr(table, "MOST", 4)
    assert client.get("/reports/report.csv?table=evictions").status == 200


def test_owners_read_what_befell_their_teams_bookings(client: Client, admin: User) -> None:
    li, wang = (db.session.scalars(sa.select(User).where(User.username == name)).one() for name in ("li", "wang"))
    [team] = teams.every()
    of_team = db.session.scalars(sa.select(Booking.id).where(Booking.account_id == team.id)).one()
    for action, details in (
        ("gpu.process_ended", {"booking": of_team}),
        ("gpu.intruder", {}),
        ("gpu.used_unbooked", {}),
    ):
        values = {"actor": "agent:lab02", "action": action, "target": "gpu:1", "details": details}
        db.session.add(AuditEvent(created_at=NOW - HOUR, **values))
    db.session.commit()
    ended = "Programs ended, since they still held a GPU after the end: "
    page = client.get("/reports")
    for said in ("Wang (1)", f"{ended}1", "Programs ended that used a GPU without a booking: 1", "to look at: 1"):
        assert said in page.text
    client.login_as(wang)
    page = client.get(f"/reports?of=team-{team.id}")
    assert "Wang (1)" in page.text
    assert f"{ended}1" in page.text
    assert "without a booking" not in page.text, "of all GPUs"
    page = client.login_as(li).get("/reports?of=me")
    assert f"{ended}0" in page.text
    assert "No booking was ended since nobody came." in page.text


def test_each_month_is_told_once_to_everybody_in_it_and_to_admins(
    client: Client, admin: User, line: None, freeze: Any
) -> None:
    freeze(datetime(2026, 10, 31, 23, 59, tzinfo=UTC))
    assert summaries.of_last_month(mail=True) == 0, "before eight: the last minutes may be on their way"
    freeze(NOW)
    assert summaries.of_last_month(mail=True) == 3
    assert summaries.of_last_month(mail=True) == 0
    texts = {notice.user_id: notice for notice in db.session.scalars(sa.select(Notice))}
    assert {notice.event for notice in texts.values()} == {Event.SUMMARY}
    mine = texts[admin.id].details
    assert (mine["reserved"], mine["busy"], mine["most"]) == (19 * 3600, 7 * 3600, [["Wang", 11 * 3600]])

    message = notice_words.message(admin, [texts[admin.id]], "http://berth", lab_zone())
    assert message.title == "October 2026, everybody: 19 GPU-hours booked, 7 busy"
    assert "Wasted 11: 0 not attached and 11 idle." in message.text
    assert "On the waiting list: 2 places, 1 booked; half waited 1.5 h or less, the longest 2 h." in message.text
    assert "of=all&period=custom&from=2026-10-01&to=2026-10-31" in message.text
    freeze(NOW + timedelta(days=20))
    assert summaries.of_last_month(mail=True) == 0, "no news any more"


@pytest.mark.parametrize("wanted", [True, False])
def test_owners_of_a_team_are_told_of_its_month(client: Client, admin: User, wanted: bool) -> None:
    [team] = teams.every()
    li, wang = (db.session.scalars(sa.select(User).where(User.username == name)).one() for name in ("li", "wang"))
    teams.add(admin, team, "li")
    [gpu, *_] = gpus_of(make_host("lab09"))
    booking = used(li, gpu.host_id, gpu, START - 200 * HOUR, 4, busy=1)
    booking.account_id = team.id
    db.session.flush()
    if not wanted:
        notices.choose(wang, {})
        assert summaries.of_last_month(mail=True) == 2, "Li and the admin"
        return
    assert summaries.of_last_month(mail=True) == 4, "two people, their admin, and the team's owner, not its member"
    assert summaries.of_last_month(mail=True) == 0
    told = [one for one in db.session.scalars(sa.select(Notice)) if "team" in one.details]
    assert [one.user_id for one in told] == [wang.id]
    message = notice_words.message(wang, told, "http://berth", lab_zone())
    assert message.title == "October 2026, team vision: 4 GPU-hours booked, 1 busy"
    assert "Who wasted most: Li 2" in message.text
    assert f"of=team-{team.id}&period=custom&from=2026-10-01&to=2026-10-31" in message.text


@pytest.mark.parametrize("language", ["en", "zh_Hans_CN", "de"])
def test_hours_of_a_table_read_as_all_others(app: Flask, language: str) -> None:
    with app.test_request_context(), force_locale(language):
        written = words.hours_of_many()
        for hours in (0, 0.04, 0.05, 0.06, 1, 9.96, 12.3, 99.94, 99.95, 100, 999.6, 1234, 1234567.8, -0.3, -1234.5):
            assert written(3600 * hours) == words.hours(3600 * hours)
