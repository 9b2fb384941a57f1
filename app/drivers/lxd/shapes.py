"""LXD's JSON to Berth's values and back: no I/O here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from app.drivers.base import (
    DENIED_CALLS,
    DEVICE_NAME,
    TAG_PREFIX,
    DeviceSeen,
    GpuInfo,
    ImageInfo,
    InstanceSeen,
    InstanceSpec,
    Node,
    Number,
    Tag,
    address_of,
    device_name,
    pci_address,
)
from app.drivers.doors import Doorway, doors_of
from app.drivers.holders.nodes import HostNode, verdict

Json = dict[str, Any]

OWNER = TAG_PREFIX + "owner"
PROTECTED = "security.protection.delete"  # against a slip of whoever types lxc delete; Berth's own delete lifts it
MAKING = TAG_PREFIX + "making"  # LXD is at it, or was when it was killed: there may be no disk behind it
ALWAYS = {"boot.autostart": "false", "security.privileged": "false"}  # of every instance that is Berth's
_WRITABLE = ("architecture", "config", "devices", "ephemeral", "profiles", "description", "stateful")
_NUMBER = re.compile(r"(\d{1,4}):(\d{1,7})")
_NVIDIA_NODE = re.compile(r"/dev/nvidia\d+")


def cluster_of(environment: Json) -> tuple[str, str]:
    """The server's name in its cluster and what all members of that have in common: their certificate. "" if alone."""
    if not environment.get("server_clustered"):
        return "", ""
    return str(environment["server_name"]), str(environment.get("certificate_fingerprint", ""))


def is_of(operation: Json, name: str) -> bool:
    """Whether a background operation is done to an instance."""
    return f"/1.0/instances/{name}" in (operation.get("resources") or {}).get("instances", [])


def writable(instance: Json) -> Json:
    """What a PUT may hold of what a GET gave."""
    return {key: instance[key] for key in _WRITABLE if key in instance}


def owner_of(instance: Json) -> str:
    """Whose it is, as Berth marked it; "" for one that is not Berth's."""
    return str((instance.get("config") or {}).get(OWNER, ""))


def privileged(instance: Json) -> bool:
    """Whether root in there is root on the host."""
    return _is_on(instance, "security.privileged")


def protected(instance: Json) -> bool:
    """Whether LXD refuses to remove it."""
    return _is_on(instance, PROTECTED)


def _is_on(instance: Json, key: str) -> bool:
    return str(instance.get("expanded_config", {}).get(key, "")).lower() in {"true", "1", "yes", "on"}


def root_disk(instance: Json) -> tuple[str, Json]:
    """Name and settings of the instance's root disk, from a profile too. Raises ValueError where it has none."""
    for name, device in instance.get("expanded_devices", {}).items():
        if device.get("type") == "disk" and device.get("path") == "/":
            return name, dict(device)
    raise ValueError("the instance has no root disk")


def without_gpus(instance: Json) -> tuple[Json, Json]:
    """An instance's own configuration and devices, but for GPUs, their tags, and what LXD keeps there for itself. Never
    privileged, and never started by LXD itself: its GPUs would be back."""
    gpus = gpu_devices(instance).keys()
    config = {
        key: value
        for key, value in instance["config"].items()
        if not key.startswith(("volatile.", "image.")) and not DEVICE_NAME.match(key.removeprefix(TAG_PREFIX))
    }
    devices = {key: value for key, value in instance["devices"].items() if key not in gpus}
    return config | ALWAYS, devices


def plug(body: Json, gpu: GpuInfo, tag: Tag) -> bool:
    """Put the GPU and its tag into a writable instance; False if both were so already."""
    name = device_name(gpu.pci_address)
    wanted = {"type": "gpu", "gputype": "physical", "pci": pci_address(gpu.pci_address)}
    if body["devices"].get(name) == wanted and body["config"].get(TAG_PREFIX + name) == str(tag):
        return False
    body["devices"][name] = wanted
    body["config"][TAG_PREFIX + name] = str(tag)
    return True


def unplug(body: Json, device: str) -> bool:
    """Take a device and its tag out of a writable instance; False if neither was there."""
    found = body["devices"].pop(device, None), body["config"].pop(TAG_PREFIX + device, None)
    return any(item is not None for item in found)


