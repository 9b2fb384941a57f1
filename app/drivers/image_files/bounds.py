"""What the sieve may use, and how far it reads: part of the program in sieve.py."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import hashlib
import lzma
import os
import resource
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MEMORY = 2 << 30  # bytes of address space: a million names, and the largest dictionary that xz makes by itself
SECONDS = 3600  # of a processor
MOST = 64 << 30  # bytes of everything in an image
LARGEST = MOST + (4 << 30)  # bytes of what is written: with a million names around it
RATIO, SMALL = 20, 64 << 20  # unpacked at most so many times its size, once it is larger than this many bytes
DAMAGE = (zlib.error, lzma.LZMAError)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
_EVERY = 16 << 20  # bytes between two words of how far it is
_KINDS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
)
_FOREIGN = {
    b"hsqs": "a squashfs", b"\x28\xb5\x2f\xfd": "packed with zstd", b"PK\x03\x04": "a zip", b"QFI\xfb": "a disk's image"
}  # fmt: skip


class RefusedError(Exception):
    """The image is not taken; the text says why, as the end of a sentence."""


class Hashed:
    """A file as it is read once from beginning to end, and the SHA-256 of all of it."""

    def __init__(self, file: Any, told: Callable[[int], None]) -> None:
        self._file, self._hash, self._told = file, hashlib.sha256(), told
        self._ahead = b""
        self._count = self._last = 0

    def peek(self, count: int) -> bytes:
        """The first bytes, which are read all the same later."""
        self._ahead = self._take(count)
        return self._ahead

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        if self._ahead:
            if count < 0:
                count = len(self._ahead)
            text, self._ahead = self._ahead[:count], self._ahead[count:]
            return text
        return self._take(count)

    def hexdigest(self) -> str:
        """Of the whole file: what lies behind the archive's end, too."""
        while self._take(1 << 20):
            pass
        return self._hash.hexdigest()

    def _take(self, count: int) -> bytes:
        text: bytes = self._file.read(count)
        self._hash.update(text)
        self._count += len(text)
        if self._count - self._last >= _EVERY:
            self._last = self._count
            self._told(self._count)
        return text

    def seekable(self) -> bool:
        """Never back: each byte is read once."""
        return False

    def readable(self) -> bool:
        """Of course."""
        return True

    @property
    def closed(self) -> bool:
        """Whether it can no longer be read."""
        return bool(self._file.closed)

    def flush(self) -> None:
        """Nothing is written."""


class Bounded:
    """What was packed, up to a limit: a few bytes can stand for a terabyte."""

    def __init__(self, file: Any, packed: int) -> None:
        self._file, self._most = file, min(MOST, max(SMALL, RATIO * packed))
        self.count = 0

    def read(self, count: int) -> bytes:
        """The next bytes."""
        text: bytes = self._file.read(count)
        self.add(len(text))
        return text

    def add(self, more: int) -> None:
        """So many bytes more. What is not packed either, the holes in a file, is to be told here."""
        self.count += more
        if self.count > self._most:
            raise RefusedError(f"unpacked it is larger than {self._most >> 20} MiB, too much for a file of its size")


@contextmanager
def unpacked(raw: Hashed, size: int) -> Iterator[Bounded]:
    """The archive without its packing, told by its first bytes."""
    first = raw.peek(512)
    for mark, name in _FOREIGN.items():
        if first.startswith(mark):
            raise RefusedError(f"it is {name}; Berth reads tar, tar.gz, tar.xz and tar.bz2 (lxc image export)")
    opened = next((make(raw) for mark, make in _KINDS if first.startswith(mark)), raw)
    yield Bounded(opened, size)


def confine(nobody: int) -> None:
    """Be nobody, without a way back, and end with whoever started this. `nobody` 0: stay who this is already."""
    if nobody:
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which takes it away
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)) if nobody else None
