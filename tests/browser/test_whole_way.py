"""The main job, the whole way, on a real LXD: from registering to a GPU that comes and goes, watched from the host."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import BrowserContext, expect

from app import clock
from app.drivers.lxd import PylxdDriver
from app.extensions import transaction
from app.models import Booking
from app.services import bookings, inventory
from tests.browser.demo import Demo, running
from tests.browser.reader import Reader
from tests.browser.watch import Watch, configured
from tests.lab.fixtures import Hosts
from tests.page import PASSWORD
from tests.runtime.running import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timed]
BOUND = 1.0  # seconds from a booking's start or end to what the container has


@pytest.fixture(scope="module")
def real(lab: Hosts) -> Iterator[Demo]:
    """A Berth on two LXD daemons: the first found by BERTH_LXD, the second added as `berth host add` does."""
    with running(BERTH_LXD=str(lab.ws1.socket), BERTH_SLOT="1", BERTH_TZ="UTC") as demo:
        with demo.app.app_context(), transaction():
            inventory.add_host("test", "ws2", str(lab.ws2.socket), PylxdDriver(str(lab.ws2.socket)))
        yield demo


@pytest.fixture
def people(real: Demo, window: Callable[..., BrowserContext]) -> tuple[Reader, Reader]:
    """A visitor and the admin, each with a browser."""
    return Reader(window(real.url).new_page()), Reader(window(real.url).new_page())


def newest(demo: Demo, username: str) -> Booking:
    with demo.app.app_context():
        return bookings.mine(demo._user(username))[0]


def report(what: str, seconds: float) -> None:
    print(f"{what}: {seconds * 1000:.0f} ms")
    assert 0 <= seconds <= BOUND, what


def test_from_registering_to_a_gpu_that_comes_and_goes(real: Demo, people: tuple[Reader, Reader], lab: Hosts) -> None:
    visitor, admin = people
    name = lab.ws2.unique("way")
    _register(visitor, name)
    admin.page.goto("/login")
    admin.fill("Username", "admin")
    admin.fill("Password", (real.berth.data / "admin-password").read_text().strip())
    admin.click("button", "Sign in")
    admin.nav(re.compile(r"People \(1 waiting\)"))
    admin.fill("Hours per month for Wang Fang", "100")
    admin.click("button", "Approve Wang Fang")
    admin.sees("Approved Wang Fang with 100 h")
    visitor.sign_in(name)
    try:
        _create_machine(visitor, name)
        with Watch(lab.ws2, name) as watch:
            _book_now(real, visitor, name, watch, lab)
            _shorten(real, visitor, name, watch, lab)
            _book_ahead(real, visitor, name, watch, lab)
    finally:
        lab.ws2.remove(name)
    assert visitor.problems == admin.problems == []


def _register(visitor: Reader, name: str) -> None:
    visitor.page.goto("/")
    visitor.click("link", "Ask for one")
    visitor.fill("Username", name)
    visitor.fill("Full name", "Wang Fang")
    visitor.fill("E-mail", "wang@example.org")
    visitor.fill("Password", PASSWORD)
    visitor.click("button", "Ask for an account")
    visitor.sees_heading("Your account waits for approval")


def _create_machine(visitor: Reader, name: str) -> None:
    visitor.nav("My machine")
    visitor.page.get_by_label("Host and image").select_option(label=re.search(
        r"base.* on ws2", visitor.page.get_by_label("Host and image").inner_text()
    )[0])  # fmt: skip
    for label, value in (("CPUs", "1"), ("Memory (GiB)", "1"), ("Disk (GiB)", "2")):
        visitor.fill(label, value)
    began = time.monotonic()
    visitor.click("button", "Create machine")
    expect(visitor.page.get_by_role("progressbar")).to_be_visible()
    visitor.sees("Being created")
    expect(visitor.page.get_by_text("Running", exact=True)).to_be_visible(timeout=60_000)  # by itself
    expect(visitor.page.get_by_role("progressbar")).to_have_count(0)
    visitor.sees(f"{name} is ready.")
    print(f"machine created in {time.monotonic() - began:.1f} s")


def _book_now(real: Demo, visitor: Reader, name: str, watch: Watch, lab: Hosts) -> None:
    visitor.nav("Home")
    visitor.click("button", "Get a GPU now")
    visitor.click("button", "Book")
    visitor.sees_heading(re.compile("1 GPU on ws2 · In use"))
    booking = newest(real, name)
    gpu = booking.allocations[0].gpu
    assert watch.now == {gpu.minor}, "this GPU, and no other"
    assert configured(lab.ws2, name) == {gpu.pci_address}
    assert {card.minor: card.pci_address for card in lab.ws2.gpus}[gpu.minor] == gpu.pci_address
    assert lab.ws2.gpu_nodes(name) == {gpu.minor}, "as the container itself sees it"
    began = max(booking.starts_at, booking.created_at).timestamp()  # booked now: nobody can be quicker than the click
    report("booked now, attached after", watch.moment({gpu.minor}) - began)


def _shorten(real: Demo, visitor: Reader, name: str, watch: Watch, lab: Hosts) -> None:
    visitor.click("link", "Change…")
    end = clock.now() + timedelta(seconds=12)
    visitor.fill("End date", f"{end:%Y-%m-%d}")
    visitor.fill("End time", f"{end:%H:%M:%S}")
    visitor.click("button", "Change")
    visitor.sees(re.compile("Shortened: it ends"))
    visitor.sees_heading(re.compile("1 GPU on ws2 · Ended"))  # by itself
    booking = newest(real, name)
    wait_for(lambda: not watch.now, 20, "taken away")
    report("shortened, gone after its end", watch.moment(set()) - booking.ends_at.timestamp())
    assert configured(lab.ws2, name) == set()
    visitor.sees("GPUs taken back")


def _book_ahead(real: Demo, visitor: Reader, name: str, watch: Watch, lab: Hosts) -> None:
    visitor.nav("Book")
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=15)
    end = start + timedelta(seconds=15)
    visitor.fill("Start date", f"{start:%Y-%m-%d}")
    visitor.fill("Start time", f"{start:%H:%M:%S}")
    visitor.fill("End date", f"{end:%Y-%m-%d}")
    visitor.fill("End time", f"{end:%H:%M:%S}")
    visitor.click("button", "Check")
    visitor.click("button", "Book")
    visitor.sees_heading(re.compile("1 GPU on ws2 · Booked"))
    booking = newest(real, name)
    assert (booking.starts_at, booking.ends_at) == (start, end)
    minor = booking.allocations[0].gpu.minor
    visitor.sees_heading(re.compile("1 GPU on ws2 · (In use|Ends soon)"))  # by itself
    assert watch.now == {minor}
    report("booked ahead, attached after its start", watch.moment({minor}) - start.timestamp())
    wait_for(lambda: not watch.now, 45, "taken away")
    report("booked ahead, gone after its end", watch.moment(set()) - end.timestamp())
    assert configured(lab.ws2, name) == set()
    visitor.sees_heading(re.compile("1 GPU on ws2 · Ended"))
