"""What should be plugged in where, held against what is. Pure: the same values give the same plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.drivers.base import DeviceSeen, GpuInfo, HostSeen, Node, Tag, device_name

GRACE = 20  # seconds, where the rules are not known


@dataclass(frozen=True)
class Want:
    """One GPU that somebody has now. `instance` None: they have no machine on that host, or it is missing there.
    `owner`: whose mark it has to bear; "" where that was never asked."""

    gpu: GpuInfo
    instance: str | None
    tag: Tag
    owner: str = ""

    @property
    def device(self) -> str:
        """The device's name on the instance."""
        return device_name(self.gpu.pci_address)


@dataclass(frozen=True)
class Ending:
    """A GPU whose booking is over and that is not proven free yet.

    `instance`: where it was, None if that is not known. `kill_at`: from when on what still holds it is killed."""

    gpu: GpuInfo
    instance: str | None
    tag: Tag
    kill_at: datetime


@dataclass(frozen=True)
class Desired:
    """A host as it should be at `at`: who has which GPU, which GPUs are Berth's, and when that changes next.

    `soon`: what ends within the grace and is somebody else's at once, so that what holds it is asked to end beforehand.
    `guarded`: the PCI addresses of GPUs that nobody may hold without a booking (out of service, they are the admin's).
    `quarantined`: those that could not be proven free. `grace`: seconds from asking a program to end to killing it.
    `force_stop`: whether an instance that does not let go may be stopped."""

    host_id: int
    at: datetime
    wants: tuple[Want, ...] = ()
    gpus: tuple[GpuInfo, ...] = ()
    next_boundary: datetime | None = None
    endings: tuple[Ending, ...] = ()
    soon: tuple[Ending, ...] = ()
    guarded: frozenset[str] = frozenset()
    quarantined: frozenset[str] = frozenset()
    grace: int = 0
    force_stop: bool = False


class Trouble(StrEnum):
    """Why a GPU that is booked now is not attached; the pages have the words."""

    NONE = ""
    NO_MACHINE = "no_machine"
    STOPPED = "stopped"
    FROZEN = "frozen"
    MISSING = "missing"
    PRIVILEGED = "privileged"
    HELD = "held"  # another instance still has it
    EVICTING = "evicting"  # what its last user left running on it is being ended
    QUARANTINED = "quarantined"  # it could not be proven free
    NO_NODE = "no_node"  # LXD says attached, the machine has no device node
    ERROR = "error"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Detach:
    """Take this device off that instance."""

    instance: str
    device: str
    pci_address: str
    tag: Tag | None = None


@dataclass(frozen=True)
class Attach:
    """Plug a wanted GPU in, or bring the tag of one that is in up to date."""

    want: Want


@dataclass(frozen=True)
class Wait:
    """A wanted GPU that cannot be plugged in now, and why."""

    want: Want
    trouble: Trouble


@dataclass(frozen=True)
class Foreign:
    """A GPU device that Berth did not make: reported, and left alone."""

    instance: str
    device: str
    pci_address: str


