"""How machines come by NVIDIA's user-space libraries: they have to be of exactly the version of the host's driver.

Not by CDI, though newer LXD has it: there is no CDI device that brings libraries without a GPU, and a GPU that comes by
CDI is named by its number or UUID and brings dozens of mounts along, which LXD has to take out of a file tree that the
machine's root rules as the GPU goes. A GPU has to come and go by its nodes alone, and a mounted directory does as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

INSIDE = "/usr/local/nvidia"  # where they are mounted in a machine
# On an instance: they are there from its next start on, or its linker has to be told.
DUE = "user.berth.libraries"


class Way(StrEnum):
    """The ways, the best one first."""

    RUNTIME = "nvidia.runtime"  # LXD brings them in as the machine starts, with NVIDIA's container tools
    MOUNT = "mount"  # a read-only directory that the host's agent keeps up to date
    INSTALL = "install"  # nothing does it: they are installed in the machine, by hand or by its template


LENDING = frozenset({Way.RUNTIME, Way.MOUNT})  # those by which a machine has the host's own


class Why(StrEnum):
    """Why they come that way and no better one, or not the one that was chosen."""

    BEST = "best"
    CHOSEN = "chosen"
    NO_RUNTIME = "no_runtime"  # this LXD has no nvidia.runtime (any more)
    NO_TOOLS = "no_tools"  # NVIDIA's container tools are not there, or do not reach the driver
    NO_FILES = "no_files"  # the host has no library of exactly the loaded driver's version
    NO_DRIVER = "no_driver"  # no driver of NVIDIA's is loaded, or it does not say its version
    REMOTE = "remote"  # LXD is asked over the network: its host's files are out of reach


@dataclass(frozen=True)
class Brought:
    """How the libraries come into new machines, why, and of which driver's version; "" for none.

    `cdi`: LXD there could also bring them by CDI."""

    way: Way
    why: Why
    version: str = ""
    cdi: bool = False


class LibraryDriver(Protocol):
    """The part of a driver that is about them."""

    def bring_libraries(self, wanted: Way | None = None) -> Brought:
        """Have the libraries of the driver that the host has loaded ready for machines, in the wanted way or else (or
        by None) the best one that the host can do. Machines that run have them at once, programs in them when they
        start anew."""

    def lend_libraries(self, instance: str) -> bool:
        """Give an instance that was made without them what new ones get, while it runs too; done again, it does
        nothing. True: they are there from its next start on. Raises GiveUp where the host brings none, or for a
        missing or a privileged instance."""
