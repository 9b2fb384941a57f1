"""A person types into their machine in a real browser, and it is a real machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, expect

from app.extensions import db, transaction
from app.models import AuditEvent, InstanceStatus
from app.services import accounts, inventory, signins
from tests.browser.demo import running
from tests.browser.reader import Reader
from tests.factories import make_instance
from tests.lab.fixtures import Hosts
from tests.lab.scene import SLEEPING
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab


def test_typed_in_a_browser_and_seen_there(
    lab: Hosts, launch: Callable[..., str], window: Callable[..., BrowserContext]
) -> None:
    with running(BERTH_LXD=str(lab.ws2.socket)) as demo:
        person = demo.person("Li Wei")
        machine = launch(lab.ws2, *SLEEPING, owner=person)
        with demo.app.app_context(), transaction():
            (host,) = inventory.hosts()
            make_instance(accounts.get(person), host, machine, status=InstanceStatus.RUNNING)
        wait_for(lambda: _served(demo.app), 30, "the agent serves terminals")
        reader = Reader(window(demo.url).new_page()).sign_in(person)
        reader.page.goto(f"/machines/{machine}")
        reader.click("link", "Terminal in the browser")
        reader.sees("Connected.")
        reader.page.keyboard.type("echo in:$(hostname):$((6*7)); printf '\\033[38;2;250;10;10mred\\033[0m\\n'\n")
        expect(reader.page.locator(".xterm-rows")).to_contain_text(f"in:{machine}:42")
        reader.check()  # no word of the console's: the page's policy holds with all of it
        reader.page.keyboard.type("exit\n")
        reader.sees("The shell has ended.")
        wait_for(lambda: _audited(demo.app) == ["opened", "closed"], 30, "its end is on record")
        reader.click("button", "Open again")
        reader.sees("Connected.")
        with demo.app.app_context(), transaction():
            signins.end_all(accounts.get(person))
        expect(reader.page.get_by_text("Closed: you are signed out")).to_be_visible()
        wait_for(lambda: _audited(demo.app) == ["opened", "closed"] * 2, 30, "all of it is on record")


def _served(app) -> bool:
    with app.app_context():
        return bool(inventory.hosts()[0].terminal_url)


def _audited(app) -> list[str]:
    with app.app_context():
        query = db.select(AuditEvent.action).where(AuditEvent.action.startswith("terminal.")).order_by(AuditEvent.id)
        return [action.partition(".")[2] for action in db.session.scalars(query)]
