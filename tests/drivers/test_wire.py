"""The LXD driver against a server that misbehaves; needs no LXD."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests

from app.drivers import lxd
from app.drivers.base import GiveUp, GpuInfo, HostUnreachable, InstanceSpec, Tag, TryAgain
from app.drivers.images import Origin, builder_name
from app.drivers.lxd import PylxdDriver, instances, move, turns, updates, wire

GPU = GpuInfo("0000:01:00.0", "NVIDIA RTX A6000", 0)
TAG = Tag(1, 2, 3)
RUNNING, DONE = {"status_code": 103}, {"status_code": 200}


def instance(**more: Any) -> dict[str, Any]:
    return {
        "name": "t1", "type": "container", "status": "Running", "architecture": "x86_64", "ephemeral": False,
        "profiles": [], "description": "", "config": {}, "devices": {}, "expanded_config": {}, "expanded_devices": {},
    } | more  # fmt: skip


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers from `answers`: (method, path) → body, or (code, body), or a list of either, one per request."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.answers: dict[tuple[str, str], Any] = {
            ("GET", "/1.0"): {
                "auth": "trusted",
                "environment": {"server_name": "x", "server_version": "5.0.2", "server_pid": 0},
            },
            ("GET", "/1.0/operations"): {},
        }
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        super().__init__(path, Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        key = (self.command, self.path.partition("?")[0])
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.server.requests.append(key)
        answer = self.server.answers.get(key, (404, "not found"))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer()
        code, body = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(body, bytes):
            data = body
        elif code >= 400:
            data = json.dumps({"type": "error", "error": body, "error_code": code}).encode()
        elif code == 202:
            data = json.dumps({"type": "async", "operation": f"/1.0/operations/{body}", "metadata": {}}).encode()
        else:
            data = json.dumps({"type": "sync", "status_code": 200, "metadata": body}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", "e1")
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(str(tmp_path / "unix.socket")) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def driver(server: Server) -> PylxdDriver:
    return PylxdDriver(str(server.server_address))


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


def test_an_update_refused_for_its_etag_is_made_again(server: Server, driver: PylxdDriver) -> None:
    done = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "gputype": "physical", "pci": "0000:01:00.0"}},
                    config={"user.berth.gpu-0000-01-00-0": str(TAG)})  # fmt: skip
    server.answers["GET", "/1.0/instances/t1"] = [instance(), instance(), instance(), done]
    server.answers["PUT", "/1.0/instances/t1"] = [
        (412, "ETag doesn't match: a vs b"), (202, "op1"), (202, "op2"),
    ]  # fmt: skip
    busy = {"status_code": 400, "err": "A matching non-reusable operation has now succeeded"}
    server.answers["GET", "/1.0/operations/op1/wait"] = busy
    server.answers["GET", "/1.0/operations/op2/wait"] = {"status_code": 200}
    driver.attach("t1", GPU, TAG)
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 3


def test_a_change_waits_for_its_turn_among_any_number_of_others(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "PAUSE", 0.01)
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu] * 21 + [instance()]
    theirs = (400, "Failed to create instance update operation: A matching non-reusable operation has now succeeded")
    server.answers["PUT", "/1.0/instances/t1"] = [theirs] * 20 + [(202, "op")]
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 21
    monkeypatch.setattr(lxd, "DETACH_TIMEOUT", 0.2)
    server.answers["GET", "/1.0/instances/t1"], server.answers["PUT", "/1.0/instances/t1"] = with_gpu, theirs
    with pytest.raises(TryAgain, match="has now succeeded"):  # nor does it wait for ever
        driver.detach("t1", "gpu-0000-01-00-0")


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


NO_ROOM = 'Failed to write backup file: open "/x/containers/t1/backup.yaml": disk quota exceeded'


def test_a_change_that_a_full_disk_could_not_be_told_of_is_made(server: Server, driver: PylxdDriver) -> None:
    """LXD unplugs the GPU, and then fails to note that on the machine's own disk."""
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "gputype": "physical", "pci": "0000:01:00.0"}},
                        config={"user.berth.gpu-0000-01-00-0": str(TAG)})  # fmt: skip
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu, instance()]
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": NO_ROOM}
    driver.detach("t1", "gpu-0000-01-00-0")