def new_instance(spec: InstanceSpec, pool: str, devices: Json | None = None, config: Json | None = None) -> Json:
    """The request that makes an instance. No autostart: LXD would give it back GPUs whose booking ended meanwhile.

    No limits.kernel.nofile: one above LXD's own keeps the machine from starting, and LXD's own is what it has. No
    snapshots.pattern: LXD's own is a constant, and nobody else's text may get there."""
    return {
        "name": spec.name,
        "type": "container",
        "source": {"type": "image", "alias": spec.image},
        "profiles": ["default"],
        "config": {
            OWNER: spec.owner,
            "boot.autostart": "false",
            "limits.cpu": str(spec.cpus),
            "limits.memory": f"{spec.memory_mib}MiB",
            "limits.memory.enforce": "hard",
            "limits.memory.swap": "false",
            "limits.processes": "4096",
            "security.devlxd": "false",
            "security.idmap.isolated": "true",
            "security.nesting": "false",
            "security.privileged": "false",
            PROTECTED: "true",
            "security.syscalls.deny": DENIED_CALLS,
            "security.syscalls.deny_compat": "true",
            "security.syscalls.deny_default": "true",
            **(config or {}),
        },
        "devices": {
            "root": {"type": "disk", "path": "/", "pool": pool, "size": f"{spec.disk_gib}GiB"},
            **(devices or {}),
        },
    }


def gpu_info(card: Json) -> GpuInfo | None:
    """An NVIDIA card of LXD's resources, if it says all that Berth needs."""
    nvidia = card.get("nvidia") or {}
    match = re.fullmatch(r"195:(\d{1,3})", str(nvidia.get("card_device", "")))
    if not (match and nvidia.get("model") and card.get("pci_address")):
        return None
    address = pci_address(card["pci_address"])
    return GpuInfo(address, str(nvidia["model"]), int(match[1]), str(nvidia.get("uuid") or ""), _drm_numbers(card))


def _drm_numbers(card: Json) -> frozenset[Number]:
    """The numbers of a card's DRM nodes, `226:0` as LXD writes them."""
    drm = card.get("drm") or {}
    texts = (str(drm.get(name, "")) for name in ("card_device", "render_device", "control_device"))
    return frozenset((int(found[1]), int(found[2])) for text in texts if (found := _NUMBER.fullmatch(text)))


def image_infos(image: Json) -> list[ImageInfo]:
    """A container image, once per alias."""
    if image.get("type") != "container":
        return []
    described = str((image.get("properties") or {}).get("description", ""))
    return [
        ImageInfo(str(alias["name"]), str(alias.get("description") or described), int(image.get("size", 0)))
        for alias in image.get("aliases") or []
    ]


def gpu_devices(instance: Json) -> dict[str, Json]:
    """Every device of the instance that may bring a GPU along, from profiles too."""
    return {
        name: device
        for name, device in instance.get("expanded_devices", {}).items()
        if device.get("type") == "gpu"
        or (device.get("type") == "unix-char" and _NVIDIA_NODE.fullmatch(device.get("source", device.get("path", ""))))
    }


def doorway(instance: Json) -> Doorway:
    """An instance as its doors concern it."""
    return Doorway(str(instance.get("status", "")).lower(), doors_of(instance.get("devices") or {}), owner_of(instance))


def instance_seen(
    instance: Json,
    nodes: frozenset[HostNode],
    mounted: dict[str, set[str]] | None,
    had: Iterable[str] = (),
    init: int = 0,
) -> InstanceSeen:
    """An instance with its GPU devices. `mounted` is None where the host cannot be looked at: then what it `had` counts
    as left behind, unknown."""
    config, own = instance.get("config", {}), instance.get("devices", {})
    configured = gpu_devices(instance)
    devices = [
        DeviceSeen(
            name,
            _pci(device),
            ours=bool(DEVICE_NAME.match(name)) and name in own,
            node=Node.UNKNOWN if mounted is None else verdict(name, nodes, mounted),
            tag=Tag.parse(str(config.get(TAG_PREFIX + name, ""))),
        )
        for name, device in configured.items()
    ]
    made = {node.device for node in nodes}
    left = set(had) if mounted is None else made | set(mounted)
    devices += [
        DeviceSeen(
            name, address_of(name), bool(DEVICE_NAME.match(name)), _left_behind(name, made, mounted), None, False
        )
        for name in sorted(left - set(configured))
    ]
    return InstanceSeen(
        str(instance["name"]),
        str(instance.get("status", "")).lower(),
        privileged(instance),
        tuple(devices),
        tuple(instance.get("profiles") or ()),
        init,
        owner_of(instance),
    )


def _left_behind(name: str, made: set[str], mounted: dict[str, set[str]] | None) -> Node:
    """What a node without a device is: one that LXD made and forgot, or only a copy somebody mounted of one."""
    if mounted is None:
        return Node.UNKNOWN
    return Node.PRESENT if name in made else Node.COPY


def _pci(device: Json) -> str:
    try:
        return pci_address(str(device.get("pci", "")))
    except ValueError:
        return ""
