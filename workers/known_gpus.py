"""The host's GPUs as LXD finds them, remembered: the answer changes seldom, and is wanted at every pass."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection
from pathlib import Path

from app.drivers.base import DriverError, GpuInfo, LxdDriver
from workers.known_host import BOOT_ID, keep

log = logging.getLogger(__name__)

EVERY = 300.0  # seconds between two questions
AGAIN = 4.9  # seconds before the next, when one that is wanted is not among them


class KnownGpus:
    """Asks now and then, and for a GPU that is not known yet. `driver` None: there is nobody to ask.

    `kept`: the file that tells them to an agent that is started while LXD is away. After a reboot it is of no use: the
    nodes of GPUs may have other numbers then."""

    def __init__(self, driver: LxdDriver | None, kept: Path | None = None) -> None:
        self._driver, self._kept = driver, kept
        self._asked = 0.0
        self._known: tuple[GpuInfo, ...] = ()

    def __call__(self, wanted: Collection[str] = ()) -> tuple[GpuInfo, ...]:
        """The GPUs; `wanted` are PCI addresses that should be among them."""
        missing = set(wanted) - {gpu.pci_address for gpu in self._known}
        age = time.monotonic() - self._asked
        if self._driver and (not self._known or age > EVERY or (missing and age > AGAIN)):
            try:
                found, self._asked = tuple(self._driver.gpus()), time.monotonic()
            except DriverError as error:
                log.warning("the host's GPUs are not known now, going by what was last seen: %s", error)
                self._known = self._known or self._read()
            else:
                before, self._known = self._known, found
                if found != before:
                    self._write(found)
        return self._known

    def _write(self, found: Collection[GpuInfo]) -> None:
        if self._kept is None:
            return
        rows = [[gpu.pci_address, gpu.model, gpu.minor, gpu.uuid, sorted(gpu.drm)] for gpu in found]
        keep(self._kept, json.dumps([BOOT_ID.read_text(), rows]))

    def _read(self) -> tuple[GpuInfo, ...]:
        try:
            boot, rows = json.loads(self._kept.read_text()) if self._kept else ("", [])
            now = BOOT_ID.read_text()
        except (OSError, ValueError):
            return ()
        if boot != now:
            return ()
        return tuple(
            GpuInfo(address, model, minor, uuid, frozenset((a, b) for a, b in drm))
            for address, model, minor, uuid, drm in rows
        )
