"""Memory maps of processes: which files are mapped, by the number the kernel gives them."""

from __future__ import annotations

import os
import re

_MAPPED_FILE = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ (\S+ [1-9]\d*)", re.MULTILINE)
_LIMIT = 64 << 20  # bytes; the kernel allows 65,530 mappings


def mapped_files(pid: int) -> list[tuple[bytes, bytes]]:
    """Each mapping of a file: its span, as `maps` writes it, and the file's device and inode."""
    return _MAPPED_FILE.findall(_maps(pid))


def link(pid: int, span: bytes) -> bytes:
    """The kernel's link to what is mapped there. `maps` pads addresses with zeros to eight digits, `map_files` not."""
    start, _, end = span.partition(b"-")
    return b"/proc/%d/map_files/%s-%s" % (pid, start.lstrip(b"0") or b"0", end.lstrip(b"0") or b"0")


def _maps(pid: int) -> bytes:
    """A process's memory map; of another thread where the first one has ended."""
    if text := _read(f"/proc/{pid}/maps"):
        return text
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return b""
    return next((text for name in threads if (text := _read(f"/proc/{pid}/task/{name}/maps"))), b"")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""
