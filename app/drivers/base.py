"""What Berth asks of a host, as Protocols and plain values. `lxd.py` is the real one, `fake.py` the simulated one.

Verbs are idempotent in meaning: attach-if-absent, detach-if-present, create-if-absent. Every call has a deadline.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from app.drivers.doors import DoorDriver
from app.drivers.images import ImageDriver
from app.drivers.libraries import LibraryDriver
from app.drivers.lifecycle import LifecycleDriver
from app.drivers.shares import ShareDriver
from app.drivers.survey import ServerInfo as ServerInfo  # noqa: PLC0414 - drivers take it from here
from app.drivers.terminal import TerminalDriver

if TYPE_CHECKING:
    from app.drivers.facts import HostFacts
    from app.drivers.inside import Answer, Command, Heard

# LXD 5.0.2 removes every device whose name starts with the one to remove (gpu1 takes gpu10 along), so ours all have
# the same length. They are made from the PCI address alone: the same GPU has the same name in every instance.
DEVICE_NAME = re.compile(r"^gpu-[0-9a-f]{4}-[0-9a-f]{2}-[0-9a-f]{2}-[0-7]\Z")
# A ring keeps files of its own, one that has no descriptor itself keeps them where nobody can look: a GPU could outlive
# its booking there. Container engines leave io_uring out by default too (moby#46762). ENOSYS, as where there is none:
# without an action LXD has a program killed that only asks.
DENIED_CALLS = "\n".join(f"io_uring_{name} errno 38" for name in ("setup", "enter", "register"))
TAG_PREFIX = "user.berth."  # on the instance: user.berth.<device name> = tag


def pci_address(text: str) -> str:
    """LXD's spelling, `0000:3b:00.0`, of any spelling: upper case, NVML's eight digits, a missing domain."""
    match = re.fullmatch(r"(?:(?:0000)?([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", text.strip().lower())
    if not match:
        raise ValueError(f"{text[:40]!r} is not a PCI address")
    return f"{match[1] or '0000'}:{match[2]}"


def device_name(pci: str) -> str:
    """The LXD device name of a GPU: `gpu-0000-3b-00-0`."""
    return "gpu-" + pci_address(pci).replace(":", "-").replace(".", "-")


def address_of(device: str) -> str:
    """The PCI address that a device name of ours stands for; "" for any other name."""
    if not DEVICE_NAME.match(device):
        return ""
    domain, bus, slot, function = device.removeprefix("gpu-").split("-")
    return f"{domain}:{bus}:{slot}.{function}"


class DriverError(Exception):
    """A host could not do what it was asked. `what` was tried, `detail` as the host said it, `todo` for the admin."""

    def __init__(self, what: str, detail: str = "", todo: str = "") -> None:
        super().__init__(": ".join(part for part in (what, detail) if part))
        self.what, self.detail, self.todo = what, detail, todo

    def sentences(self, todo: str = "") -> str:
        """All of it in one line; `todo` in place of its own."""
        return f"{str(self).rstrip('.')}. {todo or self.todo}".strip()


class HostUnreachable(DriverError):
    """Nothing is known about the host now: never to be read as "it has nothing"."""


class TryAgain(DriverError):
    """Busy, changed underfoot, timed out: the next pass does it; work asked for once is not repeated."""

    AGAIN = "Try again."

    def __init__(self, what: str, detail: str = "", todo: str = AGAIN) -> None:
        super().__init__(what, detail, todo)


class GiveUp(DriverError):
    """Will not work by itself: no such instance, no such device."""


Number = tuple[int, int]
"""Major and minor number of a character device."""

NVIDIA_MAJOR = 195  # of /dev/nvidiaN; 195:255 and 195:254 belong to all GPUs


@dataclass(frozen=True)
class GpuInfo:
    """A GPU as LXD lists it. `drm`: its DRM nodes (/dev/dri/cardN, renderDN), where it has any; a reboot may change
    them, so they are asked for anew and not in the database."""

    pci_address: str
    model: str
    minor: int
    uuid: str = ""
    drm: frozenset[Number] = frozenset()

    @property
    def numbers(self) -> frozenset[Number]:
        """The devices through which this GPU, and no other, can be used."""
        return self.drm | {(NVIDIA_MAJOR, self.minor)}


@dataclass(frozen=True)
class ImageInfo:
    """An image that instances can be made from."""

    alias: str
    description: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Tag:
    """What Berth writes on the instance in the same update as the device, so that an agent that can reach nothing else
    still knows when the GPU has to go. Text form: `v1 BOOKING ALLOCATION END`, END in whole seconds since 1970, UTC."""

    booking_id: int
    allocation_id: int
    ends_at: int

    def __str__(self) -> str:
        return f"v1 {self.booking_id} {self.allocation_id} {self.ends_at}"

    @classmethod
    def parse(cls, text: str) -> Tag | None:
        """The tag, or None for text that is not one."""
        match = re.fullmatch(r"v1 (\d{1,18}) (\d{1,18}) (\d{1,12})", text)
        return cls(*(int(group) for group in match.groups())) if match else None


class Node(StrEnum):
    """Whether the GPU's device node is in the instance, as seen from the host, not as LXD says."""

    PRESENT = "present"
    ABSENT = "absent"
    COPY = "copy"  # only a mount of a node that LXD has removed: what is fenced off cannot be opened through it
    UNKNOWN = "unknown"  # the instance does not run, or this process cannot look at the host


