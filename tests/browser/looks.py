"""Looking hard at pages: axe-core finds nothing, nothing scrolls sideways, and the console says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.chromium import DESKTOP, PHONE
from tests.browser.reader import Reader

# What axe looks for: in the dark only colours are others than in the light.
SCHEMES: tuple[tuple[Literal["light", "dark"], list[str]], ...] = (("light", []), ("dark", ["color-contrast"]))
AXE = Axe().axe_script


@dataclass(frozen=True)
class Sample:
    """One page: who looks (a username, or nobody), where, and a name for its picture."""

    who: str
    path: str
    name: str


def troubles(reader: Reader, samples: Iterable[Sample]) -> list[str]:
    """What is wrong with these pages for who is signed in: light and dark, desk and phone."""
    return [trouble for sample in samples for trouble in _troubles(reader, sample)]


def _troubles(reader: Reader, sample: Sample) -> list[str]:
    page, found = reader.page, []
    reader.problems.clear()
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)
        answer = page.goto(sample.path)
        if answer is None or answer.status >= 500:  # the page that says so is as well to look at
            found.append(f"{sample.name}: answers {answer and answer.status}")
        page.evaluate(AXE)
        for scheme, rules in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            found += [f"{sample.name} {size['width']} {scheme}: {text}" for text in _axe(page, rules)]
        page.emulate_media(color_scheme="light")
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > size["width"]:
            found.append(f"{sample.name}: scrolls sideways at {size['width']}: {width}")
    found += [f"{sample.name}: {text}" for text in reader.problems]
    return found


def _axe(page: Page, rules: list[str]) -> list[str]:
    """What it finds by these rules, or by all; not what is well, which is longer by far."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    violations = page.evaluate("options => axe.run(options).then(results => results.violations)", options)
    return [
        f"{violation['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for violation in violations
        for node in violation["nodes"][:3]
    ]
