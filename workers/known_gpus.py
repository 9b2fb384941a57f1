"""The host's GPUs as LXD finds them, remembered: the answer changes seldom, and is wanted at every pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from app.drivers.base import DriverError, GpuInfo, LxdDriver

log = logging.getLogger(__name__)

EVERY = 300.0  # seconds between two questions
AGAIN = 4.9  # seconds before the next, when one that is wanted is not among them


class KnownGpus:
    """Asks now and then, and for a GPU that is not known yet. `driver` None: there is nobody to ask."""

    def __init__(self, driver: LxdDriver | None) -> None:
        self._driver = driver
        self._asked = 0.0
        self._known: tuple[GpuInfo, ...] = ()

    def __call__(self, wanted: Collection[str] = ()) -> tuple[GpuInfo, ...]:
        """The GPUs; `wanted` are PCI addresses that should be among them."""
        missing = set(wanted) - {gpu.pci_address for gpu in self._known}
        age = time.monotonic() - self._asked
        if self._driver and (not self._known or age > EVERY or (missing and age > AGAIN)):
            try:
                self._known, self._asked = tuple(self._driver.gpus()), time.monotonic()
            except DriverError as error:
                log.warning("the host's GPUs are not known now, going by what was last seen: %s", error)
        return self._known