@dataclass(frozen=True)
class DeviceSeen:
    """A GPU device in an instance's configuration (its own or from a profile), or a node left without one.

    `ours`: named as Berth names them and on the instance itself. `pci_address` is "" where the device names none
    (`id=`, `vendorid=`). `configured` is False for a node that the host still shows though LXD lists no device.
    """

    name: str
    pci_address: str
    ours: bool
    node: Node
    tag: Tag | None = None
    configured: bool = True


@dataclass(frozen=True)
class InstanceSeen:
    """One instance of the host. `status` in LXD's words, lower case: running, stopped, frozen, …; `init`: its first
    process, as the host numbers it; 0 where there is none or it is not known; `owner`: its mark."""

    name: str
    status: str
    privileged: bool = False
    devices: tuple[DeviceSeen, ...] = ()
    profiles: tuple[str, ...] = ()
    init: int = 0
    owner: str = ""


@dataclass(frozen=True)
class HostSeen:
    """What a pass needs to know about a host, by instance name. `looked`: LXD said so; else only what runs is known."""

    instances: dict[str, InstanceSeen] = field(default_factory=dict)
    looked: bool = True


@dataclass(frozen=True)
class InstanceSpec:
    """What to make: an unprivileged container with an id range of its own. Memory in MiB, disk in GiB."""

    name: str
    image: str
    cpus: int
    memory_mib: int
    disk_gib: int
    owner: str


Progress = Callable[[str, int], None]  # called with a step's code (see services.instances.STEPS) and per cent done


class LxdDriver(DoorDriver, ImageDriver, LibraryDriver, LifecycleDriver, ShareDriver, TerminalDriver, Protocol):
    """One host's LXD. Safe to use from several threads at once. What goes wrong is raised as a kind of DriverError."""

    def server(self) -> ServerInfo:
        """Who answers there."""

    def gpus(self) -> list[GpuInfo]:
        """The GPUs LXD finds on the host, by PCI address; without their model or minor they are left out."""

    def images(self) -> list[ImageInfo]:
        """The images with an alias."""

    def observe(self, names: frozenset[str] | None = None) -> HostSeen:
        """Instances with their GPU devices and nodes; all, or those of `names` that exist. Raises HostUnreachable."""

    def examine(self) -> HostFacts:
        """Everything a check of the host needs, as it is; what could not be seen is said. Raises HostUnreachable."""

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with the name of each thing that happens to an instance, and once with "" to begin with; return
        or raise HostUnreachable when nothing more can be heard. A hint, which may be lost or doubled."""

    def attach(self, instance: str, gpu: GpuInfo, tag: Tag) -> None:
        """Plug the GPU into the running instance and write its tag in the same update; return when LXD says done.
        Already so: only the tag is brought up to date. Done is what a later `observe` shows. Raises GiveUp for an
        instance that is missing or privileged."""

    def detach(self, instance: str, device: str) -> None:
        """Take the device and its tag out of the instance; nothing to do counts as done."""

    def create(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make the instance and start it; takes up one that an interrupted call left behind."""

    def start(self, instance: str) -> None:
        """Start it; a running one is fine."""

    def stop(self, instance: str, *, force: bool = False) -> None:
        """Stop it cleanly, or at once; a stopped one is fine."""

    def restart(self, instance: str) -> None:
        """Stop and start it."""

    def delete(self, instance: str, owner: str, *, anywhere: bool = False) -> None:
        """Stop and remove this owner's, and what its rebuilds and moves have left. `anywhere`: in the cluster."""

    def tell(self, instance: str, title: str, text: str) -> None:
        """Show a message on every terminal and every desktop of the running instance, within a few seconds. Raises
        GiveUp where there is no such instance. Nothing is known of whether anybody has read it."""

    def run(self, instance: str, command: Command, heard: Heard | None = None) -> Answer:
        """Run it as root in the running instance and wait for its end. Raises GiveUp where there is no such instance,
        TryAgain where it does not run or the command went beyond its limits."""
