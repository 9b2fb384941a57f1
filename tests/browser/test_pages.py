"""Every page there is, light and dark, desk and phone: axe-core finds nothing, and nothing scrolls sideways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser import scene
from tests.browser.conftest import KINDS
from tests.browser.demo import Demo
from tests.browser.looks import troubles
from tests.browser.reader import Reader
from tests.browser.scene import Scene

WIRE_BYTES, REQUESTS = 60 * 1024, 6  # of the first view of the calendar


@pytest.fixture(scope="module")
def lab_in_use(berth: Demo) -> Iterator[Scene]:
    yield scene.make(berth)
    scene.unmake(berth)


def test_no_page_is_forgotten(lab_in_use: Scene) -> None:
    assert lab_in_use.missing() == set(), "add them to Scene.samples"


@pytest.mark.parametrize("who", ["nobody", "user", "admin"])
def test_axe_finds_nothing(lab_in_use: Scene, window: Callable[..., BrowserContext], who: str) -> None:
    username = {"nobody": "", "user": lab_in_use.user, "admin": lab_in_use.admin}[who]
    reader = Reader(window(lab_in_use.demo.url).new_page())
    if username:
        reader.sign_in(username)
    samples = [sample for sample in lab_in_use.samples() if sample.who == username]
    assert len(samples) >= 2
    found = troubles(reader, samples)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", [*KINDS, "desktop-keyboard", "phone-keyboard"])
def test_12_who_wasted_most_last_month(lab_in_use: Scene, window: Callable[..., BrowserContext], kind: str) -> None:
    """One of the first-use tasks of test_tasks, in the lab that has something to report."""
    phone, js = kind.startswith("phone"), "nojs" not in kind
    page = window(lab_in_use.demo.url, phone=phone, js=js).new_page()
    reader = Reader(page, phone=phone, js=js, keyboard=kind.endswith("keyboard"))
    reader.sign_in(lab_in_use.admin)
    reader.nav("Reports")
    reader.click("link", "Last month")
    expect(page.get_by_role("link", name="Last month")).to_have_attribute("aria-current", "true")
    people = page.get_by_role("table", name="People")
    files = people.locator("xpath=following-sibling::p[@class='files'][1]")
    rows = page.request.get(str(files.get_by_role("link", name="JSON").get_attribute("href"))).json()["rows"]
    most = max(rows, key=lambda row: row["wasted_hours"])["name"]
    expect(people.get_by_role("rowheader").first).to_have_text(most)
    reader.sees(re.compile("Wasted = not attached \\+ idle"))
    assert reader.actions <= 2 + phone
    reader.check()


def test_a_report_fits_on_paper(lab_in_use: Scene, window: Callable[..., BrowserContext]) -> None:
    """A4 upright: nothing is cut off, and what can only be clicked is not there."""
    reader = Reader(window(lab_in_use.demo.url).new_page())
    reader.sign_in(lab_in_use.admin)
    page, width = reader.page, 690
    page.goto("/reports")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": width, "height": 1000})
    assert page.evaluate("document.scrollingElement.scrollWidth") == width
    for name in ("Chart of booked GPU-hours", "Busy at each hour of the week"):
        chart = page.get_by_role("region", name=name, exact=True)
        assert chart.evaluate("chart => chart.scrollWidth <= chart.clientWidth"), name
    expect(page.get_by_role("table", name="People")).to_be_visible()
    for control in (page.get_by_role("button"), page.get_by_role("navigation"), page.get_by_role("textbox")):
        assert not [one for one in control.all() if one.is_visible()]


@pytest.mark.parametrize("kind", ["desktop", "phone"])
def test_first_view_of_the_calendar_is_light(
    lab_in_use: Scene, window: Callable[..., BrowserContext], kind: str
) -> None:
    context = window(lab_in_use.demo.url, phone=kind == "phone")
    signing_in = Reader(context.new_page()).sign_in(lab_in_use.user)
    cookies = context.cookies()
    signing_in.page.close()
    fresh = window(lab_in_use.demo.url, phone=kind == "phone")  # nothing cached
    fresh.add_cookies(cookies)  # type: ignore[arg-type]
    reader = Reader(fresh.new_page())
    sizes: list[float] = []
    asked: list[str] = []
    wire = fresh.new_cdp_session(reader.page)
    wire.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    wire.send("Network.enable")
    reader.page.goto("/calendar", wait_until="networkidle")
    fetched = [url for url in asked if not url.startswith("data:")]
    print(f"calendar, {kind}: {sum(sizes) / 1024:.1f} KB in {len(fetched)} requests")
    for url in fetched:
        print("   ", url.removeprefix(lab_in_use.demo.url))
    assert sum(sizes) <= WIRE_BYTES
    assert len(fetched) <= REQUESTS
    assert all(url.startswith(lab_in_use.demo.url) for url in fetched)
    assert reader.foreign == []
    reader.check()
