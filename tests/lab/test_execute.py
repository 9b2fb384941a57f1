"""A command run inside a real instance: what it says, and that it can neither take too long nor say too much."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from app.drivers.base import TryAgain
from app.drivers.inside import shell
from app.drivers.lxd import streams
from app.errors import Cancelled
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.lab.scene import SLEEPING
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture
def machine(lab: Hosts, launch: Callable[..., str]) -> tuple[Lab, str]:
    return lab.ws1, launch(lab.ws1, *SLEEPING)


def test_it_answers_with_status_and_both_streams(machine: tuple[Lab, str]) -> None:
    host, name = machine
    heard: list[str] = []
    script = 'cat; echo "$WHO ü"; sleep 2; echo wrong >&2; exit 3'
    answer = connect(host).run(name, shell(script, stdin=b"secret\n", WHO="li"), heard.append)
    assert (answer.status, answer.text) == (3, "secret\nli ü\nwrong\n")
    assert "".join(heard) == answer.text
    assert len(heard) > 1


def test_who_listens_to_silence_can_end_it(machine: tuple[Lab, str]) -> None:
    host, name = machine
    heard: list[str] = []

    def enough(piece: str) -> None:
        heard.append(piece)
        if heard.count("") > 1:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        connect(host).run(name, shell("echo begun; sleep 77", limit=60), enough)
    assert heard == ["begun\n", "", ""]
    wait_for(lambda: "timeout" not in host.run(name, "ps", "-eo", "args"), why="nothing of it is left")


@pytest.mark.parametrize("script", ["sleep 77", "cat /dev/zero", "trap '' TERM; while :; do echo y; sleep 0.01; done"])
def test_it_has_limits(machine: tuple[Lab, str], script: str) -> None:
    host, name = machine
    began = time.monotonic()
    with pytest.raises(TryAgain, match="not done within 1 s or said too much"):
        connect(host).run(name, shell(script, limit=1))
    assert time.monotonic() - began < 30, "without the limit it would not end"
    wait_for(lambda: "timeout" not in host.run(name, "ps", "-eo", "args"), why="nothing of it is left")
    assert connect(host).run(name, shell("echo on")).text == "on\n"


def test_what_is_secret_is_in_no_list_of_processes(machine: tuple[Lab, str]) -> None:
    host, name = machine
    answer = connect(host).run(name, shell("cat > /root/got; ps -eo args", stdin=b"hunter2"))
    assert "hunter2" not in answer.text
    assert host.run(name, "cat", "/root/got") == "hunter2"


def test_a_host_that_is_busy_hears_a_short_command(machine: tuple[Lab, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends while the agent would still have to make a connection; what it says comes all the same."""
    host, name = machine
    real = streams.connect

    def slow(*values: Any, **limits: Any) -> ClientConnection:
        time.sleep(0.5)
        return real(*values, **limits)

    monkeypatch.setattr(streams, "connect", slow)
    assert connect(host).run(name, shell("echo heard")).text == "heard\n"
