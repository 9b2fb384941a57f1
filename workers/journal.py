"""What was measured and is not delivered yet, on disk: one file per batch, each line a few parts with a checksum.

A file that may have been delivered is never added to, so that a batch of one name always holds the same. Whatever is
killed while it writes leaves a torn last line, and that is all that is lost.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import astuple
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any
from zlib import crc32

from app.services.samples import Part

log = logging.getLogger(__name__)

MOST_PARTS = 2000  # of a batch
MOST_BYTES = 64 << 20  # of all that waits; 8 GPUs make some 6 MB a day
LONGEST = 14 * 86_400  # seconds for which it waits
_SUFFIX, _ASIDE = ".parts", ".refused"


class Journal:
    """Of one host's agent. Safe to use from two threads: one that writes and one that delivers."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self._most_bytes = folder, most_bytes
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._parts = 0  # in that file

    def write(self, parts: Collection[Part]) -> None:
        """Keep these; when it returns they are written. Raises OSError, and then none of them is kept."""
        text = json.dumps([_row(part) for part in parts], separators=(",", ":")).encode()
        with self._lock:
            if self._file is None or self._parts + len(parts) > MOST_PARTS:
                self._begin()
            assert self._file is not None
            self._parts += len(parts)
            length = self._file.tell()
            try:
                _append(self._file, b"%08x %s\n" % (crc32(text), text))
            except OSError:
                self._take_back(length)
                raise
            try:
                os.fsync(self._file.fileno())
            except OSError as error:  # it is written, and to be counted once
                log.warning("what GPUs did may not be on the disk yet: %s", error)

    def seal(self) -> list[Path]:
        """Everything that waits, oldest first, but for what is too old; from now on none of it is added to."""
        with self._lock:
            self._finish()
            self._trim()
            return self._waiting()

    def read(self, path: Path) -> list[Part]:
        """The parts of one batch, without a torn line."""
        parts = []
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                if int(line[:8], 16) == crc32(line[9:]):
                    parts += [_part(row) for row in json.loads(line[9:])]
        return parts

    def done(self, path: Path) -> None:
        """It has been delivered."""
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> None:
        """It cannot be delivered, ever, and keeps no other one waiting; somebody may want to look at it."""
        path.replace(path.with_suffix(_ASIDE))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._finish()

    def _begin(self) -> None:
        self._finish()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._trim()
        # By name in the order of time, and never the same twice, whatever the clock was set to.
        self._file = (self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}{_SUFFIX}").open("xb", buffering=0)
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _finish(self) -> None:
        file, self._file, self._parts = self._file, None, 0
        if file is not None:
            file.close()

    def _take_back(self, length: int) -> None:
        """Of what could not be written, nothing is left: on a full disk there would be one more file at each attempt.
        Where that fails too, nothing comes after a line that may be torn."""
        assert self._file is not None
        with suppress(OSError):
            self._file.truncate(length)
            if not length:
                Path(self._file.name).unlink()
        self._finish()

    def _waiting(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def _trim(self) -> None:
        """Without a database for weeks the oldest goes: a disk that is full would be worse."""
        sizes = {}
        for path in [*sorted(self.folder.glob(f"*{_ASIDE}")), *self._waiting()]:
            with suppress(OSError):  # it has been delivered meanwhile, or the disk does not say
                sizes[path] = path.stat()
        total = sum(found.st_size for found in sizes.values())
        for path, found in sizes.items():
            if total <= self._most_bytes and time.time() - found.st_mtime < LONGEST:
                continue
            log.warning("what GPUs did is forgotten, it waits for too long or is too much: %s", path.name)
            with suppress(OSError):  # it will be tried again
                path.unlink(missing_ok=True)
            total -= found.st_size


def _append(file: FileIO, line: bytes) -> None:
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _row(part: Part) -> list[Any]:
    address, minute, *rest = astuple(part)
    return [address, int(minute.timestamp()), *rest]


def _part(row: list[Any]) -> Part:
    address, minute, *rest = row
    return Part(address, datetime.fromtimestamp(minute, UTC), *rest)
