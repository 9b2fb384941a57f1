"""The only jobs there are. Whatever else arrives through Valkey is refused: whoever writes there is not trusted.

A stock RQ worker imports and calls any function that a job names, as callbacks too, and an agent is root. Here a job is
a name to be found in ALLOWED, and every other field of it is ignored or a reason to refuse.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job

LOOK = threading.Event()  # a pass is due
WORK = threading.Event()  # there may be operations to do
CHECK = threading.Event()  # the host may be examined again, if that was not done just now
DOORS = threading.Event()  # keys may have changed that belong into machines
SHARE = threading.Event()  # shared directories may have changed
READ = threading.Event()  # a log may be asked for
BRING = threading.Event()  # another way for NVIDIA's libraries may have been chosen
EVERY_ONE = (LOOK, WORK, CHECK, DOORS, SHARE, READ, BRING)

LARGEST = 1024  # bytes of a wake's data; more is no wake
SHOWN = 80  # characters of a refused job's function name that are kept
# Fields that would make RQ call, post, enqueue or repeat something.
FORBIDDEN = (
    "success_callback_name",
    "failure_callback_name",
    "stopped_callback_name",
    "webhooks",
    "dependency_id",
    "dependency_ids",
    "retries_left",
    "repeats_left",
    "group_id",
)


def wake(host_name: str) -> None:  # noqa: ARG001 - which host is clear from the queue; it is there for people to read
    """Look now."""
    for event in EVERY_ONE:
        event.set()


ALLOWED: Mapping[str, Callable[[str], None]] = MappingProxyType({"workers.jobs.wake": wake})


class Refused(Exception):
    """Not a job of Berth's."""


class SafeJob(Job):
    """A job that can do nothing but what ALLOWED holds, whatever was written into its hash."""

    refusal = ""

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> Job:  # noqa: A002 - RQ's name
        """The job, or NoSuchJobError: also for an id that RQ would stumble over."""
        try:
            return super().fetch(id, connection=connection, serializer=serializer)
        except (ValueError, TypeError) as error:
            raise NoSuchJobError(str(error)) from error

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Read what the job is to do, and note why it is refused, if it is. No other field is taken over."""
        fields = {key.decode(errors="replace"): value for key, value in raw_data.items()}
        try:
            self._func_name, self._args = _read(fields.get("data", b""))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is only refused
            self._func_name, self._args, self.refusal = "", (), f"unreadable: {type(error).__name__}"
        self._instance, self._kwargs = None, {}
        self.timeout, self.result_ttl, self.failure_ttl = 10, 0, 3600
        forged = [name for name in FORBIDDEN if fields.get(name)]
        if not self.refusal and self._func_name not in ALLOWED:
            self.refusal = "unknown function"
        elif not self.refusal and forged:
            self.refusal = "carries " + ", ".join(forged)

    @property
    def func(self) -> Callable[[str], None]:
        """The function, from ALLOWED; nothing is imported by name."""
        return self._refuse() if self.refusal else ALLOWED[str(self._func_name)]

    success_callback = failure_callback = stopped_callback = property(lambda _self: None)

    @property
    def shown_name(self) -> str:
        """The function's name as a record may hold it."""
        text = str(self._func_name)[:SHOWN]
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    def _refuse(self) -> NoReturn:
        raise Refused(self.refusal)


def _read(packed: bytes) -> tuple[str, tuple[str, ...]]:
    """Function name and arguments of a job as RQ's JSON serializer writes them."""
    if len(packed) > LARGEST:
        raise ValueError("too long")
    reader = zlib.decompressobj()
    name, instance, args, kwargs = json.loads(reader.decompress(packed, LARGEST).decode())
    if instance is not None or kwargs or len(args) != 1 or not all(isinstance(text, str) for text in (name, *args)):
        raise ValueError("not a wake")
    return name, tuple(args)
