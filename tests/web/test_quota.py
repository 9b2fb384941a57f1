"""The quota page: the sentence and the ledger say the same."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from app import clock
from app.extensions import db
from app.models import EntryKind, User
from app.services import bookings, changes, quota
from app.services.bookings import Ask
from tests.factories import gpus_of, make_admin, make_host, make_user
from tests.page import Client, Page

ZONE = ZoneInfo("Asia/Shanghai")
SENTENCE = re.compile(r"([\d.]+) of ([\d.]+) GPU-hours used.*?\(([\d.]+) left, of which ([\d.]+) reserved\)")


def _changes(page: Page) -> list[Decimal]:
    texts = page.texts("//table//td[3]")
    return [Decimal(text.replace("−", "-").replace("+", "")) for text in texts]


def _monthly(user: User, hours: float) -> User:
    assert user.account is not None
    quota.set_monthly(user.account, hours, ZONE, actor="ada")
    return user


def test_the_sentence_the_rows_and_the_sum_agree(client: Client) -> None:
    user = _monthly(make_user(hours=0), 100)
    gpus = [gpu.id for gpu in gpus_of(make_host("lab01"))]
    now = clock.now()
    ended = bookings.create(user, Ask(gpu_ids=tuple(gpus[:2]), starts_at=None, ends_at=now + timedelta(hours=6)), 3600)
    changes.end_now(user, ended.id)
    quota.settle(ended, 9 * 3600, actor="agent:lab01")
    later = now + timedelta(days=1)
    bookings.create(user, Ask(gpu_ids=(gpus[3],), starts_at=later, ends_at=later + timedelta(hours=2)), 3600)
    page = client.login_as(user).get("/quota")
    found = SENTENCE.search(page.text)
    assert found, page.text
    used, total, left, reserved = map(Decimal, found.groups())
    assert (used, total, left) == (9, 100, 91)
    assert reserved in {2, 3}
    assert abs(sum(_changes(page)) - (left - reserved)) <= Decimal("0.01") * len(_changes(page))
    assert f"The sum of all lines below is what you can still book: {left - reserved} h" in page.text
    sums = {"Used": Decimal(0)}
    for what, amount in zip(page.texts("//table//td[2]"), _changes(page), strict=True):
        word = what.partition(":")[0]
        sums[word] = sums.get(word, Decimal(0)) + amount
    assert -sums["Used"] == used, "the rows called Used add up to the headline"
    assert sums["Reserved"] + sums["Given back"] + sums.get("Reservation ended", 0) + reserved <= Decimal("0.03")
    assert page.all("//svg/@aria-labelledby")[0] == page.all("//p[contains(., 'left, of')]/@id")[0]


def test_the_reset_is_told_in_the_viewers_zone_with_the_labs_beside_it(client: Client, freeze) -> None:
    freeze(datetime.now(UTC).replace(day=10, hour=4, minute=0))
    user = _monthly(make_user(hours=0), 100)
    page = client.login_as(user).get("/quota")
    month = clock.now().astimezone(ZONE).strftime("%B")
    assert f"used in {month} (100 left" in page.text
    assert re.search(r"Resets 1 \w+ 00:00\.", page.text)
    user.timezone = "Europe/London"
    assert re.search(r"Resets (28|29|30|31) \w+ 1[67]:00 \(lab: \w+ 00:00\)", client.get("/quota").text)


def test_without_monthly_hours_nothing_resets(client: Client) -> None:
    page = client.login_as(make_user(hours=12.5)).get("/quota")
    assert "0 of 12.5 GPU-hours used (12.5 left, of which 0 reserved). Resets: never." in page.text
    empty = client.login_as(make_user(hours=0)).get("/quota")
    assert "No charges yet." in empty.text


def test_who_can_give_more_hours_is_named(client: Client) -> None:
    make_admin("ada", full_name="Ada", email="ada@lab.example")
    page = client.login_as(make_user()).get("/quota")
    assert page.link("Ada") == "mailto:ada@lab.example"


def test_old_lines_are_on_further_pages_and_all_are_in_the_file(client: Client) -> None:
    user = make_user(hours=0)
    assert user.account is not None
    for number in range(60):
        quota.post(user.account.id, EntryKind.GRANT, 3600, key=f"t{number}", actor="ada", note=f"=cmd({number})")
    page = client.login_as(user).get("/quota")
    older = client.get(page.link("Earlier"))
    assert [len(_changes(page)), len(_changes(older))] == [50, 10]
    assert older.texts("//table//td[4]")[0] == "10"
    assert client.get(older.link("Newest")).body.count("<tr>") == page.body.count("<tr>")
    file = client.get("/quota.csv")
    assert file.headers["Content-Disposition"] == "attachment; filename=ledger.csv"
    rows = file.lines()
    assert len(rows) == 60
    assert sum(Decimal(row["change_hours"]) for row in rows) == 60
    assert rows[0]["note"] == "'=cmd(59)", "no formula for a spreadsheet"


def test_the_ledger_is_ones_own(client: Client) -> None:
    other = make_user()
    assert other.account is not None
    quota.post(other.account.id, EntryKind.GRANT, 3600, key="secret", actor="ada", note="a secret reason")
    db.session.flush()
    client.login_as(make_user())
    assert "a secret reason" not in client.get("/quota").text + client.get("/quota.csv").body