def test_a_change_that_a_full_disk_keeps_from_being_made_is_no_success(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": NO_ROOM}
    with pytest.raises(GiveUp, match="the machine's disk is full") as refused:
        driver.attach("t1", GPU, TAG)
    assert "give it a larger disk" in refused.value.todo
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 2


def test_what_zfs_cannot_put_back_is_said_in_plain_words(server: Server, driver: PylxdDriver) -> None:
    words = 'Snapshot "s" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override'
    server.answers |= {
        ("GET", "/1.0/instances/t1"): instance(status="Stopped"),
        ("GET", "/1.0/instances/t1/snapshots/s"): {"name": "s"},
        ("PUT", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): {"status_code": 400, "err": words},
    }
    with pytest.raises(GiveUp, match="the newest snapshot only") as refused:
        driver.restore("t1", "s")
    assert refused.value.todo == "Delete the newer ones first."


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_a_change_that_anothers_undoes_is_made_again(server: Server, driver: PylxdDriver, name: str) -> None:
    """Both have passed LXD's ETag check, and theirs is made after ours."""
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    theirs = {"description": "Updating instance", "resources": {"instances": [f"/1.0/instances/{name}"]}}
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [with_gpu, instance(), with_gpu, instance()],
        ("PUT", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
        ("GET", "/1.0/operations"): [{"running": [theirs]}, {"running": [theirs]}, {"success": [theirs]}],
    }
    driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == (2 if name == "t1" else 1)


def test_anothers_change_that_hangs_keeps_nobody_waiting_for_ever(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "OTHERS", 0.05)
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    theirs = {"description": "Updating instance", "resources": {"instances": ["/1.0/instances/t1"]}}
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [with_gpu, instance()],
        ("PUT", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
        ("GET", "/1.0/operations"): {"running": [theirs]},
    }
    driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("GET", "/1.0/instances/t1")) == 2


def test_an_update_that_never_takes_is_not_called_done(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 200}
    with pytest.raises(TryAgain, match="not so"):
        driver.attach("t1", GPU, TAG)


def test_while_a_change_hangs_no_other_one_is_made(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lxd, "DETACH_TIMEOUT", 0.1)
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    server.answers["GET", "/1.0/instances/t1"] = with_gpu
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = server.answers["GET", "/1.0/operations/op"] = RUNNING
    for _ in range(3):
        with pytest.raises(TryAgain, match="still at"):
            driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 1
    server.answers["GET", "/1.0/operations/op"] = server.answers["GET", "/1.0/operations/op/wait"] = DONE
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu, instance()]
    driver.detach("t1", "gpu-0000-01-00-0")


def test_a_stop_waits_for_its_turn(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1/state"] = [
        (400, 'Instance is busy running a "update" operation'), (202, "refused"), (202, "op"),
    ]  # fmt: skip
    busy = {"status_code": 400, "err": 'Instance is busy running a "update" operation'}
    server.answers["GET", "/1.0/operations/refused/wait"] = busy
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.stop("t1", force=True)
    assert server.requests.count(("PUT", "/1.0/instances/t1/state")) == 3


