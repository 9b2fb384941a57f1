"""GPUs that do not answer while NVML does: off the bus, or in need of a reset. Told of once each time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from app.drivers.gauges import SILENT
from app.services.samples import Now

AFTER = timedelta(minutes=1)  # one that somebody resets answers again before


class Lost:
    """Of one host, from look to look."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        self._told: set[str] = set()

    def due(self, readings: Mapping[str, Now]) -> dict[str, datetime]:
        """By PCI address, since when it does not answer, of those that are to be put on record; to be `noted` then.

        Where NVML as a whole says nothing, there is none, or its driver is being changed: no GPU's own fault."""
        found = {pci: now for pci, now in readings.items() if now.trouble and not now.trouble.startswith(SILENT)}
        self._since = {pci: self._since.get(pci, now.seen_at) for pci, now in found.items()}
        self._told &= found.keys()
        return {
            pci: self._since[pci]
            for pci, now in found.items()
            if pci not in self._told and now.seen_at - self._since[pci] >= AFTER
        }

    def noted(self, found: Mapping[str, datetime]) -> None:
        """They are on record."""
        self._told |= found.keys()
