"""Backups: an instance's disk as a file that can be taken away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from app.drivers.base import Progress


class BackupDriver(Protocol):
    """A part of LxdDriver."""

    def backup(self, instance: str, snapshot: str, into: Path, most: int, progress: Progress) -> int:
        """Write the instance's disk as a snapshot has it, or ("") as it is, into the file, as `lxc import` takes it:
        its bytes. Of its settings none come along: no GPU, port, network or shared directory. It may run meanwhile.

        Repeating it takes away what an interrupted call left behind. Raises GiveUp where there is no such instance or
        snapshot, where its disk holds more than `most` bytes, and where the host has no room."""
