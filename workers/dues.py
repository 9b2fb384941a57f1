"""Since when GPUs should have been free that are still held."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from app.services.plan import Ending

PROVE_WITHIN = timedelta(seconds=3)  # after the kill; then the instance is stopped, or the GPU goes into quarantine


class Dues:
    """By PCI address. Safe to use from several threads."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, datetime]] = {}  # for which allocation's end, and since when
        self._lock = threading.Lock()

    def overdue(self, pci: str, ending: Ending | None, now: datetime) -> bool:
        """Whether a GPU that is held should have been free for so long that something has to give."""
        key = ending.tag.allocation_id if ending else 0
        with self._lock:
            known, since = self._since.get(pci, (-1, now))
            if known != key:
                since = max(ending.kill_at, now) if ending else now
                self._since[pci] = (key, since)
        return now - since >= PROVE_WITHIN

    def settle(self, pci: str) -> None:
        """It is free."""
        with self._lock:
            self._since.pop(pci, None)
