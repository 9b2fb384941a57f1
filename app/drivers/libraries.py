"""How machines come by NVIDIA's user-space libraries: they have to be of exactly the version of the host's driver."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

INSIDE = "/usr/local/nvidia"  # where they are mounted in a machine


class Way(StrEnum):
    """The ways, the best one first."""

    RUNTIME = "nvidia.runtime"  # LXD brings them in as the machine starts, with NVIDIA's container tools
    MOUNT = "mount"  # a read-only directory that the host's agent keeps up to date
    INSTALL = "install"  # nothing does it: they are installed in the machine, by hand or by its template


class LibraryDriver(Protocol):
    """The part of a driver that is about them."""

    def bring_libraries(self) -> Way:
        """Have the libraries of the driver that the host has loaded ready for machines; which way they come. Machines
        that run have them at once, programs in them when they start anew."""
