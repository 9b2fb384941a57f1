"""Small files in which an agent keeps what it has to know of its host where the database does not say."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def keep(path: Path, text: str) -> None:
    """Whole, or as it was: a full disk neither takes what was known nor keeps an agent from its work."""
    try:
        if _is(path, text):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)


def _is(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except (FileNotFoundError, ValueError):  # what is no text is written anew
        return False