@pytest.mark.parametrize("times", [1, 3])
def test_a_start_that_lxd_fails_now_and_then_is_asked_for_again(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(instances, "START_PAUSE", 0)
    server.answers["GET", "/1.0/instances/t1"] = instance(status="Stopped")
    server.answers["PUT", "/1.0/instances/t1/state"] = [(202, "failed")] * times + [(202, "op")]
    words = "Failed to handle idmapped storage: Failed to change ownership of: /pool/t1/rootfs/etc/hosts"
    server.answers["GET", "/1.0/operations/failed/wait"] = {"status_code": 400, "err": words}
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    if times == instances.START_TRIES:
        with pytest.raises(GiveUp, match="change ownership of"):
            driver.start("t1")
    else:
        driver.start("t1")
    asked = server.requests.count(("PUT", "/1.0/instances/t1/state"))
    assert asked == min(times + 1, instances.START_TRIES)


@pytest.mark.parametrize("obeyed", [True, False])
def test_a_restart_is_a_stop_and_a_start(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch, *, obeyed: bool
) -> None:
    """LXD's own starts it with a GPU that was taken from it meanwhile."""
    monkeypatch.setattr(instances, "START_PAUSE", 0)
    up, off = instance(), instance(status="Stopped")
    server.answers["GET", "/1.0/instances/t1"] = [up, off] if obeyed else [up, up, off]
    deaf = [] if obeyed else [(202, "deaf")]
    server.answers["PUT", "/1.0/instances/t1/state"] = [*deaf, (202, "op"), (202, "failed"), (202, "op")]
    late = {"status_code": 400, "err": 'Failed shutting down instance, status is "Running": context deadline exceeded'}
    server.answers["GET", "/1.0/operations/deaf/wait"] = late
    failed = {"status_code": 400, "err": "Failed to run: lxd forkstart t1"}
    server.answers["GET", "/1.0/operations/failed/wait"] = failed
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.restart("t1")
    asked = [
        (sent["action"], sent["force"]) for body in server.bodies if b"action" in body and (sent := json.loads(body))
    ]
    stops = [("stop", False)] if obeyed else [("stop", False), ("stop", True)]
    assert asked == [*stops, ("start", False), ("start", False)]


BUSY = 'Failed creating instance record: Instance is busy running a "create" operation'
THERE = 'Failed creating instance record: Add instance info to the database: This "instances" entry already exists'


@pytest.mark.parametrize(("words", "still"), [(BUSY, True), (BUSY, False), (THERE, False)])
def test_a_creation_that_somebody_else_asks_for_first_is_joined(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch, words: str, *, still: bool
) -> None:
    """Theirs begins between our look and our request. It may be over when we look again."""
    monkeypatch.setattr(turns, "PAUSE", 0)
    half = instance(config={"user.berth.owner": "alice", "user.berth.making": "true"})
    theirs = {"id": "theirs", "class": "task", "resources": {"instances": ["/1.0/instances/t1"]}}
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [(404, "not found"), half],
        ("GET", "/1.0/operations"): [{}, {"running" if still else "success": [theirs]}],
        ("GET", "/1.0/images"): [[{"type": "container", "aliases": [{"name": "base"}]}]],
        ("GET", "/1.0/networks"): [[]],
        ("GET", "/1.0/profiles/default"): {"devices": {"root": {"type": "disk", "path": "/", "pool": "pool"}}},
        ("POST", "/1.0/instances"): (202, "ours"),
        ("GET", "/1.0/operations/ours/wait"): {"status_code": 400, "err": words},
        ("GET", "/1.0/operations/theirs/wait"): [RUNNING, DONE] if still else DONE,
        ("PATCH", "/1.0/instances/t1"): None,
        ("GET", "/1.0/instances/t1/state"): {"status": "Running", "pid": 5},
    }
    driver.create(InstanceSpec("t1", "base", 1, 256, 1, "alice"), lambda _step, _percent: None)
    asked = [request for request in server.requests if request[0] != "GET"]
    assert asked == [("POST", "/1.0/instances"), ("PATCH", "/1.0/instances/t1")], "the half of it is not removed"
    assert json.loads(server.bodies[server.requests.index(asked[1])])["config"]["user.berth.making"] == ""


