"""What every driver promises of shared directories and terminals, over the simulated one and a real LXD."""

from __future__ import annotations

import pytest

from app.drivers.base import GiveUp, TryAgain
from app.drivers.shares import Share, share_device
from tests.drivers.conftest import Subject

SETS = Share("/srv/sets", "/srv/sets", read_only=True)
COMMON = Share("/srv/common", "/mnt/common", read_only=False)
ONE, TEN = share_device(1), share_device(10)


def test_an_instance_has_the_shared_directories_that_it_was_given_and_no_others(subject: Subject) -> None:
    name = subject.put("half-made")
    assert (subject.driver.shares()[name].status, subject.driver.shares()[name].shares) == ("stopped", {})
    for wanted in ({ONE: SETS, TEN: COMMON}, {ONE: SETS, TEN: COMMON}, {TEN: SETS}, {}):
        subject.driver.set_shares(name, wanted)
        assert subject.driver.shares()[name].shares == wanted
    assert len({len(share_device(number)) for number in (1, 10, 99999999)}) == 1


def test_a_privileged_instance_is_given_none(subject: Subject) -> None:
    name = subject.put("privileged")
    assert subject.driver.shares()[name].privileged
    with pytest.raises(GiveUp, match="privileged"):
        subject.driver.set_shares(name, {ONE: SETS})
    subject.driver.set_shares(name, {})
    assert subject.driver.shares()[name].shares == {}


def test_one_that_is_not_there_is_given_none(subject: Subject) -> None:
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.set_shares(subject.name(), {ONE: SETS})


def test_a_terminal_shows_what_is_typed_until_it_is_closed(subject: Subject) -> None:
    pty = subject.driver.terminal(subject.machine(), 80, 24)
    pty.resize(100, 30)
    pty.write(b"echo hi\r")
    said = b""
    while b"echo hi" not in said:
        said += pty.read()
    pty.close()
    while pty.read():
        pass


def test_there_is_no_terminal_where_nothing_runs(subject: Subject) -> None:
    with pytest.raises(TryAgain, match="stopped"):
        subject.driver.terminal(subject.put("stopped"), 80, 24)
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.terminal(subject.name(), 80, 24)
