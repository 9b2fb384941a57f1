"""What a driver reports of a host for a check: values only, nothing judged here. See services.checkup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.drivers.base import GpuInfo
from app.drivers.libraries import Way

Device = Mapping[str, str]


@dataclass(frozen=True)
class Listener:
    """A port of the host on which a process waits. `protocol`: tcp or udp; `address` as text, `::` for all."""

    protocol: str
    address: str
    port: int


@dataclass(frozen=True)
class ProfileFacts:
    """One profile; `used_by`: how many instances have it."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    used_by: int = 0


@dataclass(frozen=True)
class NetworkFacts:
    """A network of LXD's. `ours`: Berth's, for machines. `subnet`: its addresses, if LXD gives them out."""

    name: str
    bridge: bool = True
    ours: bool = False
    subnet: str = ""


@dataclass(frozen=True)
class InstanceFacts:
    """One instance of any project, profiles applied. `own`: names of keys and devices that are on the instance itself.

    `without_node`: GPU devices that LXD lists while the host's kernel shows no node of theirs in it. `libraries`:
    versions of NVIDIA's library found in it, by the file's name alone; None where nobody looked.
    """

    name: str
    status: str = "running"
    container: bool = True
    project: str = "default"
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    profiles: tuple[str, ...] = ()
    without_node: tuple[str, ...] = ()
    libraries: frozenset[str] | None = None


@dataclass(frozen=True)
class HostFacts:
    """A host. None stands for what could not be seen; `unseen` says in words what that is and why.

    `local`: LXD runs on this machine, so that its kernel can be asked. `nodes`: the minors whose /dev/nvidiaN is there.
    `fence`: what could deny a device to a container, `v1` or `v2`, "" for nothing. `driver`: NVIDIA's version.
    `libraries_by`: the way NVIDIA's libraries come into new machines; `libraries`: of which version the directory is
    that they are mounted from.
    `walled`: the bridges from which Berth's rules let machines reach no more of the host and the lab than they need;
    `rate`: the Mbit/s that they leave each machine, 0 for no limit.
    `restricted`: LXD refuses what undoes a machine's confinement, in the project where Berth's machines are.
    """

    version: str
    local: bool = True
    gpus: tuple[GpuInfo, ...] = ()
    driver: str = ""
    libraries_by: Way | None = None
    libraries: str = ""
    nodes: frozenset[int] | None = None
    apparmor: bool | None = None
    fence: str | None = None
    listeners: frozenset[Listener] | None = None
    instances: tuple[InstanceFacts, ...] = ()
    profiles: tuple[ProfileFacts, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()
    walled: frozenset[str] | None = None
    rate: int = 0
    restricted: bool | None = None
    unseen: tuple[str, ...] = ()
