"""Pages that move by themselves, and what the suite's own checks notice."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import BrowserContext, expect

from app.drivers.base import GiveUp
from app.drivers.fake import FakeLxd
from tests.browser.demo import Demo
from tests.browser.reader import Reader
from tests.runtime.running import wait_for

BOTH = pytest.mark.parametrize("kind", ["desktop", "phone"])


def create(reader: Reader) -> None:
    """The first machine, all as it is offered."""
    reader.nav("My machine")
    reader.click("button", "Create machine")


def swapped(reader: Reader, times: int) -> None:
    """A part of the page was so often put in place of another."""
    wait_for(lambda: reader.page.evaluate("window.swaps || 0") >= times, 60, f"{times} swaps")


@BOTH
def test_a_machine_comes_up_before_ones_eyes(reader: Reader, demo: Demo) -> None:
    name = demo.person()
    reader.sign_in(name)
    with demo.standstill("sim1"):
        create(reader)
        expect(reader.page.get_by_role("progressbar", name=f"Progress of {name}")).to_be_visible()
        reader.sees(re.compile(r"\d+ %"))
    expect(reader.page.get_by_text("Running", exact=True)).to_be_visible()
    reader.sees(f"{name} is ready.")
    swapped(reader, 1)
    assert reader.page.locator("#machines[hx-get]").count() == 0, "it asks no more"
    asking = reader.page.locator("[hx-get]")
    expect(asking, "once all that is there answers, only for GPUs that it may get").to_have_count(1)
    expect(asking).to_have_id("own-gpus")
    reader.click("link", "Stop…")
    reader.click("button", "Stop")
    expect(reader.page.get_by_text("Stopped", exact=True)).to_be_visible()
    reader.click("button", "Start")
    expect(reader.page.get_by_text("Running", exact=True)).to_be_visible()


@pytest.mark.parametrize("kind", ["desktop"])
def test_a_press_that_lasts_is_not_lost(reader: Reader, demo: Demo) -> None:
    """The page of a build asks for itself every second; what a finger is on stays until that lets go."""
    name = demo.person(admin=True)
    reader.sign_in(name)
    page = reader.page
    with demo.standstill("sim1"):
        page.goto("/templates/new/recipe?host=sim1")
        reader.fill("Name", "held")
        reader.click("button", "Build template")
        reader.sees("Being built")
        page.get_by_role("button", name="Cancel the build").hover()
        page.mouse.down()
        for _ in range(2):
            page.wait_for_event("response", lambda answer: answer.url == page.url)
        page.mouse.up()
        reader.sees(f"{name} cancelled the build.")
    reader.click("link", "Retire…")
    reader.click("button", "Retire it")
    reader.sees("Retired")


@pytest.mark.parametrize("kind", ["desktop-nojs", "phone-nojs"])
def test_without_javascript_there_is_a_link(reader: Reader, demo: Demo) -> None:
    reader.sign_in(demo.person())
    with demo.standstill("sim1"):
        create(reader)
        reader.sees("Being created")
    refresh = reader.page.get_by_role("link", name="Refresh")

    def runs() -> bool:
        if reader.page.get_by_text("Running", exact=True).is_visible():
            return True
        if refresh.is_visible():
            refresh.click()
        return False

    wait_for(runs, 60, "a machine that runs")
    reader.sees("Running")


@BOTH
def test_a_failed_creation_is_tried_again(reader: Reader, demo: Demo) -> None:
    name = demo.person()
    fake = FakeLxd(demo.berth.data / "sim" / "sim1.json")
    fake.fail_next("create", GiveUp("Copy the image", "no space left on device", "Make room in the storage pool."))
    reader.sign_in(name)
    create(reader)
    reader.sees("The machine could not be created.")
    reader.sees("Copy the image: no space left on device. Make room in the storage pool.")
    reader.click("button", "Try again")
    expect(reader.page.get_by_text("Running", exact=True)).to_be_visible()


@BOTH
def test_a_button_that_has_the_focus_keeps_it_while_the_page_moves(reader: Reader, demo: Demo) -> None:
    """Booked without a machine: "not attached", asked for again every two seconds, until there is a machine."""
    name = demo.person()
    booking = demo.book(name, hours=3, host="sim1")
    reader.sign_in(name)
    reader.page.goto(f"/bookings/{booking}")
    reader.sees_heading(re.compile("Not attached"))
    longer = reader.page.get_by_role("button", name=re.compile(r"^\+2 h"))
    longer.focus()
    swapped(reader, 2)
    expect(longer).to_be_focused()
    demo.machine(name, "sim1")
    reader.sees_heading(re.compile("1 GPU on sim1 · In use"))
    expect(longer).to_be_focused()  # a new button, in the part that came with the change
    expect(reader.page.get_by_role("table", name="GPUs now")).to_be_visible(timeout=5_000)  # so did these


@pytest.mark.parametrize("kind", ["desktop"])
def test_after_a_restart_a_machines_gpus_are_there_again(reader: Reader, demo: Demo) -> None:
    name = demo.person(machine_on="sim1")
    demo.attached(demo.book(name, hours=3, host="sim1"))
    reader.sign_in(name)
    reader.nav("My machine")
    gpus = reader.page.get_by_role("table", name="GPUs now")
    expect(gpus).to_be_visible()
    reader.click("link", "Restart…")
    with demo.standstill("sim1"):
        reader.click("button", "Restart")
        reader.sees("Restarting")
        expect(gpus).to_have_count(0)
    reader.sees(f"{name} runs again.")
    expect(gpus).to_be_visible()
    reader.check()


@BOTH
def test_what_has_the_focus_and_is_swapped_hands_it_on(reader: Reader, demo: Demo) -> None:
    """The link "Refresh" is in the part that moves."""
    name = demo.person()
    booking = demo.book(name, hours=3, host="sim1")
    reader.sign_in(name)
    reader.page.goto(f"/bookings/{booking}")
    reader.page.get_by_role("link", name="Refresh").focus()
    swapped(reader, 2)
    expect(reader.page.get_by_role("link", name="Refresh")).to_be_focused()
    reader.check()


@pytest.mark.parametrize("kind", ["desktop"])
def test_signed_out_elsewhere_the_moving_page_leads_to_the_sign_in(
    reader: Reader, demo: Demo, window: Callable[..., BrowserContext]
) -> None:
    name = demo.person()
    booking = demo.book(name, hours=3, host="sim1")  # without a machine: its page asks every two seconds
    reader.sign_in(name)
    reader.page.goto(f"/bookings/{booking}")
    same = window(demo.url)
    same.add_cookies(reader.page.context.cookies())  # type: ignore[arg-type]
    other = Reader(same.new_page())
    other.page.goto("/")
    other.click("button", "Sign out")
    expect(reader.page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()


@pytest.mark.parametrize("kind", ["phone"])
def test_the_suite_would_notice(reader: Reader, demo: Demo) -> None:
    """A check that cannot fail is none."""
    reader.sign_in(demo.person())
    reader.check()
    reader.page.evaluate("document.querySelector('h1').setAttribute('style', 'color: red')")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        reader.check()
    reader.problems.clear()
    reader.page.evaluate("document.querySelector('h1').textContent = 'x'.repeat(200); 0")
    reader.page.evaluate("document.querySelector('h1').className = 'tag'")  # does not wrap
    with pytest.raises(AssertionError, match="sideways"):
        reader.check()
    reader.page.reload()
    reader.page.evaluate("window.lostFocus = true")
    with pytest.raises(AssertionError, match="lost the focus"):
        reader.check()
    reader.page.reload()


@BOTH
def test_live_gpus_renew_themselves_and_stop_for_a_pause(reader: Reader, demo: Demo) -> None:
    """The browser's clock is put forward; the readings are so far ahead that none of the agent's takes their place at
    once, and less than a minute, which would be a wrong clock's."""
    name, ahead = demo.person(machine_on="sim1"), timedelta(seconds=50)
    booking = demo.book(name, hours=3, host="sim1")
    demo.attached(booking)
    reader.page.clock.install()
    reader.sign_in(name)
    number = demo.measured(booking, ahead=ahead, utilisation=41)
    reader.nav("Live GPUs")
    row = reader.page.get_by_role("table", name="GPUs of sim1").get_by_role("row", name=f"GPU {number}")
    expect(row).to_contain_text("41 %")
    demo.measured(booking, ahead=ahead, utilisation=77)
    reader.page.clock.run_for(15_000)
    expect(row).to_contain_text("77 %")
    reader.click("button", "Pause")
    demo.measured(booking, ahead=ahead, utilisation=12)
    reader.page.clock.run_for(60_000)
    on = reader.page.get_by_role("button", name="Go on", exact=True)
    expect(on).to_be_focused()
    expect(row).to_contain_text("77 %")
    on.click()
    reader.page.clock.run_for(15_000)
    expect(row).to_contain_text("12 %")
    expect(reader.page.get_by_role("button", name="Pause", exact=True)).to_be_focused()
    reader.check()
