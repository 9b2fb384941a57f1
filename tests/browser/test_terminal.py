"""A person at their machine in a real browser, and it is a real machine: its host lends it NVIDIA's libraries at a
click, and what they type is seen there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from app.drivers.libraries import Way
from app.drivers.lxd import libraries
from app.extensions import db, transaction
from app.models import AuditEvent, InstanceStatus
from app.services import accounts, instances, inventory, signins
from tests.browser.demo import running
from tests.browser.reader import Reader
from tests.factories import make_instance
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.lent import LOADED, WHICH, listing
from tests.lab.scene import SLEEPING
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab


def test_typed_in_a_browser_and_seen_there(
    lab: Hosts, launch: Callable[..., str], window: Callable[..., BrowserContext], tools: Path
) -> None:
    with running(BERTH_LXD=str(lab.ws2.socket), PATH=f"{tools}:{os.environ['PATH']}") as demo:
        person = demo.person("Li Wei")
        machine = launch(lab.ws2, *SLEEPING, owner=person)
        with demo.app.app_context(), transaction():
            (host,) = inventory.hosts()
            make_instance(accounts.get(person), host, machine, status=InstanceStatus.RUNNING)
        wait_for(lambda: _served(demo.app), 30, "the agent serves terminals")
        reader = Reader(window(demo.url).new_page()).sign_in(person)
        wait_for(lambda: _lends(demo.app, machine), 60, "the host lends libraries, and the machine was looked at")
        reader.page.goto(f"/machines/{machine}")
        _borrow(reader, lab.ws2, machine)
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


@pytest.fixture
def tools(tmp_path: Path, lab: Hosts) -> Iterator[Path]:
    """What the host's linker lists: a library of its driver's version, so that it has something to lend."""
    (tmp_path / "bin").mkdir()
    ldconfig = tmp_path / "bin" / "ldconfig"
    (tmp_path / "listed").write_text(listing(tmp_path, LOADED))
    ldconfig.write_text(f"#!/bin/sh\nexec cat {tmp_path}/listed\n")
    ldconfig.chmod(0o755)
    yield ldconfig.parent
    (lab.ws2.lxd_dir / libraries.FOLDER / "way").unlink(missing_ok=True)  # the next test's machines are made without


def _lends(app, machine: str) -> bool:
    with app.app_context():
        (host,) = inventory.hosts()
        return host.libraries_seen.get("way") == Way.MOUNT and "devices" in instances.get(None, machine).observed


def _borrow(reader: Reader, host: Lab, machine: str) -> None:
    """A machine that was made without them, at one click, and while it runs."""
    assert "cannot open shared object file" in host.run(machine, "python3", "-c", WHICH)
    reader.sees(f"none of the host's ({LOADED})")
    reader.click("button", "Give it the host's libraries")
    reader.sees(f"{machine} has the host's NVIDIA libraries.")  # by itself
    reader.sees(f"the host's {LOADED}, mounted read-only · They fit the host's driver.")
    expect(reader.page.get_by_role("button", name="Give it the host's libraries")).to_have_count(0)
    assert host.run(machine, "python3", "-c", WHICH) == "580\n"
    reader.check()


def _served(app) -> bool:
    with app.app_context():
        return bool(inventory.hosts()[0].terminal_url)


def _audited(app) -> list[str]:
    with app.app_context():
        query = db.select(AuditEvent.action).where(AuditEvent.action.startswith("terminal.")).order_by(AuditEvent.id)
        return [action.partition(".")[2] for action in db.session.scalars(query)]
