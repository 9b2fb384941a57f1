"""Debian's Chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DESKTOP, PHONE = {"width": 1366, "height": 768}, {"width": 360, "height": 740}
# Milliseconds in which what is waited for must come: on a busy machine anything may take its time. What a person would
# find slow is measured by itself, where it is promised.
PATIENCE = 30_000
_QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def path() -> str:
    """Where the browser is, or nothing."""
    return next((found for name in NAMES if (found := shutil.which(name))), "")


@contextmanager
def browser() -> Iterator[Browser]:
    """One browser; as root it runs without its sandbox, which it refuses otherwise."""
    arguments = [*_QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path(), args=arguments)
        try:
            yield started
        finally:
            started.close()


def context(browser: Browser, base_url: str, *, phone: bool = False, js: bool = True, **more: Any) -> BrowserContext:
    """A window of somebody who was never here before."""
    settings: dict[str, Any] = {"locale": "en-GB", "reduced_motion": "reduce"} | more
    opened = browser.new_context(
        base_url=base_url, viewport=PHONE if phone else DESKTOP, java_script_enabled=js, **settings
    )
    opened.set_default_timeout(PATIENCE)
    return opened
