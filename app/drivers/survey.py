"""What a host's slow look finds: every instance with what it uses, storage pools, profiles. Values only.

Texts that an instance's root decides are checked and limited by whoever makes these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ADDRESSES = 8  # kept of one instance
SNAPSHOTS = 200
DEVICES = 64
TEXT = 200  # characters of a value that is shown


BERTH, HAND = "berth", "hand"  # who put a device there, where no profile did: a profile stands as `profile:NAME`


@dataclass(frozen=True)
class ServerInfo:
    """LXD's own name for itself, and its version. `cluster`: one text for all members of its cluster, "" if alone."""

    name: str
    version: str
    member: str = ""  # its name in there
    cluster: str = ""


@dataclass(frozen=True)
class SnapshotSeen:
    """A snapshot. `created_at`: seconds since 1970. `size`: bytes of its own, None where the pool does not know."""

    name: str
    created_at: float
    size: int | None = None


@dataclass(frozen=True)
class InstanceUse:
    """One instance and what it uses. None stands for what is not known, as of one that does not run.

    `owner`: as Berth marked it, "" for one that is not Berth's. `started_at`: seconds since 1970. `cpus` and `memory`
    are its limits as LXD has them, `pool` the storage pool of its root disk, `disk_limit` that disk's size."""

    name: str
    status: str
    owner: str = ""
    privileged: bool = False
    isolated: bool = False
    kind: str = "container"
    image: str = ""
    cpu_seconds: float | None = None
    memory: int | None = None
    disk: int | None = None
    processes: int | None = None
    addresses: tuple[str, ...] = ()
    started_at: float | None = None
    cpus: str = ""
    memory_limit: str = ""
    disk_limit: str = ""
    pool: str = ""
    profiles: tuple[str, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)  # by name, in words of LXD's
    origins: Mapping[str, str] = field(default_factory=dict)  # by the device's name: BERTH, HAND, or `profile:NAME`
    gpus: tuple[str, ...] = ()  # names of devices that bring a GPU
    snapshots: tuple[SnapshotSeen, ...] = ()


@dataclass(frozen=True)
class PoolUse:
    """A storage pool. `driver`: btrfs, zfs, dir, …; bytes are None where it does not say."""

    name: str
    driver: str
    used: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class ProfileUse:
    """A profile and how many instances have it."""

    name: str
    description: str
    devices: tuple[str, ...]
    used_by: int


@dataclass(frozen=True)
class NetworkUse:
    """A network. `kind`: bridge, physical, …; `managed`: LXD's own; `ours`: Berth's; `subnet`: its addresses."""

    name: str
    kind: str
    managed: bool = False
    ours: bool = False
    subnet: str = ""
    used_by: int = 0


@dataclass(frozen=True)
class HostUse:
    """Everything the slow look found, by instance name.

    `pool`: the storage pool of new machines, "" if none. `memory`: the host's, in bytes, and how much of it is in use.
    `member` and `cluster`: as in ServerInfo."""

    instances: Mapping[str, InstanceUse] = field(default_factory=dict)
    pools: tuple[PoolUse, ...] = ()
    profiles: tuple[ProfileUse, ...] = ()
    networks: tuple[NetworkUse, ...] = ()
    pool: str = ""
    memory: int | None = None
    memory_used: int | None = None
    member: str = ""
    cluster: str = ""
