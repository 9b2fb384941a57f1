"""What is told to a machine is read in it, and nothing in there can hold it up."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.drivers.base import TryAgain
from app.drivers.lxd import tell as telling
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import Launch, connect
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab

TITLE = "Your GPU on ws1 goes at 14:00"
TEXT = "Save your work: what uses it then is ended.\n你的 GPU 将被收回。"


class Terminal:
    """Somebody's shell in a container, as `lxc exec` gives one."""

    def __init__(self, host: Lab, name: str) -> None:
        self.handle, inner = pty.openpty()
        self.process = subprocess.Popen(
            ["lxc", "exec", name, "--mode=interactive", "--", "sh"], env=host._env(), stdin=inner, stdout=inner,
            stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.shown = b""
        self.type("echo read''y\n")
        assert self.wait_for("ready")

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> bool:
        deadline = time.monotonic() + seconds
        while text.encode() not in self.shown and time.monotonic() < deadline:
            if select.select([self.handle], [], [], 0.1)[0]:
                self.shown += os.read(self.handle, 65536)
        return text.encode() in self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.handle)


@pytest.fixture
def terminal(lab: Hosts) -> Iterator[Callable[[str], Terminal]]:
    """`terminal(name)` opens one in an instance of the first host."""
    opened: list[Terminal] = []

    def start(name: str) -> Terminal:
        opened.append(Terminal(lab.ws1, name))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def waiting_for(name: str) -> bool:
    """Whether LXD still runs a command in the instance."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return any("forkexec" in line and name in line.split() for line in shown.splitlines())


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_it_is_read_on_every_terminal(lab: Hosts, launch: Launch, terminal: Callable[[str], Terminal]) -> None:
    name, driver = launch(lab.ws1), connect(lab.ws1)
    shells = [terminal(name), terminal(name)]
    wait_for(lambda: driver.tell(name, TITLE, TEXT) or all(shell.wait_for("将被收回", 2) for shell in shells))
    assert all(TITLE.encode() in shell.shown for shell in shells)


def test_a_stopped_terminal_delays_nobody(lab: Hosts, launch: Launch, terminal: Callable[[str], Terminal]) -> None:
    name, driver = launch(lab.ws1), connect(lab.ws1)
    stopped, other = terminal(name), terminal(name)
    stopped.type("\x13")  # Ctrl-S
    time.sleep(1)
    wait_for(lambda: driver.tell(name, TITLE, TEXT) or other.wait_for(TITLE, 2))  # it raises where it is held up
    assert not stopped.wait_for(TITLE, 0.5)


def test_what_takes_commands_for_text_gets_none(
    lab: Hosts, launch: Launch, terminal: Callable[[str], Terminal]
) -> None:
    name, driver = launch(lab.ws1), connect(lab.ws1)
    shell = terminal(name)
    driver.tell(name, "$(touch /root/no) `touch /root/no` %s\n'\"", "\x1b[2J; touch /root/no\n" + "x" * 100_000 + "end")
    assert shell.wait_for("[2J; touch /root/no")
    assert b"`touch /root/no` %s '\"" in shell.shown
    assert b"\x1b[2J" not in shell.shown
    assert not shell.wait_for("end", 0.5)
    assert lab.ws1.run(name, "ls", "/root/no").startswith("ls: cannot access")


def test_a_hanging_shell_is_left_to_itself(lab: Hosts, launch: Launch) -> None:
    """Its owner can make anything of it; and no process of LXD's goes on waiting for it."""
    host, driver = lab.ws1, connect(lab.ws1)
    name = launch(host)
    sleeper = "#!/bin/bash\ntrap : TERM HUP INT\nwhile :; do sleep 9; done"
    host.run(
        name, "bash", "-c", f"rm /usr/bin/timeout; printf '{sleeper}' > /usr/bin/timeout; chmod 755 /usr/bin/timeout"
    )
    with at_most(telling.LIMIT + 20), pytest.raises(TryAgain, match="timed out"):
        driver.tell(name, TITLE, TEXT)
    wait_for(lambda: not waiting_for(name), why="nothing of LXD's that waits for it")


def test_one_that_floods_fills_nothing(lab: Hosts, launch: Launch) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    name = launch(host)
    host.run(name, "rm", "/usr/bin/timeout")
    host.run(name, "sh", "-c", "printf '#!/bin/sh\nexec yes' > /usr/bin/timeout; chmod 755 /usr/bin/timeout")
    with at_most(telling.LIMIT + 20), pytest.raises(TryAgain, match="timed out"):
        driver.tell(name, TITLE, TEXT)
    logs = host.lxd_dir / "logs" / name
    assert sum(path.stat().st_size for path in logs.rglob("*") if path.is_file()) < 1_000_000
