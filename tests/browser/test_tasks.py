"""First-use tasks by visible text and roles alone: desk and phone, with and without JavaScript, by keyboard."""

from __future__ import annotations

import re
from datetime import date

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import KINDS
from tests.browser.demo import Demo
from tests.browser.reader import Reader

ALL = pytest.mark.parametrize("kind", [*KINDS, "desktop-keyboard", "phone-keyboard"])


def within(reader: Reader, most: int, *, menu: int = 0) -> None:
    """So many actions, and on a phone one more for the menu where the task needs it."""
    assert reader.keyboard or reader.actions <= most + menu * reader.phone, f"{reader.actions} actions"


def local(demo: Demo, day: int) -> date:
    return demo.at(day, 12).astimezone(demo.berth_zone).date()


@ALL
def test_1_get_a_gpu_now(reader: Reader, demo: Demo) -> None:
    reader.sign_in(demo.person(machine_on="sim1"))
    reader.click("button", "Get a GPU now")
    reader.click("button", "Book")
    reader.sees_heading(re.compile(r"1 GPU on .+ · (Attaching|In use)"))
    reader.sees(re.compile(r"Ends "))
    within(reader, 2)


@ALL
def test_2_two_gpus_tomorrow_night(reader: Reader, demo: Demo) -> None:
    reader.sign_in(demo.person(machine_on="sim1"))
    reader.nav("Book")
    reader.fill("How many GPUs", "2")
    reader.fill("Start date", local(demo, 1).isoformat())
    reader.fill("Start time", "20:00")
    reader.fill("End time", "08:00")
    reader.click("button", "Check")
    reader.sees(re.compile(r"\(next day\), 12 h"))
    reader.sees(re.compile("24 GPU-hours"))
    reader.click("button", "Book")
    reader.sees_heading(re.compile(r"2 GPUs on .+ · Booked"))
    within(reader, 7, menu=1)


@ALL
def test_3_extend_by_two_hours(reader: Reader, demo: Demo) -> None:
    user = demo.person(machine_on="sim2")
    demo.attached(demo.book(user, hours=3))
    reader.sign_in(user)
    reader.click("link", re.compile("1 GPU on sim2"))
    button = reader.page.get_by_role("button", name=re.compile(r"^\+2 h → "))
    end = button.inner_text().rpartition("→ ")[2].strip()
    reader.press_on(button)
    expect(reader.page.get_by_role("status").filter(has_text="Extended by 2 h")).to_be_visible()
    reader.sees(re.compile(rf"Ends .*{re.escape(end)}"))
    within(reader, 2)


@ALL
def test_4_end_early_and_get_hours_back(reader: Reader, demo: Demo) -> None:
    user = demo.person(machine_on="sim2")
    demo.attached(demo.book(user, hours=3))
    reader.sign_in(user)
    reader.click("link", re.compile("1 GPU on sim2"))
    reader.click("button", re.compile("End now"))
    reader.click("button", "End booking")
    reader.sees_heading(re.compile("Ended early"))
    reader.sees(re.compile("given back"))
    within(reader, 3)
    ledger = reader.page.get_by_role("table", name="Ledger")
    expect(ledger.get_by_role("row").filter(has_text=re.compile(r"\+[23]")).first).to_be_visible()


WATCH_WORDS = """() => {
  window.copied = new Promise((done) => new MutationObserver(() => {
    if ([...document.querySelectorAll("button")].some((one) => one.textContent.includes("Copied"))) { done(true); }
  }).observe(document.body, { childList: true, characterData: true, subtree: true }));
}"""


@ALL
def test_5_copy_the_ssh_command(reader: Reader, demo: Demo) -> None:
    reader.sign_in(demo.person(machine_on="sim1"))
    reader.nav("My machine")
    field = reader.page.get_by_label("SSH command", exact=True)
    expect(field).to_have_value(re.compile("^ssh "))  # without JavaScript it is there to be read
    if reader.js:
        reader.page.evaluate(WATCH_WORDS)
        reader.click("button", "Copy SSH command")
        assert reader.page.evaluate("window.copied"), "it says so, for a moment"
    within(reader, 1 + reader.js, menu=1)


@ALL
def test_6_download_the_rdp_file(reader: Reader, demo: Demo) -> None:
    user = demo.person(machine_on="sim1")
    demo.has_desktop(user)
    reader.sign_in(user)
    reader.nav("My machine")
    with reader.page.expect_download() as coming:
        reader.click("link", "Download RDP file (.rdp)")
    assert coming.value.suggested_filename.endswith(".rdp")
    within(reader, 2, menu=1)


