"""Whoever took over the portal has its login to Valkey: what can be done with it? Agents are root."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq import Callback, Queue
from rq.serializers import JSONSerializer

from app.extensions import db
from app.models import AuditEvent
from tests.runtime.running import Berth, wait_for, wakes

WAKE = ["workers.jobs.wake", None, ["sim1"], {}]
QUEUE = "rq:queue:host-sim1"


class Bomb:
    """Unpickled, it runs a program."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def web(berth: Berth) -> Redis:
    return berth.redis("web")


def refusals(berth: Berth) -> list[dict[str, Any]]:
    query = db.select(AuditEvent).where(AuditEvent.action == "job.refused").order_by(AuditEvent.id)
    with berth.app().app_context():
        rows = list(db.session.scalars(query))
    assert all((row.actor, row.target) == ("agent:sim1", "host:sim1") for row in rows)
    return [row.details for row in rows]


def push(web: Redis, data: bytes, **fields: str) -> str:
    """A job as RQ would write it, but for what is forged."""
    job = f"n-{uuid4()}"
    now = "2026-01-01T00:00:00.000000Z"
    known = {"created_at": now, "enqueued_at": now, "status": "queued", "origin": "host-sim1", "timeout": "30"}
    web.sadd("rq:queues", QUEUE)
    web.hset(f"rq:job:{job}", mapping={**known, "data": zlib.compress(data), **fields})
    web.rpush(QUEUE, job)
    return job


def status(berth: Berth, job: str) -> bytes | None:
    return berth.redis("agent").hget(f"rq:job:{job}", "status")


def forged(canary: Path) -> dict[str, tuple[bytes, dict[str, str]]]:
    touch = f"touch {canary}"
    wake = json.dumps(WAKE).encode()
    hook = json.dumps([{"url": "http://127.0.0.1:9/", "statuses": ["finished", "failed"]}])
    return {
        "any function": (json.dumps(["os.system", None, [touch], {}]).encode(), {}),
        "a builtin": (json.dumps(["builtins.eval", None, [f"open({str(canary)!r}, 'w')"], {}]).encode(), {}),
        "one of ours that is no job": (json.dumps(["app.schema.downgrade", None, ["x"], {}]).encode(), {}),
        "a pickle": (pickle.dumps(("os.system", None, (touch,), {})), {}),
        "a pickled bomb": (pickle.dumps(Bomb(canary)), {}),
        "an instance": (json.dumps(["wake", "workers.jobs", ["sim1"], {}]).encode(), {}),
        "other arguments": (json.dumps(["workers.jobs.wake", None, [{"a": 1}], {}]).encode(), {}),
        "success callback": (wake, {"success_callback_name": "os.system"}),
        "failure callback": (wake, {"failure_callback_name": "os.system"}),
        "stopped callback": (wake, {"stopped_callback_name": "os.system"}),
        "failing with a failure callback": (b"no json", {"failure_callback_name": "subprocess.getoutput"}),
        "webhook": (wake, {"webhooks": hook}),
        "dependency": (wake, {"dependency_ids": json.dumps(["n-other"])}),
        "retries": (wake, {"retries_left": "1000000"}),
        "nonsense": (b"\xff\x00", {"timeout": "never", "meta": "\x80", "created_at": "yesterday"}),
        "a long one": (json.dumps(["os.system", None, ["x" * 1_000_000], {}]).encode(), {}),
    }


@pytest.mark.parametrize("kind", forged(Path("/")))
def test_forged_job_fails_without_effect_and_with_one_line_of_audit(
    berth: Berth, web: Redis, tmp_path: Path, kind: str
) -> None:
    before = len(refusals(berth))
    data, fields = forged(tmp_path / "canary")[kind]
    job = push(web, data, **fields)
    wait_for(lambda: status(berth, job) == b"failed", why=f"{kind}: failed")
    wait_for(lambda: len(refusals(berth)) > before, why=f"{kind}: on record")
    assert wakes(berth)  # and the agent lives on
    assert len(refusals(berth)) == before + 1
    assert not (tmp_path / "canary").exists()
    assert all(len(text) <= 200 for text in refusals(berth)[-1].values())