@dataclass(frozen=True)
class Plan:
    """What a pass would do, detaches first."""

    detaches: tuple[Detach, ...] = ()
    attaches: tuple[Attach, ...] = ()
    waits: tuple[Wait, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    attached: tuple[Want, ...] = ()  # as it should be, node and all

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to do."""
        return not self.detaches and not self.attaches


def plan(want: Desired, seen: HostSeen) -> Plan:
    """From what should be and what is, what to do."""
    detaches, foreign = _devices(want, seen)
    attaches: list[Attach] = []
    waits: list[Wait] = []
    attached: list[Want] = []
    for item in want.wants:
        trouble = _obstacle(item, seen, {device.pci_address for device in foreign})
        found = _device(item, seen)
        if item.gpu.pci_address in want.quarantined and found is None:
            trouble = Trouble.QUARANTINED
        if trouble != Trouble.NONE:
            waits.append(Wait(item, trouble))
        elif found is not None and found.node == Node.ABSENT:
            # LXD believes in a node that the machine does not have: out and in again.
            detaches.append(Detach(item.instance or "", item.device, item.gpu.pci_address, found.tag))
            attaches.append(Attach(item))
        elif found is None or found.tag != item.tag:
            attaches.append(Attach(item))
        else:
            attached.append(item)
    return Plan(tuple(detaches), tuple(attaches), tuple(waits), tuple(foreign), tuple(attached))


def _devices(want: Desired, seen: HostSeen) -> tuple[list[Detach], list[Foreign]]:
    """What is plugged in and should not be, and what is not Berth's."""
    wanted_at = {(item.instance, item.device): item for item in want.wants if item.instance}
    detaches: list[Detach] = []
    foreign: list[Foreign] = []
    for instance in seen.instances.values():
        for device in instance.devices:
            key = (instance.name, device.name)
            if device.node == Node.COPY and not device.configured:
                continue  # nothing that LXD could take away; the fence keeps it from being opened
            if not device.ours:
                foreign.append(Foreign(instance.name, device.name, device.pci_address))
            elif key not in wanted_at or device.pci_address != wanted_at[key].gpu.pci_address:
                detaches.append(Detach(instance.name, device.name, device.pci_address, device.tag))
    return detaches, foreign


def from_tags(seen: HostSeen, now: datetime, gpus: tuple[GpuInfo, ...], last: Desired | None) -> Desired:
    """Without the database: what the instances themselves say. What has ended is taken away; nothing new is given.

    `last`: what the database last said. A tag that says otherwise came along with a copy of an instance or a snapshot;
    where nobody knows, a GPU that two instances claim is neither's, and one that none claims may be an admin's."""
    known = {gpu.pci_address: gpu for gpu in gpus}
    grace = last.grace if last else GRACE
    wants, endings = [], []
    for instance in seen.instances.values():
        for device in instance.devices:
            tag, gpu = device.tag, known.get(device.pci_address, GpuInfo(device.pci_address, "", -1))
            if not device.ours or tag is None or not device.pci_address:
                continue
            if tag.ends_at > now.timestamp():
                wants.append(Want(gpu, instance.name, tag))
            else:
                until = datetime.fromtimestamp(tag.ends_at, now.tzinfo) + timedelta(seconds=grace)
                endings.append(Ending(gpu, instance.name, tag, until))
    claimed = {item.gpu.pci_address for item in wants} | {item.gpu.pci_address for item in endings}
    return Desired(
        0,
        now,
        tuple(_rightful(wants, last)),
        gpus,
        next_end(seen, now),
        tuple(endings),
        guarded=frozenset(claimed) | (last.guarded if last else frozenset()),
        grace=grace,
    )


def _rightful(claims: list[Want], last: Desired | None) -> list[Want]:
    """Those of the claims that the database knew, or that nobody disputes."""
    if last is None:
        number = Counter(want.gpu.pci_address for want in claims)
        return [want for want in claims if number[want.gpu.pci_address] == 1]
    given = {(item.gpu.pci_address, item.instance, item.tag.allocation_id) for item in last.wants}
    return [want for want in claims if (want.gpu.pci_address, want.instance, want.tag.allocation_id) in given]


def next_end(seen: HostSeen, now: datetime) -> datetime | None:
    """The next end that the instances themselves carry."""
    ends = [
        device.tag.ends_at
        for instance in seen.instances.values()
        for device in instance.devices
        if device.ours and device.tag is not None and device.tag.ends_at > now.timestamp()
    ]
    return datetime.fromtimestamp(min(ends), now.tzinfo) if ends else None


def _obstacle(want: Want, seen: HostSeen, foreign: set[str]) -> Trouble:
    if want.instance is None:
        return Trouble.MISSING if want.owner else Trouble.NO_MACHINE
    instance = seen.instances.get(want.instance)
    if instance is None:
        return Trouble.MISSING
    if instance.privileged:
        return Trouble.PRIVILEGED
    if want.gpu.pci_address in foreign:
        return Trouble.HELD
    if instance.status == "frozen":
        return Trouble.FROZEN
    return Trouble.NONE if instance.status == "running" else Trouble.STOPPED


def is_in(want: Want, seen: HostSeen) -> bool:
    """Whether the wanted GPU is in its instance, node and all, whatever its tag says."""
    found = _device(want, seen)
    return found is not None and found.node != Node.ABSENT and found.pci_address == want.gpu.pci_address


def _device(want: Want, seen: HostSeen) -> DeviceSeen | None:
    instance = seen.instances.get(want.instance or "")
    if instance is None:
        return None
    found = (device for device in instance.devices if device.name == want.device and device.ours)
    return next((device for device in found if device.configured), None)
