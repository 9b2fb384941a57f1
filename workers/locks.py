"""Locks between processes of one machine; the kernel lets go of them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock; the text is what they wrote into it."""


@contextmanager
def exclusive(path: Path, *, wait: bool = True, note: str = "") -> Iterator[None]:
    """Hold the lock at `path` for the block. Raises Held at once if it is taken and `wait` is False."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Held(os.pread(handle, 200, 0).decode(errors="replace").strip()) from None
        if note:
            os.truncate(handle, 0)
            os.pwrite(handle, note.encode(), 0)
        yield
    finally:
        os.close(handle)


def pass_lock(folder: Path, host_name: str) -> Path:
    """The lock that is held around each pass over the host, by whoever makes it."""
    return folder / f"agent-{host_name}.lock"
