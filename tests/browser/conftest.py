"""One browser and one Berth for the whole suite; a new window for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browser import chromium
from tests.browser.demo import Demo, running
from tests.browser.reader import Reader
from tests.require import need

KINDS = ("desktop", "phone", "desktop-nojs", "phone-nojs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    need("browser", chromium.path(), "there is no Chromium on this machine")
    with chromium.browser() as started:
        yield started


@pytest.fixture(scope="session")
def berth() -> Iterator[Demo]:
    """A Berth with two simulated hosts."""
    with running() as demo:
        yield demo


@pytest.fixture
def demo(berth: Demo) -> Iterator[Demo]:
    """The Berth with nothing booked."""
    yield berth
    berth.clear()


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """`window(url, phone=…, js=…)`: somebody's browser, closed after the test."""
    opened: list[BrowserContext] = []

    def open_one(url: str, **settings: object) -> BrowserContext:
        opened.append(chromium.context(browser, url, **settings))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def reader(demo: Demo, window: Callable[..., BrowserContext], kind: str) -> Iterator[Reader]:
    """A person at a browser of that kind; complains at the end of what the console said."""
    phone, js = kind.startswith("phone"), "nojs" not in kind
    page = window(demo.url, phone=phone, js=js).new_page()
    using = Reader(page, phone=phone, js=js, keyboard=kind.endswith("keyboard"))
    yield using
    using.check()
    assert not using.foreign, using.foreign
