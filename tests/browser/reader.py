"""A person at a browser, who knows only what can be read: roles, labels, visible text. Every action counts."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

from tests.page import PASSWORD

Name = str | re.Pattern[str]
WATCH_FOCUS = """
let had = false;
const none = () => !document.activeElement || document.activeElement === document.body;
addEventListener("htmx:beforeSwap", () => { had = !none(); }, true);
addEventListener("htmx:afterSettle", () => requestAnimationFrame(() => requestAnimationFrame(() => {
  window.swaps = (window.swaps || 0) + 1;
  window.lostFocus = window.lostFocus || (had && none());
})));
"""


class Reader:
    """Uses a page. `phone`: the navigation is behind "Menu", which costs one action more."""

    def __init__(self, page: Page, *, phone: bool = False, js: bool = True, keyboard: bool = False) -> None:
        self.page, self.phone, self.js, self.keyboard = page, phone, js, keyboard
        self.actions = 0
        self.problems: list[str] = []
        self.foreign: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._asked)
        if js:
            page.add_init_script(WATCH_FOCUS)

    def sign_in(self, username: str) -> Reader:
        """Sign in, end at Home, and begin to count."""
        self.page.goto("/login")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in", exact=True).click()
        self.sees_heading("Home")
        self.actions = 0
        return self

    def nav(self, name: Name) -> None:
        """Follow a link of the navigation."""
        bar = self.page.get_by_role("navigation", name="Main")
        link = bar.get_by_role("link", name=name, exact=isinstance(name, str))
        if self.phone:
            self.press_on(self.page.get_by_text("Menu", exact=True))
        self.press_on(link)

    def click(self, role: Any, name: Name, within: Locator | None = None) -> None:
        """Press what has this role and this name (a text: exactly this)."""
        self.press_on((within or self.page).get_by_role(role, name=name, exact=isinstance(name, str)))

    def fill(self, label: Name, value: str) -> None:
        """Fill a field."""
        field = self.page.get_by_label(label, exact=isinstance(label, str))
        self.actions += 1
        if not self.keyboard:
            field.fill(value)
            return
        self.tab_to(field)
        if field.get_attribute("type") == "date":
            year, month, day = value.split("-")
            self.page.keyboard.type(month + day + year)  # the order of Chromium's own language
        else:
            self.page.keyboard.press("Control+a")
            self.page.keyboard.type(value)
        expect(field).to_have_value(value)

    def press_on(self, target: Locator) -> None:
        """Click it, or go to it with Tab and press Enter."""
        self.actions += 1
        expect(target).to_be_visible()
        if self.keyboard:
            self.tab_to(target)
            self.page.keyboard.press("Enter")
        else:
            target.click()

    def tab_to(self, target: Locator) -> None:
        """Go on with Tab until the focus is there."""
        expect(target).to_be_visible()
        for _ in range(150):
            if target.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {target}")

    def sees(self, text: Name) -> None:
        """Somewhere on the page, to be read."""
        expect(self.page.get_by_text(text).locator("visible=true").first).to_be_visible()
        self.check()

    def sees_heading(self, name: Name) -> None:
        """On a page that is all there, and listens."""
        expect(self.page.get_by_role("heading", level=1, name=name)).to_be_visible()
        self.page.wait_for_load_state()
        self.check()

    def check(self) -> None:
        """Nothing to complain about on this page."""
        width, room = self.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        assert width <= room, f"{self.page.url} scrolls sideways: {width} > {room}"
        assert not (self.js and self.page.evaluate("window.lostFocus")), f"{self.page.url}: a swap lost the focus"
        assert not self.problems, f"{self.page.url}: {self.problems}"

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource: the server"):
            self.problems.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:")):
            self.foreign.append(request.url)
