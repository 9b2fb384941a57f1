"""What systemd hears of an agent: that it is up after its first pass, and alive as long as passes end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from workers.notify import PATIENCE, Pulse, tell

Heard = Callable[[], list[str]]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """What was said since the last time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def collect() -> list[str]:
            found: list[str] = []
            with suppress(BlockingIOError):
                while True:
                    found += ear.recv(4096).decode().splitlines()
            return found

        yield collect


def test_it_is_up_when_a_pass_has_ended_and_alive_when_another_has(heard: Heard) -> None:
    pulse = Pulse(125)
    pulse.pass_on()
    assert heard() == []
    pulse.beat()
    pulse.pass_on()
    assert heard() == ["WATCHDOG=1", "READY=1"]
    pulse.pass_on()
    assert heard() == []  # the main thread turns, and no pass ends
    pulse.beat()
    pulse.beat()
    pulse.pass_on()
    assert heard() == ["WATCHDOG=1"]


def test_where_passes_are_rarer_systemd_is_asked_for_more_patience(heard: Heard) -> None:
    pulse = Pulse(420)
    pulse.beat()
    pulse.pass_on()
    [more] = [word for word in heard() if word.startswith("WATCHDOG_USEC=")]
    assert float(more.partition("=")[2]) > max(420, PATIENCE) * 1e6


def test_an_abstract_socket_and_nobody_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"berth-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        tell("STOPPING=1")
        assert ear.recv(100) == b"STOPPING=1"
    tell("WATCHDOG=1")  # systemd is being started anew: no reason to stop
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell("WATCHDOG=1")
