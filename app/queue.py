"""Tells a host's agent to look now: the only thing that Berth ever puts into a queue.

A wake carries no meaning but "look now". It is sent after the commit; lost, it costs one tick.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from uuid import uuid4

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer

from app.extensions import settings

log = logging.getLogger(__name__)

JOB = "workers.jobs.wake"
PATIENCE = 0.3  # seconds that a page may lose to a Valkey that does not answer
FORGET_AFTER = 60  # seconds: nobody took the wake, and every agent has looked by itself since


def queue_name(host_name: str) -> str:
    """The queue that the host's agent listens to."""
    return f"host-{host_name}"


def wake(host_name: str) -> None:
    """Ask the host's agent to look now. Never raises: without Valkey the agent looks at its next tick."""
    if not settings().redis_url:
        return
    try:
        _queue(settings().redis_url, queue_name(host_name)).enqueue_call(
            JOB,
            args=(host_name,),
            job_id=f"n-{uuid4()}",
            description="",
            timeout=10,
            result_ttl=0,
            failure_ttl=3600,
            ttl=FORGET_AFTER,
        )
    except (RedisError, OSError) as error:
        log.warning("host %s is not woken, it looks by itself at its next tick: %s", host_name, error)


def reachable(url: str = "") -> bool:
    """Whether a wake sent now would arrive; `url`: or whether Valkey answers there."""
    url = url or settings().redis_url
    try:
        return bool(url) and bool(_connection(url).ping())
    except (RedisError, OSError):
        return False


def length(host_name: str) -> int | None:
    """How many wakes wait for the host's agent; None where Valkey does not say."""
    try:
        return _queue(settings().redis_url, queue_name(host_name)).count if settings().redis_url else None
    except (RedisError, OSError):
        return None


@lru_cache(maxsize=256)
def _queue(url: str, name: str) -> Queue:
    return Queue(name, connection=_connection(url), serializer=JSONSerializer)


@lru_cache(maxsize=8)
def _connection(url: str) -> Redis:
    """One pool per process and server; it notices a fork by itself."""
    return Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=Retry(NoBackoff(), 1))
