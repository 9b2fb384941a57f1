"""A terminal in a real machine: a real shell with a window, and a flood that fills nobody's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app import create_core
from app.extensions import db, transaction
from app.services import accounts, signins
from tests.conftest import settings_for
from tests.factories import make_host, make_instance, make_user
from tests.lab.fixtures import Hosts
from tests.lab.looking import connect
from tests.lab.scene import SLEEPING
from tests.runtime.running import wait_for
from tests.terminals import Desk, serving
from workers.terminal_session import AHEAD

pytestmark = pytest.mark.lab


@pytest.fixture
def machine(lab: Hosts, launch: Callable[..., str]) -> str:
    return launch(lab.ws1, *SLEEPING, owner="li")


@pytest.fixture
def desk(lab: Hosts, machine: str, fresh_db: str, tmp_path: Path) -> Iterator[Desk]:
    core = create_core(settings_for(fresh_db, tmp_path))
    with core.app_context(), transaction():
        make_instance(make_user("li"), make_host("ws1", gpus=0, endpoint=str(lab.ws1.socket)), machine)
    with serving(core, "ws1", connect(lab.ws1)) as found:
        yield found
    with core.app_context():
        db.engine.dispose()


def resident() -> int:
    """MiB of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def test_a_shell_with_a_window_that_ends_with_the_sign_in(lab: Hosts, desk: Desk, machine: str) -> None:
    screen = desk.open(desk.ticket(desk.sign_in("li"), machine))
    screen.type("stty size; id -u; echo $TERM ü; hostname\r")
    text = screen.until(f"{machine}\r\n")
    assert "33 91\r\n0\r\nxterm-256color ü\r\n" in text
    screen.connection.send('{"columns": 120, "rows": 40}')
    screen.type("while [ \"$(stty size)\" = '33 91' ]; do sleep 0.1; done; stty size\r")
    screen.until("40 120\r\n")
    screen.type("exec sleep 7777\r")
    wait_for(lambda: "sleep 7777" in lab.ws1.run(machine, "ps", "-eo", "args"), why="it runs")
    with desk.core.app_context(), transaction():
        signins.end_all(accounts.get("li"))
    screen.until_closed()
    wait_for(lambda: "sleep 7777" not in lab.ws1.run(machine, "ps", "-eo", "args"), why="it ends")


def test_a_flood_waits_for_the_browser(desk: Desk, machine: str) -> None:
    screen = desk.open(desk.ticket(desk.sign_in("li"), machine))
    screen.until("# ")
    before = resident()
    screen.shows = False
    screen.type("yes\r")
    with suppress(TimeoutError):
        while screen.hear(4):
            pass
    assert AHEAD <= len(screen.text) < AHEAD + (1 << 17), "no more comes than was asked for"
    screen.shows, screen.text = True, ""
    screen.connection.send(f'{{"shown": {AHEAD * 2}}}')
    came, until = 0, time.monotonic() + 60
    while came < 8 << 20:
        assert time.monotonic() < until, f"as much as is shown does come, but {came} bytes"
        screen.hear()
        came, screen.text = came + len(screen.text), ""
    assert resident() - before < 32
    screen.type("\x03")
    screen.text = ""
    screen.type("echo on$((1+1))\r")
    screen.until("on2\r\n")
