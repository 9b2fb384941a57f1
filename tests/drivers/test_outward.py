"""Where messages for other people may go."""

from __future__ import annotations

import socket
from functools import partial

import pytest

from app.drivers import outward
from workers.apart import run_all

INSIDE = [
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.5.5", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::1", "2001:0:7f00:1::1", "nonsense", "",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside_is_not_public(address: str) -> None:
    assert not outward.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_outside_is(address: str) -> None:
    assert outward.is_public(address)


def _try(place: object, *, family: int = socket.AF_INET, private: bool = False) -> str:
    """Connect as urllib3 does, in a process of its own: the guard stays for good."""
    outward.guard(private=private)
    with socket.socket(family) as one:
        try:
            one.connect(place)  # type: ignore[arg-type]
        except outward.Refused:
            return "refused"
        except OSError as error:
            return type(error).__name__
    return "connected"


def test_the_guard_stands_at_the_connection_itself(tmp_path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        place = listening.getsockname()
        tasks = [
            partial(_try, place),
            partial(_try, place, private=True),
            partial(_try, ("169.254.169.254", 80), private=True),
            partial(_try, ("localhost", place[1])),  # a name is nothing to go by
            partial(_try, str(tmp_path / "socket"), family=socket.AF_UNIX),
            partial(_try, str(tmp_path / "socket"), family=socket.AF_UNIX, private=True),
        ]
        results = run_all(tasks, 10)
    assert results == ["refused", "connected", "refused", "refused", "refused", "refused"]
