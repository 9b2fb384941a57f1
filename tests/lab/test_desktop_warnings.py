"""A message to a machine is shown on its desktop, whatever of the usual tools there is, and starts nobody's program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.drivers.lxd import tell
from tests.lab.desktop_image import desktop_image
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told is at stake, not how long it may take: on a busy machine each step gets the time it needs."""
    script = tell._SCRIPT.replace("timeout 1 ", "timeout 20 ").replace("-k 0.2 2 ", "-k 0.2 20 ")
    monkeypatch.setattr(tell, "_SCRIPT", script.replace("-k 0.2 1 ", "-k 0.2 20 "))
    monkeypatch.setattr(tell, "_COMMAND", ["40" if word == "4" else word for word in tell._COMMAND])
    monkeypatch.setattr(tell, "LIMIT", 45.0)
    monkeypatch.setattr(tell, "PATIENCE", 20.0)


BUS = "unix:path=/tmp/bus"
SESSION = f"""
export DISPLAY=:7 DBUS_SESSION_BUS_ADDRESS={BUS}
Xvfb :7 -screen 0 800x600x24 -extension GLX > /tmp/xvfb.log 2>&1 &
dbus-daemon --session --address={BUS} --nofork --nopidfile > /tmp/bus.log 2>&1 &
until [ -S /tmp/bus ] && [ -S /tmp/.X11-unix/X7 ]; do sleep 0.1; done
stdbuf -oL dunst -print > /tmp/shown 2>&1
"""


@pytest.fixture(scope="module")
def desktop(lab: Hosts) -> Iterator[tuple[Lab, str]]:
    """A machine in which somebody called li is logged in to a desktop."""
    host, name = lab.ws1, lab.ws1.unique()
    host.lxc("image", "import", str(desktop_image()), "--alias", "notified", timeout=300)
    try:
        host.lxc("launch", "notified", name, "-c", "security.idmap.isolated=true", timeout=120)
        wait_for(lambda: booted(host, name), 60, "its boot, which sweeps /tmp")
        host.run(name, "useradd", "--create-home", "li")
        start(host, name, "runuser", "-u", "li", "--", "sh", "-c", SESSION)
        wait_for(lambda: "org.freedesktop.Notifications" in names(host, name), 30, "a desktop that shows notifications")
        yield host, name
    finally:
        host.remove(name)
        host.lxc("image", "delete", "notified", check=False)


def start(host: Lab, name: str, *command: str) -> None:
    """In the background."""
    host.run(name, "sh", "-c", 'setsid -f "$@" > /dev/null 2>&1 < /dev/null', "sh", *command)


def booted(host: Lab, name: str) -> bool:
    return host.run(name, "systemctl", "is-system-running").strip() in {"running", "degraded"}


def names(host: Lab, name: str) -> str:
    return host.run(name, "runuser", "-u", "li", "--", "busctl", f"--address={BUS}", "--acquired", "list")


@pytest.mark.parametrize("missing", ["", "/usr/bin/notify-send", "/usr/bin/gdbus"])
def test_it_is_shown_on_the_desktop(desktop: tuple[Lab, str], missing: str) -> None:
    host, name = desktop
    if missing:  # and stays so: each further one has less
        host.run(name, "rm", missing)
    title = f"Your GPU goes, said without {missing or 'nothing'}"
    connect(host).tell(name, title, "At 14:00 <b>python</b> & others are ended.\n14:00 收回。")

    def shown() -> str:
        return host.run(name, "cat", "/tmp/shown").partition(title)[2]

    wait_for(lambda: "script_count" in shown(), why="the notification")
    assert "At 14:00 ‹b›python‹/b› + others are ended.\n14:00 收回。" in shown()
    assert "urgency: CRITICAL" in shown()
    assert host.run(name, "cat", "/tmp/shown").count(f"summary: '{title}'") == 1


@pytest.mark.parametrize("address", ["unixexec:path=/home/li/run", "unix:path=/nowhere;unixexec:path=/home/li/run"])
def test_an_address_starts_no_program(desktop: tuple[Lab, str], address: str) -> None:
    host, name = desktop
    host.run(name, "sh", "-c", "printf '#!/bin/sh\\nid > /tmp/ran' > /home/li/run; chmod 755 /home/li/run")
    start(host, name, "env", f"DBUS_SESSION_BUS_ADDRESS={address}", "DISPLAY=:7", "sleep", "60")
    connect(host).tell(name, "A title", "A text")
    assert host.run(name, "ls", "/tmp/ran").startswith("ls: cannot access")
