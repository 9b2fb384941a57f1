"""The LXD driver against a server that misbehaves; needs no LXD."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from app.drivers.base import GiveUp, HostUnreachable, InstanceSpec, TryAgain
from app.drivers.lxd import PylxdDriver, wire
from tests.drivers.misbehaving import DONE, GPU, TAG, Server, instance


def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.Wire.__init__, "__defaults__", (0.3,))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "unix.socket"))
        deaf.listen()  # the kernel takes connections, nobody answers
        hung = PylxdDriver(str(tmp_path / "unix.socket"))
        start = time.monotonic()
        with pytest.raises(HostUnreachable, match="in time"):
            hung.observe()
        with pytest.raises(TryAgain, match="in time"):
            hung.detach("t1", "gpu-0000-01-00-0")
        assert time.monotonic() - start < 5


def test_a_socket_that_nobody_listens_on_is_unreachable(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "unix.socket"))
    with pytest.raises(HostUnreachable):
        PylxdDriver(str(tmp_path / "unix.socket")).observe()


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:1", "https://[", "nonsense", "/", "/etc/passwd"])
def test_any_endpoint_ends_in_a_clear_error(endpoint: str) -> None:
    with pytest.raises((HostUnreachable, GiveUp)) as caught:
        PylxdDriver(endpoint).observe()
    assert caught.value.todo
    assert ("no socket at" in str(caught.value)) == (endpoint in {"/", "/etc/passwd"})


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"type": "sync"}', b"\xff", b""])
def test_what_is_not_lxd_is_not_taken_for_an_empty_host(server: Server, driver: PylxdDriver, body: bytes) -> None:
    server.answers["GET", "/1.0/instances"] = (200, body)
    with pytest.raises(HostUnreachable):
        driver.observe()
    server.answers["GET", "/1.0/instances"] = None  # LXD's way to say none
    assert driver.observe().instances == {}


@pytest.mark.parametrize(
    ("path", "answer"), [("/1.0", {"auth": "untrusted"}), ("/1.0/instances", (403, "not authorized: do not trust"))]
)
def test_an_untrusted_client_is_told_so(server: Server, driver: PylxdDriver, path: str, answer: object) -> None:
    server.answers["GET", path] = answer
    with pytest.raises(HostUnreachable, match="not trust") as caught:
        driver.observe()
    assert "lxc remote add" in caught.value.todo
    with pytest.raises(GiveUp):
        driver.gpus() if path == "/1.0" else driver.attach("t1", GPU, TAG)


def test_a_late_answer_ends_no_work_of_minutes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose disk is at its limit answers late: at the beginning, and when it is asked how far it is."""
    slow, calls, again = wire.Wire(str(server.server_address), 0.3), list[float](), threading.Event()
    call = wire.Wire._call

    def noted(self: wire.Wire, method: str, path: tuple[str, ...], **more: Any) -> Any:
        calls.append(more.get("timeout", 0))
        return call(self, method, path, **more)

    def late() -> Any:
        assert again.wait(20)
        return DONE

    def at_once() -> Any:
        again.set()
        return DONE

    monkeypatch.setattr(wire.Wire, "_call", noted)
    server.answers["POST", "/1.0/images"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = [late, at_once]
    assert slow.send("post", "images", limit=900, json={}, progress=lambda _percent: None)
    assert calls[0] == 60
    assert server.requests.count(("GET", "/1.0/operations/op/wait")) == 2
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    assert slow.send("post", "images", limit=4, json={})
    assert calls[-2] == 4, "who has little time waits no longer"
    monkeypatch.setattr(wire, "LATE", 0)
    again.clear()
    server.answers["GET", "/1.0/operations/op/wait"] = [late, at_once]
    with pytest.raises(requests.Timeout):  # nor does anybody wait for one that never answers
        slow.join("op", 900, lambda _percent: None)
    again.set()


def test_a_console_with_nothing_on_it_is_empty(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["GET", "/1.0/instances/t1/console"] = (500, "open : no such file or directory")  # as LXD 5.0.2 says
    assert driver.read_console("t1") == ""
    server.answers["GET", "/1.0/instances/t1/console"] = (500, "Failed to request console from liblxc")
    with pytest.raises(GiveUp, match="from liblxc"):
        driver.read_console("t1")


def test_a_thread_keeps_few_connections(driver: PylxdDriver) -> None:
    ours = Path("/proc/self/fd")
    before = len(list(ours.iterdir()))
    for number in range(20):
        with pytest.raises(GiveUp, match="no such instance"):
            driver.attach(f"t{number}", GPU, TAG)
    assert len(list(ours.iterdir())) - before <= 2 * 3, "the server's ends are counted too"


def test_a_forgotten_operation_is_looked_after(server: Server, driver: PylxdDriver) -> None:
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu, instance()]
    server.answers["PUT", "/1.0/instances/t1"] = (202, "gone")  # its wait is answered 404
    driver.detach("t1", "gpu-0000-01-00-0")


@pytest.mark.parametrize("name", ["", "..", "../images", "a/b", "a?x=1", "a b", "1a", "ü", "a" * 64])
def test_a_name_is_never_a_path(server: Server, driver: PylxdDriver, name: str) -> None:
    with pytest.raises(GiveUp, match="no name"):
        driver.attach(name, GPU, TAG)
    with pytest.raises(GiveUp, match="no name"):
        driver.delete(name, "alice")
    with pytest.raises(GiveUp, match="no name"):
        driver.create(InstanceSpec(name, "base", 1, 1, 1, "alice"), lambda _step, _percent: None)
    assert server.requests == []


def test_a_member_of_a_cluster_has_its_own_instances_only(server: Server, driver: PylxdDriver) -> None:
    """Any member lists all, and answers for each of them."""
    mine, theirs = instance(location="m1"), instance(name="t2", location="m2")
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    server.answers[("GET", "/1.0/instances")] = [[mine, theirs]]
    server.answers[("GET", "/1.0/instances/t2")] = theirs
    assert driver.doorways().keys() == {"t1"}
    assert driver.shares().keys() == {"t1"}
    with pytest.raises(GiveUp, match="no such instance"):
        driver.stop("t2")
    driver.delete("t2", "alice")
    with pytest.raises(GiveUp, match="m2, another member"):
        driver.create(InstanceSpec("t2", "base", 1, 512, 2, "alice"), lambda *_: None)
    server.answers[("GET", "/1.0/cluster/members")] = [[{"server_name": "m1"}, {"server_name": "m3"}]]
    with pytest.raises(GiveUp, match="it is on m2"):
        driver.move("t2", "m3", lambda *_: None)
    assert {method for method, _path in server.requests} == {"GET"}
