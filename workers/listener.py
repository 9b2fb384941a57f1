"""The agent's ear: an RQ worker in a thread, for wakes and nothing else, through every absence of Valkey."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from app.queue import queue_name
from workers.jobs import LOOK, SafeJob

log = logging.getLogger(__name__)

TTL = 20  # seconds that RQ takes this worker for alive; one blocking read lasts 15 less
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between two attempts to reach Valkey
UNREACHABLE = (NoConnection, NoAnswer, NoPermissionError, OSError)

Refusal = Callable[[str, str], None]
"""Called with a refused job's function name and the reason."""


class NoPenalty(BaseDeathPenalty):
    """No alarm: the one job there is sets a flag, and signals belong to the main thread."""

    def setup_death_penalty(self) -> None:
        """Nothing."""

    def cancel_death_penalty(self) -> None:
        """Nothing."""


class HostQueue(Queue):
    """A host's queue; jobs lead to no other jobs."""

    trouble: Exception | None = None

    def enqueue_dependents(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing."""

    @classmethod
    def dequeue_any(cls, queues: list[HostQueue], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Wait for a job. Notes what went wrong: RQ would keep it to itself, or wait for Valkey in silence."""
        try:
            return super().dequeue_any(queues, *args, **kwargs)
        except DequeueTimeout:
            raise
        except Exception as error:
            queues[0].trouble = error
            raise StopRequested from error


class Ear(SimpleWorker):
    """RQ's worker without what wakes do not need: no signals, no commands over channels, no fork."""

    death_penalty_class = NoPenalty
    max_connection_wait_time = LONGEST_WAIT
    log_result_lifespan = False

    def _install_signal_handlers(self) -> None:
        """The agent has its own."""

    def subscribe(self) -> None:
        """No commands: whoever may publish could stop the agent."""

    def run_maintenance_tasks(self) -> None:
        """Registries of this queue only."""
        self.clean_registries()  # type: ignore[no-untyped-call]

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Do it as a job of the queue it came from, whatever it says."""
        job.origin = queue.name
        super().execute_job(job, queue)


class Listener:
    """Keeps an `Ear` at work. What it cannot hear costs a tick, no more."""

    def __init__(self, url: str, host_name: str, refused: Refusal) -> None:
        self.url, self.queue, self.refused = url, queue_name(host_name), refused

    def start(self) -> None:
        """Listen in a thread of its own, for as long as the process lives."""
        for name in ("rq.worker", "rq.job", "rq.queue"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it is said here
        threading.Thread(target=self._run, name="listener", daemon=True).start()

    def _run(self) -> None:
        wait, away = FIRST_WAIT, False
        while True:
            began = time.monotonic()
            try:
                trouble = self._listen(away)
            except Exception as error:  # noqa: BLE001 - RQ's own goodbye fails too when Valkey is gone
                trouble = error
            if time.monotonic() - began > LONGEST_WAIT:
                wait, away = FIRST_WAIT, False
            if isinstance(trouble, RedisError | OSError) and not isinstance(trouble, ResponseError):
                if not away:
                    log.warning("Valkey is away, looking at every tick instead: %s", trouble)
                away = True
            elif trouble is not None:
                log.warning("listening failed: %r", trouble)
            time.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    def _listen(self, was_away: bool) -> Exception | None:
        """Until Valkey goes away, or something in the queue is not even a job; says which."""
        connection = Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=TTL, retry=Retry(NoBackoff(), 0))
        connection.delete(f"rq:queue:{self.queue}:intermediate")  # of a worker that is gone
        if was_away:
            log.info("Valkey is back")
        LOOK.set()  # whatever was said while nobody listened
        queue = HostQueue(self.queue, connection=connection, job_class=SafeJob, serializer=JSONSerializer)
        ear = Ear(
            [queue],
            connection=connection,
            job_class=SafeJob,
            queue_class=HostQueue,
            serializer=JSONSerializer,
            worker_ttl=TTL,
            exception_handlers=[self._note],
            log_job_description=False,
        )
        ear.work(logging_level="CRITICAL")
        if queue.trouble is not None and not isinstance(queue.trouble, UNREACHABLE):
            connection.delete(f"rq:queue:{self.queue}", f"rq:queue:{self.queue}:intermediate")
            self.refused("", "not a job")
        return queue.trouble

    def _note(self, job: SafeJob, _kind: type[BaseException], error: BaseException, _trace: TracebackType) -> bool:
        if job.refusal:
            log.warning("refused job %s: %s: %s", job.id, job.shown_name or "?", job.refusal)
            self.refused(job.shown_name, job.refusal)
        else:
            log.warning("job %s failed: %r", job.id, error)
        return False
