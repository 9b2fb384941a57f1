"""What a machine's life asks of a host beyond making, switching and removing it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.drivers.backups import BackupDriver
from app.drivers.readout import ReadoutDriver
from app.drivers.survey import HostUse

if TYPE_CHECKING:
    from app.drivers.base import InstanceSpec, Progress

SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # others are somebody's own and are left alone
# On pools of these kinds a smaller size is kept to; but only what is more than is used now can be given back.
SHRINKABLE = frozenset({"btrfs", "zfs"})
# What a rebuild or a move calls theirs until it is done. No machine of a person's is called so.
BESIDE = ("-NEW", "-OLD", "-MOVED")
RENEWED = 90  # per cent of a rebuild; from there on, the new one has the machine's name
FILLED = 0.9  # of the smaller disk that may be used already


@dataclass(frozen=True)
class Size:
    """An instance's limits. Memory in MiB, disk in GiB; a disk of 0: left as it is."""

    cpus: int
    memory_mib: int
    disk_gib: int


class LifecycleDriver(ReadoutDriver, BackupDriver, Protocol):
    """A part of LxdDriver. Repeating what was done already is fine; a missing instance raises GiveUp."""

    def survey(self, names: frozenset[str] | None = None) -> HostUse:
        """Instances with what they use (all, or those of `names`), pools and profiles. Raises HostUnreachable."""

    def freeze(self, instance: str) -> None:
        """Pause a running instance; `start` lets it go on."""

    def rename(self, instance: str, new: str) -> None:
        """Give a stopped instance another name; fine if that was done before. Raises GiveUp for a name in use."""

    def resize(self, instance: str, size: Size) -> None:
        """Set its limits, while it runs too. Raises GiveUp for a disk that cannot be made smaller."""

    def snapshot(self, instance: str, name: str) -> None:
        """Keep the instance's disk as it is now under that name."""

    def restore(self, instance: str, name: str) -> None:
        """Put a stopped instance's disk back to a snapshot. Its settings stay as they are, and no GPU comes back."""

    def forget(self, instance: str, name: str) -> None:
        """Remove a snapshot; a missing one is fine."""

    def rebuild(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make an instance anew from its image and start it. /home is kept, and its settings but for GPUs; its
        snapshots and all else are gone. Takes up what an interrupted call left behind."""

    def move(self, instance: str, member: str, progress: Progress) -> None:
        """Bring a stopped instance to another member of the host's LXD cluster, with its snapshots, without what is the
        host's own: GPUs, ports, shared directories, libraries. Fine if it is there already; takes up what an
        interrupted call left behind. Raises GiveUp where the host has no such neighbour."""

    def adopt(self, instance: str, owner: str) -> None:
        """Mark an instance as Berth's and this owner's. Raises GiveUp for one that is privileged, a virtual machine,
        or marked as somebody else's."""