def test_rq_itself_with_the_portals_login_gets_no_further(berth: Berth, web: Redis, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    before = len(refusals(berth))
    host_queue = Queue("host-sim1", connection=web, serializer=JSONSerializer)
    callback = Callback("os.system")
    job = host_queue.enqueue("os.system", f"touch {canary}", job_id=f"n-{uuid4()}", on_failure=callback)
    wait_for(lambda: status(berth, job.id) == b"failed", why="failed")
    wait_for(lambda: len(refusals(berth)) > before, why="on record")
    assert refusals(berth)[-1]["function"] == "os.system"
    assert not canary.exists()


@pytest.mark.parametrize("entry", [b"\xff\xfe", b"not an id!", b"n-of-no-job", b"a:b:c", b""])
def test_what_is_not_even_a_job_does_not_deafen_the_agent(berth: Berth, web: Redis, entry: bytes) -> None:
    web.rpush(QUEUE, entry)
    wait_for(lambda: wakes(berth, 1), why="wakes arrive")


@pytest.mark.parametrize("key", [QUEUE, f"{QUEUE}:intermediate"])
def test_a_queue_of_the_wrong_type_does_not_deafen_the_agent(berth: Berth, web: Redis, key: str) -> None:
    def spoilt() -> bool:
        try:
            return bool(web.hset(key, "a", "b"))
        except ResponseError:  # it holds a wake just now
            return False

    wait_for(spoilt, why="spoilt")
    wait_for(lambda: wakes(berth, 1), why="wakes arrive")


REFUSED = [
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "CONFIG SET dir /tmp", "ACL LIST", "ACL WHOAMI",
    "SHUTDOWN", "DEBUG SLEEP 1", "MONITOR", "SAVE", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "CLIENT LIST",
    "CLIENT KILL TYPE normal", "SUBSCRIBE rq:pubsub:x", "PUBLISH rq:pubsub:x stop", "EVAL return(1) 0", "SCRIPT FLUSH",
    "SET rq:suspended 1", "GET rq:workers", "SADD rq:workers x", "HGETALL rq:job:n-1", "HSET rq:job:other data x",
    "RPUSH rq:queue:default x", "LPOP rq:queue:host-sim1", "DEL rq:queue:host-sim1", "LRANGE rq:queue:host-sim1 0 -1",
    "HSET rq:worker:x death 1", "SET lab:x 1", "SET other 1", "RENAME LIMITS:a rq:suspended", "HSET LIMITS:x a b",
]  # fmt: skip


@pytest.mark.parametrize("command", REFUSED)
def test_portals_login_may_only_wake_and_count(web: Redis, command: str) -> None:
    with pytest.raises(RedisError, match=r"(?i)permission|not allowed"):
        web.execute_command(*command.split())


def test_portals_login_may_count(web: Redis) -> None:
    from limits import parse, strategies
    from limits.storage import RedisStorage

    pool = web.connection_pool
    storage = RedisStorage("redis://unused", connection_pool=pool)
    for kind in (
        strategies.FixedWindowRateLimiter,
        strategies.MovingWindowRateLimiter,
        strategies.SlidingWindowCounterRateLimiter,
    ):
        limiter, limit = kind(storage), parse("2/minute")
        assert [limiter.hit(limit, kind.__name__) for _ in range(3)] == [True, True, False]
        limiter.clear(limit, kind.__name__)
        assert limiter.hit(limit, kind.__name__)


def test_nobody_comes_in_without_a_login(berth: Berth) -> None:
    path = berth.data / "run" / "sockets" / "valkey.sock"
    with pytest.raises(RedisError, match=r"(?i)auth"):
        Redis(unix_socket_path=str(path)).ping()


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "CONFIG GET *", "KEYS *", "EVAL return(1) 0", "SHUTDOWN", "SET other 1"]
)
def test_agents_login_may_only_work_on_queues(berth: Berth, command: str) -> None:
    with pytest.raises(RedisError, match=r"(?i)permission"):
        berth.redis("agent").execute_command(*command.split())
