"""From letting the mouse go to the form painted, in Chromium, on the calendar's week with every place filled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa
from playwright.sync_api import Page
from werkzeug.serving import make_server

from app import clock, create_app
from app.config import Settings
from app.extensions import db, transaction
from app.models import User
from tests.bench.filling import PEOPLE, pack
from tests.bench.installation import core, furnish
from tests.bench.report import Figure, Report, percentile
from tests.browser import chromium
from tests.browser.test_calendar import MOST_MS, WATCH_LETTING_GO, drag, lane
from tests.factories import make_user
from tests.page import Client

HOST, TIMES, ROUNDS = "lab07", 20, 3
HOW = (
    "the week of 64 GPUs and {bookings:,} bookings with one host open, {elements:,} elements, in headless Chromium at "
    "1366 x 768; a drag over two GPUs in a free place, {rounds} rounds of {times}"
)
# Where in a GPU's line a place is free that is wide enough to drag in, counted from the week's end: the page's x.
FREE = """(name) => {
  const line = document.querySelector(`[aria-label='${name}']`), box = line.getBoundingClientRect();
  const isFree = (x) => {
    const hit = document.elementFromPoint(x, box.top + box.height / 2);
    return hit === line || hit.closest(".gap");
  };
  for (let x = box.right - 3; x > box.left + 8; x -= 3) if (isFree(x) && isFree(x - 8)) return x;
}"""


def measure(settings: Settings, *, times: int = TIMES, rounds: int = ROUNDS) -> Report:
    """One page, loaded once, and drags on it one after the other. Next week's: nothing of it is over."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    day = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    monday = day + timedelta(days=7 - day.weekday())
    with core(settings):
        furnish()
        with transaction():
            people = [make_user(f"person-{number}", hours=0).id for number in range(PEOPLE)]
            pack(monday, people)
        bookings = db.session.scalar(sa.text("SELECT count(*) FROM bookings")) or 0
    with _page(settings, people[0]) as page:
        page.goto(f"/calendar?week={monday.date()}&open={HOST}")
        elements = page.evaluate("document.querySelectorAll('*').length")
        taken = [[_once(page) for _ in range(times)] for _ in range(rounds)]
    how = HOW.format(bookings=bookings, elements=elements, rounds=rounds, times=times)
    shares = {"best": 0.0, "p50": 0.5, "p95": 0.95}
    figures = [
        Figure(f"letting go to form painted: {name}", tuple(percentile(one, share) for one in taken), "ms",
               most=MOST_MS if name == "p50" else None)
        for name, share in shares.items()
    ]  # fmt: skip
    return Report("drag", how, tuple(figures))


def _once(page: Page) -> float:
    page.keyboard.press("Escape")
    first, second = (lane(page, f"{HOST} GPU {number}").bounding_box() for number in (1, 2))
    assert first is not None
    assert second is not None
    free = page.evaluate(FREE, f"{HOST} GPU 1")
    drag(page, (free, first["y"] + first["height"] / 2), (free - 7, second["y"] + second["height"] / 2))
    page.evaluate(WATCH_LETTING_GO)
    page.mouse.up()
    page.get_by_role("dialog").wait_for(state="visible")
    return float(page.evaluate("window.shown"))


@contextmanager
def _page(settings: Settings, person: int) -> Iterator[Page]:
    """Of the portal in a thread, signed in."""
    app = create_app(settings)
    with app.app_context():
        client = Client(app).login_as(db.session.get_one(User, person))
        db.session.remove()
    cookie = client.raw.get_cookie("session")
    assert cookie is not None
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        with chromium.browser() as browser:
            context = chromium.context(browser, url, phone=False)
            context.add_cookies([{"name": "session", "value": cookie.value, "url": url}])
            yield context.new_page()
            context.close()
    finally:
        server.shutdown()
        with app.app_context():
            db.engine.dispose()
