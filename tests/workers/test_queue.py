"""A wake: what it looks like, what it costs, and what it costs when nobody takes it."""

from __future__ import annotations

import json
import logging
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis

from app import queue
from app.config import Settings
from tests.runtime.running import wait_for
from workers import embedded_valkey, os_users
from workers.children import Child, stop_all

PASSWORDS = {"web": "portal", "agent": "host"}


@pytest.fixture(scope="module")
def valkey() -> Iterator[Path]:
    """The embedded Valkey alone; the directory of its socket."""
    directory = Path(tempfile.mkdtemp(prefix="valkey-", dir="/tmp"))  # a socket's path must be short
    user = os_users.server_user(os_users.DATABASE)
    os_users.own(directory, user, 0o711)
    server: Child = embedded_valkey.child(directory, directory / "log", user, PASSWORDS)
    server.start()
    try:
        url = embedded_valkey.url("web", "portal", directory)
        wait_for(lambda: embedded_valkey.answers(url), why="Valkey")
        yield directory
    finally:
        stop_all([server], 5)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def app_with(redis_url: str, tmp_path: Path) -> Flask:
    app = Flask("portal")
    environment = {"BERTH_DATA": str(tmp_path), "DATABASE_URL": "postgresql://nowhere/x"}
    app.extensions["berth"] = Settings.load(environment | ({"REDIS_URL": redis_url} if redis_url else {}))
    return app


def test_a_wake_names_one_function_and_the_host_and_nothing_else(valkey: Path, tmp_path: Path) -> None:
    with app_with(embedded_valkey.url("web", "portal", valkey), tmp_path).app_context():
        assert queue.reachable()
        assert queue.length("ws1") == 0
        queue.wake("ws1")
        assert queue.length("ws1") == 1
    agent = Redis.from_url(embedded_valkey.url("agent", "host", valkey))
    job = agent.lpop("rq:queue:host-ws1")
    assert job.startswith(b"n-")
    fields = agent.hgetall(b"rq:job:" + job)
    assert json.loads(zlib.decompress(fields[b"data"])) == ["workers.jobs.wake", None, ["ws1"], {}]
    assert not any(fields[name] for name in fields if name.endswith(b"callback_name"))
    assert 0 < agent.ttl(b"rq:job:" + job) <= 60  # one that nobody takes is forgotten


def test_a_wake_costs_less_than_a_millisecond_of_cpu(valkey: Path, tmp_path: Path) -> None:
    with app_with(embedded_valkey.url("web", "portal", valkey), tmp_path).app_context():
        queue.wake("ws1")
        assert min(_cost(40) for _ in range(5)) < 0.001, "in some of the rounds no garbage is collected"


def _cost(wakes: int) -> float:
    began = time.process_time()
    for _ in range(wakes):
        queue.wake("ws1")
    return (time.process_time() - began) / wakes


def test_without_valkey_a_wake_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with app_with(f"unix://web:x@{tmp_path}/nobody.sock", tmp_path).app_context(), caplog.at_level(logging.WARNING):
        queue.wake("ws1")
        assert not queue.reachable()
    assert "host ws1 is not woken" in caplog.text


def test_without_an_address_nothing_is_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with app_with("", tmp_path).app_context(), caplog.at_level(logging.WARNING):
        queue.wake("ws1")
        assert not queue.reachable()
    assert caplog.text == ""


def test_a_valkey_that_hangs_costs_a_page_little(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen()
        with app_with(f"unix://web:x@{tmp_path}/deaf.sock", tmp_path).app_context():
            began = time.monotonic()
            queue.wake("ws1")
            assert time.monotonic() - began < 10, "without limits it would wait for ever"
