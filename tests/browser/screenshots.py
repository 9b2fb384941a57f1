"""Pictures of every page, in a lab in the middle of its week: `python -m tests.browser.screenshots DIRECTORY`.

Light and dark, desk and phone, English and Chinese: DIRECTORY/NAME-desktop-light-en.png and so on.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser

from app.web.locale import COOKIE
from tests.browser import chromium, scene
from tests.browser.demo import running
from tests.browser.looks import Sample
from tests.browser.reader import Reader
from tests.browser.scene import Scene

LANGUAGES = {"en": "en", "zh": "zh_Hans_CN"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these pages only")
    parser.add_argument("--language", choices=LANGUAGES, help="this language only")
    parser.add_argument("--scheme", choices=["light", "dark"], help="this colour scheme only")
    parser.add_argument("--size", choices=["desktop", "phone"], help="this size only")
    wish = parser.parse_args()
    wish.directory.mkdir(parents=True, exist_ok=True)
    languages = [wish.language] if wish.language else list(LANGUAGES)
    schemes = [wish.scheme] if wish.scheme else ["light", "dark"]
    sizes = [wish.size] if wish.size else ["desktop", "phone"]
    with running() as demo, chromium.browser() as browser:
        lab = scene.make(demo)
        samples = [sample for sample in lab.samples() if not wish.only or sample.name in wish.only]
        for language, size in product(languages, sizes):
            _take(browser, lab, samples, language, size, schemes, wish.directory)


def _take(
    browser: Browser, lab: Scene, samples: list[Sample], language: str, size: str, schemes: list[str], into: Path
) -> None:
    for who in dict.fromkeys(sample.who for sample in samples):
        context = chromium.context(browser, lab.demo.url, phone=size == "phone")
        page = context.new_page()
        if who:
            Reader(page).sign_in(who)
        context.add_cookies([{"name": COOKIE, "value": LANGUAGES[language], "url": lab.demo.url}])
        for sample in samples:
            if sample.who != who:
                continue
            page.goto(sample.path)
            for scheme in schemes:
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.screenshot(path=into / f"{sample.name}-{size}-{scheme}-{language}.png", full_page=True)
        context.close()


if __name__ == "__main__":
    main()