@ALL
def test_7_why_was_it_refused(reader: Reader, demo: Demo) -> None:
    user = demo.person(hours=1)
    demo.refuse(user)
    reader.sign_in(user)
    reader.nav("My bookings")
    reader.click("link", re.compile("Refused"))
    reader.sees_heading(re.compile("Not booked|Refused"))
    within(reader, 2, menu=1)
    reader.sees(re.compile(r"\b1\b.*hours?|\bhours?\b.*\b1\b"))
    reader.press_on(reader.page.get_by_role("main").get_by_role("button").first)
    reader.sees_heading(re.compile("Book|1 GPU on"))


@ALL
def test_8_hours_left_and_what_used_them(reader: Reader, demo: Demo) -> None:
    user = demo.person(machine_on="sim1")
    demo.book(user, hours=4, start=demo.at(1, 20))
    reader.sign_in(user)
    reader.nav("Quota")
    reader.sees_heading("Quota")
    within(reader, 1, menu=1)
    reader.sees(re.compile(r"\d+ left"))
    reader.sees(re.compile("Resets"))
    rows = reader.page.get_by_role("table", name="Ledger").get_by_role("row").all()[1:]
    texts = [row.get_by_role("cell").all_inner_texts() for row in rows]
    changes = [float(re.sub(r"[^\d.+-]", "", cells[2].replace("\N{MINUS SIGN}", "-"))) for cells in texts]
    free = float(re.search(r"([\d.]+) h\.", reader.page.get_by_text(re.compile("sum of all lines")).inner_text())[1])
    assert len(changes) >= 2
    assert sum(changes) == pytest.approx(free) == pytest.approx(96)


@ALL
def test_10_who_is_on_it_and_is_it_busy(reader: Reader, demo: Demo) -> None:
    reader.sign_in(demo.person())
    booking = demo.book(demo.person("Luo Xi", machine_on="sim2"), hours=3, host="sim2")
    demo.attached(booking)
    number = demo.measured(booking, utilisation=83)
    reader.nav("Live GPUs")
    reader.click("link", "sim2")
    within(reader, 2, menu=1)
    row = reader.page.get_by_role("table", name="GPUs of sim2").get_by_role("row", name=f"GPU {number}")
    expect(row).to_contain_text(re.compile(r"In use\s+Luo Xi, until \w+ .*\d\d:\d\d\s+\d+ %"))
    reader.sees(re.compile(r"As of \d\d:\d\d:\d\d"))
    reader.check()


@ALL
def test_11_approve_with_a_hundred_hours(reader: Reader, demo: Demo) -> None:
    before = demo.how_many_wait()
    name = f"Zhang San {kind_number(reader)}"
    demo.waiting(name)
    reader.sign_in(demo.person("Boss", admin=True))
    reader.nav(f"People ({before + 1} waiting)")
    reader.fill(f"Hours per month for {name}", "100")
    reader.click("button", f"Approve {name}")
    reader.sees(f"Approved {name} with 100 h")
    within(reader, 3, menu=1)
    expect(reader.page.get_by_role("button", name="Undo")).to_be_visible()
    if reader.phone:
        reader.press_on(reader.page.get_by_text("Menu", exact=True))
    badge = f"People ({before} waiting)" if before else "People"
    navigation = reader.page.get_by_role("navigation", name="Main")
    expect(navigation.get_by_role("link", name=badge, exact=True)).to_be_visible()


@pytest.mark.parametrize("kind", ["desktop"])
def test_keys_lead_to_the_form_to_today_and_to_their_list(reader: Reader, demo: Demo) -> None:
    reader.sign_in(demo.person(machine_on="sim1"))

    def press(key: str) -> None:
        reader.page.wait_for_load_state()  # who listens for keys is there only then
        reader.page.keyboard.press(key)

    press("n")
    reader.sees_heading("Book")
    reader.page.get_by_label("Purpose").fill("tn?")  # in a field they are letters
    expect(reader.page.get_by_label("Purpose")).to_have_value("tn?")
    for link in ("Calendar", "Next week"):
        with reader.page.expect_event("load"):
            reader.page.get_by_role("link", name=link, exact=True).first.click()
    press("t")
    expect(reader.page.get_by_text("Line: now")).to_be_visible()
    press("?")
    reader.sees_heading("Keys")
    reader.click("button", "Switch the single letters off")
    press("n")
    expect(reader.page.get_by_role("button", name="Switch the single letters on")).to_be_visible()
    reader.sees_heading("Keys")


def kind_number(reader: Reader) -> int:
    """A number of this kind of reader, so that names are new."""
    return 1 + reader.phone + 2 * reader.js + 4 * reader.keyboard
