"""Ports of the host that lead into instances: what every driver promises of them, and who is taken for whom."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.drivers.base import GiveUp, HostUnreachable
from app.drivers.doors import BUSY, CLOSED, NO_ADDRESS, OTHER, REFUSED, SILENT, Door
from app.drivers.fake import FakeLxd
from app.drivers.knocking import PortTaken, knock_here, taken_here
from tests.drivers.conftest import Subject
from tests.runtime.running import free_port, wait_for

HERE = "127.0.0.1"


def door(purpose: str = "ssh") -> Door:
    return Door(purpose, HERE, free_port())


@contextmanager
def occupied(subject: Subject, number: int) -> Iterator[None]:
    """Somebody else listens there."""
    if isinstance(subject.driver, FakeLxd):
        subject.driver.occupy(number)
        yield
        subject.driver.occupy()
        return
    with socket.create_server((HERE, number)):
        yield


def test_a_door_opens_answers_and_closes(subject: Subject) -> None:
    name, ssh = subject.machine(), door()
    assert not subject.driver.doorways()[name].doors
    subject.driver.open_door(name, ssh)
    subject.driver.open_door(name, ssh)
    doorway = subject.driver.doorways()[name]
    assert doorway.status == "running"
    assert doorway.has(ssh)
    wait_for(lambda: subject.driver.knock(ssh) == "", why="sshd answers")
    assert subject.driver.taken(ssh) == BUSY, "by the door itself"
    subject.driver.close_door(name, "ssh")
    subject.driver.close_door(name, "ssh")
    assert not subject.driver.doorways()[name].doors
    assert subject.driver.knock(ssh) == REFUSED
    subject.driver.close_door("no-such", "ssh")
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.open_door(subject.name(), door())


def test_a_port_that_is_taken_is_refused_at_once(subject: Subject) -> None:
    name, ssh = subject.machine(), door()
    with occupied(subject, ssh.number):
        began = time.monotonic()
        with pytest.raises(PortTaken, match="somebody else has it") as refused:
            subject.driver.open_door(name, ssh)
        assert time.monotonic() - began < 5.5, "LXD itself tries for six seconds"
        assert refused.value.reason == BUSY
        assert not subject.driver.doorways()[name].doors
    subject.driver.open_door(name, ssh)
    assert subject.driver.doorways()[name].has(ssh)


def test_a_taken_port_keeps_an_instance_from_starting_until_its_door_is_gone(subject: Subject) -> None:
    name, ssh = subject.machine(), door()
    subject.driver.stop(name, force=True)
    subject.driver.open_door(name, ssh)
    with occupied(subject, ssh.number):
        with pytest.raises(GiveUp, match=r"in use|[Ff]ailed|Error"):
            subject.driver.start(name)
        subject.driver.close_door(name, "ssh")
        subject.driver.start(name)
    assert subject.driver.doorways()[name].status == "running"


def test_doors_of_a_host_that_is_away(subject: Subject) -> None:
    with pytest.raises(HostUnreachable):
        subject.away.doorways()
    with pytest.raises(HostUnreachable):
        subject.away.open_door("t1", door())


def answering(said: bytes | None, *, wait: float = 0.0) -> Door:
    """A port of this machine where one caller is told this, or nothing (None: the connection ends)."""
    server = socket.create_server((HERE, 0))

    def serve() -> None:
        with server, server.accept()[0] as line:
            if said:
                line.sendall(said)
            time.sleep(wait)

    threading.Thread(target=serve, daemon=True).start()
    return Door("ssh", HERE, server.getsockname()[1])


@pytest.mark.parametrize(
    ("purpose", "said", "found"),
    [
        ("ssh", b"SSH-2.0-OpenSSH_9.2p1\r\n", ""),
        ("ssh", b"HTTP/1.1 400 Bad Request\r\n", OTHER),
        ("ssh", None, CLOSED),
        ("rdp", bytes.fromhex("030000130ed000001234000209080001000000"), ""),
        ("rdp", bytes.fromhex("0300000b06d00000123400"), ""),
        ("rdp", b"SSH-2.0-OpenSSH_9.2p1\r\n", OTHER),
        ("rdp", bytes.fromhex("0300000902f08021800000"), OTHER),
        ("rdp", bytes.fromhex("0300"), OTHER),
        ("rdp", None, CLOSED),
    ],
)
def test_who_answers_is_known_by_what_it_says(purpose: str, said: bytes | None, found: str) -> None:
    place = answering(said)
    assert knock_here(Door(purpose, HERE, place.number)) == found


def test_who_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.drivers.knocking.PATIENCE", 0.2)
    assert knock_here(answering(b"", wait=1.0)) == SILENT


def test_what_this_machine_can_open() -> None:
    number = free_port()
    assert taken_here(Door("ssh", HERE, number)) == ""
    with socket.create_server((HERE, number)):
        assert taken_here(Door("ssh", HERE, number)) == BUSY
        assert taken_here(Door("ssh", "0.0.0.0", number)) == BUSY
    assert taken_here(Door("ssh", "192.0.2.7", number)) == NO_ADDRESS
    assert Door("rdp", "::1", 3000).device["listen"] == "tcp:[::1]:3000"