def test_half_of_what_lxd_died_at_is_not_taken_for_the_whole(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is back so soon that nobody saw it away, and knows nothing of what it was asked for."""
    monkeypatch.setattr(turns, "PAUSE", 0)
    half = instance(config={"user.berth.owner": "alice", "user.berth.making": "true"})
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [(404, "not found"), half],
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/images"): [[{"type": "container", "aliases": [{"name": "base"}]}]],
        ("GET", "/1.0/networks"): [[]],
        ("GET", "/1.0/profiles/default"): {"devices": {"root": {"type": "disk", "path": "/", "pool": "pool"}}},
        ("POST", "/1.0/instances"): (202, "ours"),
        ("GET", "/1.0/operations/ours/wait"): (404, "not found"),
    }
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        driver.create(InstanceSpec("t1", "base", 1, 256, 1, "alice"), lambda _step, _percent: None)
    assert [method for method, _path in server.requests if method != "GET"] == ["POST"], "the mark stays"


HALF = (500, 'Failed to write backup file: Failed to create file "/var/lib/lxd/containers/t1/backup.yaml"')
GONE, NEW = (404, "not found"), ("POST", "/1.0/instances")


def test_half_of_what_lxd_died_at_is_removed(server: Server, driver: PylxdDriver) -> None:
    """LXD lifts its protection, and then says that this failed: there is no disk to note it on. What has none is not
    changed: on btrfs LXD would make a directory for the note, and then could not remove that."""
    builder, owner = builder_name(7), {"user.berth.owner": "alice"}
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/images"): None,
        ("GET", "/1.0/networks"): None,
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    for name, config, protected in (
        (builder, {"user.berth.builder": "7"}, "false"),
        ("t1-OLD", owner, "false"),
        ("t1-MOVED", owner, "1"),
    ):
        expanded = config | {"security.protection.delete": protected}
        half = instance(name=name, status="Stopped", config=config, expanded_config=expanded)
        looks = 2 if name == builder else 1
        server.answers["GET", f"/1.0/instances/{name}"] = [*[half] * looks, GONE]
        server.answers["PATCH", f"/1.0/instances/{name}"] = HALF
        server.answers["DELETE", f"/1.0/instances/{name}"] = (202, "op")
    driver.scrap(7)
    driver.delete("t1", "alice")
    asked = [(method, path.rpartition("/")[2]) for method, path in server.requests if method != "GET"]
    assert asked == [("DELETE", builder), ("DELETE", "t1-OLD"), ("PATCH", "t1-MOVED"), ("DELETE", "t1-MOVED")]


def test_what_stays_protected_is_told_with_the_reason(server: Server, driver: PylxdDriver) -> None:
    config = {"user.berth.owner": "alice", "security.protection.delete": "true"}
    server.answers["GET", "/1.0/instances/t1"] = instance(status="Stopped", config=config, expanded_config=config)
    server.answers["PATCH", "/1.0/instances/t1"] = [(400, "Instance is busy running a stop operation"), HALF]
    server.answers["DELETE", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": "Container is protected"}
    with pytest.raises(GiveUp, match="write backup file"):
        driver.delete("t1", "alice")
    assert server.requests.count(("PATCH", "/1.0/instances/t1")) == 2


def test_what_somebody_else_has_done_since_the_look_is_done(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 0)
    gone, ours = (404, "not found"), instance(status="Stopped", config={"user.berth.owner": "alice"})
    busy = 'Failed creating instance snapshot record "s": Instance is busy running a "create" operation'
    deleted = "Failed to create instance delete operation: A matching non-reusable operation has now succeeded"
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/operations/taken/wait"): {"status_code": 400, "err": busy},
        ("GET", "/1.0/operations/deleted/wait"): {"status_code": 400, "err": deleted},
        ("GET", "/1.0/instances/t1"): ours,
        ("POST", "/1.0/instances/t1/snapshots"): (202, "taken"),
        ("GET", "/1.0/instances/t1/snapshots/s"): [gone, {"name": "s"}],
    }
    driver.snapshot("t1", "s")
    server.answers["GET", "/1.0/instances/t1/snapshots/s"] = [{"name": "s"}, gone]
    driver.forget("t1", "s")  # the request itself is answered 404 here, as is that for another name
    server.answers["GET", "/1.0/instances/t1"] = [ours, gone]
    server.answers["GET", "/1.0/instances/t2"] = [gone, ours]
    driver.rename("t1", "t2")
    server.answers["GET", "/1.0/instances/t1"] = [ours, gone]
    server.answers["DELETE", "/1.0/instances/t1"] = (202, "deleted")
    driver.delete("t1", "alice")
    asked = [method for method, _path in server.requests if method != "GET"]
    assert asked == ["POST", "DELETE", "POST", "DELETE"], "each of them once"


def test_what_lxd_is_still_at_is_waited_for_no_longer_than_it_may_take(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 0)
    monkeypatch.setattr(turns, "TRIES", 3)
    server.answers["GET", "/1.0/instances/t1"] = instance(config={"user.berth.owner": "alice"}, status="Stopped")
    server.answers["DELETE", "/1.0/instances/t1"] = (400, 'Instance is busy running a "copy" operation')
    with pytest.raises(TryAgain, match='a "copy" operation'):
        driver.delete("t1", "alice")
    assert server.requests.count(("DELETE", "/1.0/instances/t1")) == 3


def test_a_copy_that_lxd_died_at_is_removed_and_the_original_stays(server: Server, driver: PylxdDriver) -> None:
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    half = instance(name="t1-MOVED", status="Stopped", location="m2")
    protected = {"security.protection.delete": "true"}
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/cluster/members"): [[{"server_name": "m1"}, {"server_name": "m2"}]],
        ("GET", "/1.0/instances/t1"): instance(status="Stopped", location="m1", config=protected),
        ("GET", "/1.0/instances/t1/snapshots"): None,
        ("POST", "/1.0/instances"): (202, "copy"),  # its wait is answered 404: LXD is back so soon
        ("GET", "/1.0/instances/t1-MOVED"): [GONE, half, GONE],
        ("GET", "/1.0/instances/t1-MOVED/snapshots"): None,
        ("DELETE", "/1.0/instances/t1-MOVED"): (202, "op"),
        ("PATCH", "/1.0/instances/t1"): None,
        ("DELETE", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        driver.move("t1", "m2", lambda *_: None)
    assert [path for method, path in server.requests if method == "DELETE"] == ["/1.0/instances/t1-MOVED"]
    assert protection(server, NEW) == "false", "else half of it could not be removed"


def test_an_original_that_lxd_died_at_removing_is_gone_before_its_copy_has_its_name(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next try would take away the copy, the only whole one."""
    monkeypatch.setattr(move, "_copy", lambda *_: None)
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    there, freed = (
        instance(status="Stopped", location="m1", expanded_config={"security.protection.delete": protected})
        for protected in ("true", "false")
    )
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/cluster/members"): [[{"server_name": "m1"}, {"server_name": "m2"}]],
        ("GET", "/1.0/instances/t1"): instance(status="Stopped", location="m1"),
        ("POST", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/instances/t1-OLD"): [GONE, there, freed, GONE],
        ("PATCH", "/1.0/instances/t1-OLD"): None,
        ("DELETE", "/1.0/instances/t1-OLD"): [(202, "gone"), (202, "op")],
        ("GET", "/1.0/instances/t1-MOVED"): [GONE, instance(name="t1-MOVED", location="m2")],
        ("POST", "/1.0/instances/t1-MOVED"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    driver.move("t1", "m2", lambda *_: None)
    asked = [method for method, _path in server.requests if method != "GET"]
    assert asked == ["POST", "PATCH", "DELETE", "DELETE", "POST"]


@pytest.mark.parametrize("step", ["PUT", "POST"])
def test_a_copy_whose_last_steps_lxd_died_at_is_not_called_moved(
    server: Server, driver: PylxdDriver, step: str
) -> None:
    """Its NICs, or its name, may be missing."""
    config = {move.NICS: "{}", "security.protection.delete": "false"}
    moved = instance(name="t1-MOVED", status="Stopped", location="m2", config=config)
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/instances/t1-OLD"): GONE,
        ("GET", "/1.0/instances/t1-MOVED"): moved,
        ("PUT", "/1.0/instances/t1-MOVED"): (202, "gone" if step == "PUT" else "op"),
        ("POST", "/1.0/instances/t1-MOVED"): (202, "gone"),
        ("GET", "/1.0/operations/op/wait"): DONE,
    }
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        driver.move("t1", "m2", lambda *_: None)
    assert server.requests[-2][0] == step, "and then its wait"
    assert protection(server, ("PUT", "/1.0/instances/t1-MOVED")) == "true", "as the original had it"


def protection(server: Server, request: tuple[str, str]) -> str:
    """What a request for an instance said of it."""
    config: dict[str, str] = json.loads(server.bodies[server.requests.index(request)])["config"]
    return config["security.protection.delete"]


def backed_up(driver: PylxdDriver) -> object:
    return driver.backup("t1", "", Path(driver._wire.socket).with_name("file"), 1 << 30, lambda *_: None)


def prepared(driver: PylxdDriver, **origin: str) -> object:
    return driver.prepare(7, Origin(**origin), lambda *_: None)


T1, BUILDER = "/1.0/instances/t1", f"/1.0/instances/{builder_name(7)}"
COPIED = {("POST", "/1.0/instances"): (202, "op")}
DISK = {"root": {"type": "disk", "path": "/", "pool": "pool"}}


@pytest.mark.parametrize(
    ("act", "answers", "asked"),
    [
        (lambda driver: driver.snapshot("t1", "s"), {}, [("POST", f"{T1}/snapshots"), ("DELETE", f"{T1}/snapshots/s")]),
        (lambda driver: driver.restore("t1", "s"), {("GET", f"{T1}/snapshots/s"): {"name": "s"}}, [("PUT", T1)]),
        (lambda driver: driver.publish(7, "", lambda *_: None), {}, [("POST", "/1.0/images")]),
        (lambda driver: prepared(driver, alias="base"), {}, [NEW]),
        (lambda driver: prepared(driver, instance="t1"), COPIED, [NEW, ("PUT", BUILDER)]),
        (backed_up, {}, [NEW]),
        (backed_up, COPIED, [NEW, ("PUT", T1)]),
        (backed_up, COPIED | {("PUT", T1): (202, "op")}, [NEW, ("PUT", T1), ("POST", f"{T1}/backups")]),
    ],
    ids=["snapshot", "restore", "publish", "builder", "strip", "copy", "stripped copy", "pack"],
)
def test_half_of_what_lxd_died_at_is_not_gone_on_with(
    server: Server, driver: PylxdDriver, act: Any, answers: dict[tuple[str, str], Any], asked: list[tuple[str, str]]
) -> None:
    """What is answered (202, "gone") is waited for in vain: LXD was restarted and knows nothing of it."""
    more = {"expanded_config": {"nvidia.runtime": "true"}, "expanded_devices": DISK, "status": "Stopped"}
    machine = instance(**more)
    server.answers["GET", "/1.0"]["api_extensions"] = ["projects"]
    server.answers |= {
        ("GET", "/1.0/operations"): {},
        ("GET", "/1.0/operations/op/wait"): DONE,
        ("GET", "/1.0/images"): [[{"type": "container", "aliases": [{"name": "base"}]}]],
        ("GET", "/1.0/networks"): [[]],
        ("GET", "/1.0/profiles/default"): {"devices": DISK | {"eth0": {"type": "nic"}}},
        ("GET", "/1.0/projects/berth-backups"): {},
        ("GET", "/1.0/instances"): None,
        ("GET", T1): [machine, GONE, *([machine] if answers else []), GONE] if act is backed_up else machine,
        ("GET", f"{T1}/state"): {"disk": {"root": {"usage": 1}}},
        ("GET", BUILDER): instance(name=builder_name(7), **more),
        **{(method, path): (202, "gone") for method in ("POST", "PUT") for path in (T1, BUILDER)},
        **{("POST", path): (202, "gone") for path in ("/1.0/instances", "/1.0/images", f"{T1}/snapshots")},
        ("POST", f"{T1}/backups"): (202, "gone"),
        **answers,
    }  # fmt: skip
    with pytest.raises(TryAgain, match="LXD went away in the middle of it"):
        act(driver)
    assert [request for request in server.requests if request[0] != "GET"] == asked
    assert NEW not in asked or protection(server, NEW) == "false", "else half of it could not be removed"


def test_a_rename_that_lxd_died_at_is_looked_after(server: Server, driver: PylxdDriver) -> None:
    stopped = instance(status="Stopped")
    server.answers["GET", "/1.0/instances/t1"] = [stopped, stopped, GONE]
    server.answers["GET", "/1.0/instances/t2"] = [GONE, GONE, stopped]
    server.answers["POST", "/1.0/instances/t1"] = [(202, "gone"), (202, "op")]
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.rename("t1", "t2")
    assert server.requests.count(("POST", "/1.0/instances/t1")) == 2


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


def test_a_device_error_is_told_in_lxds_words(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    words = 'Failed to start device "gpu-0000-01-00-0": Failed to detect requested GPU device'
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": words}
    with pytest.raises(GiveUp, match="Failed to detect") as caught:
        driver.attach("t1", GPU, TAG)
    assert caught.value.detail == words
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 1


def test_a_machine_that_does_not_shut_down_can_be_forced(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1/state"] = (202, "op")
    failed = {"status_code": 400, "err": 'Failed shutting down instance, status is "Running": context deadline'}
    server.answers["GET", "/1.0/operations/op/wait"] = failed
    with pytest.raises(TryAgain, match="did not shut down") as caught:
        driver.stop("t1")
    assert "at once" in caught.value.todo
    server.answers["GET", "/1.0/operations/op/wait"] = [failed, {"status_code": 200}]
    driver.restart("t1")  # after a clean one that was not obeyed, a forced one


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


def test_what_a_rebuild_or_a_move_has_left_is_deleted_on_whichever_member_it_is(
    server: Server, driver: PylxdDriver
) -> None:
    server.answers[("GET", "/1.0")]["environment"] |= {"server_clustered": True, "server_name": "m1"}
    for end, status in (("NEW", "Running"), ("MOVED", "Stopped")):
        left = instance(name=f"t1-{end}", status=status, location="m2", config={"user.berth.owner": "alice"})
        looks = 2 if status == "Running" else 1  # the stop looks too
        server.answers["GET", f"/1.0/instances/t1-{end}"] = [*[left] * looks, (404, "not found")]
        server.answers["DELETE", f"/1.0/instances/t1-{end}"] = (202, "op")
    server.answers["PUT", "/1.0/instances/t1-NEW/state"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    there = instance(status="Stopped", location="m2", config={"user.berth.owner": "alice"})
    server.answers["GET", "/1.0/instances/t1"] = there
    server.answers["DELETE", "/1.0/instances/t1"] = (202, "op")
    driver.delete("t1", "alice")
    left = [
        ("PUT", "/1.0/instances/t1-NEW/state"),
        ("DELETE", "/1.0/instances/t1-NEW"),
        ("DELETE", "/1.0/instances/t1-MOVED"),
    ]
    assert [request for request in server.requests if request[0] != "GET"] == left
    server.answers["GET", "/1.0/instances/t1"] = [there, GONE]
    driver.delete("t1", "alice", anywhere=True)  # a move may have come as far as its last step
    assert [request for request in server.requests if request[0] != "GET"] == [*left, ("DELETE", "/1.0/instances/t1")]
