"""The slow look: what every instance uses, from a handful of LXD's answers for all of them together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from app.drivers.base import HostUnreachable
from app.drivers.lxd import network, shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.origins import origins
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire
from app.drivers.survey import (
    ADDRESSES,
    DEVICES,
    SNAPSHOTS,
    TEXT,
    HostUse,
    InstanceUse,
    NetworkUse,
    PoolUse,
    ProfileUse,
    SnapshotSeen,
)

_SIZE = re.compile(r"(\d{1,18})\s*(|B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {
    "": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
_UNSHOWN = (
    "volatile.",
    "image.",
    "cloud-init.",
    "user.user-data",
    "user.vendor-data",
    "environment.",
)  # some hold secrets


def size_of(text: Any) -> int | None:
    """The bytes of a size as LXD writes them, `50GiB`; None for what is none."""
    match = _SIZE.fullmatch(str(text).strip())
    return int(match[1]) * _UNITS[match[2]] if match else None


class Surveyor:
    """Surveys one LXD server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def survey(self, names: frozenset[str] | None = None) -> HostUse:
        """Instances, pools and profiles."""
        with as_driver_errors("Look what the instances use", HostUnreachable):
            found = self._wire.instances(recursion=2)
            profiles = self._wire.get("profiles", recursion=1) or []
            devices = {profile["name"]: profile.get("devices") or {} for profile in profiles}
            wanted = [one for one in found if names is None or one["name"] in names]
            instances = {one["name"]: instance_use(one, devices) for one in wanted}
            pools = tuple(self._pool(pool) for pool in self._wire.get("storage-pools", recursion=1) or [])
            networks = tuple(_network(one) for one in self._wire.get("networks", recursion=1) or [])
            environment = self._wire.get()["environment"]
            memory = self._wire.get("resources").get("memory") or {}
        return HostUse(
            instances,
            pools,
            tuple(_profile(profile) for profile in profiles),
            networks,
            next((root_pool(profile) for profile in profiles if profile["name"] == "default"), ""),
            memory.get("total"),
            memory.get("used"),
            *shapes.cluster_of(environment),
        )

    def _pool(self, pool: Json) -> PoolUse:
        name = str(pool["name"])
        try:
            space = self._wire.get("storage-pools", name, "resources").get("space") or {}
        except RefusedError:  # a pool in trouble; the rest is still worth to be seen
            space = {}
        return PoolUse(name, str(pool["driver"]), space.get("used"), space.get("total"))


def instance_use(found: Json, profiles: Mapping[str, Collection[str]]) -> InstanceUse:
    """One instance of LXD's answer. `profiles`: the names of each profile's devices."""
    state, config = found.get("state") or {}, found.get("expanded_config") or {}
    runs = str(found.get("status", "")).lower() in {"running", "frozen"}
    try:
        _name, root = shapes.root_disk(found)
    except ValueError:
        root = {}
    every = sorted((found.get("expanded_devices") or {}).items())[:DEVICES]
    return InstanceUse(
        name=str(found["name"]),
        status=str(found.get("status", "")).lower(),
        owner=str(config.get(shapes.OWNER, ""))[:TEXT],
        privileged=shapes.privileged(found),
        isolated=str(config.get("security.idmap.isolated", "")).lower() in {"true", "1", "yes", "on"},
        kind=str(found.get("type", "")),
        image=str(config.get("image.description") or config.get("image.os") or "")[:TEXT],
        cpu_seconds=(state.get("cpu") or {}).get("usage", 0) / 1e9 if runs else None,
        memory=(state.get("memory") or {}).get("usage") if runs else None,
        disk=((state.get("disk") or {}).get("root") or {}).get("usage"),
        processes=state.get("processes") if runs else None,
        addresses=addresses(state.get("network")) if runs else (),
        started_at=_moment(found.get("last_used_at")) if runs else None,
        cpus=str(config.get("limits.cpu", ""))[:TEXT],
        memory_limit=str(config.get("limits.memory", ""))[:TEXT],
        disk_limit=str(root.get("size", ""))[:TEXT],
        pool=str(root.get("pool", ""))[:TEXT],
        profiles=tuple(str(name)[:TEXT] for name in found.get("profiles") or ()),
        config={key[:TEXT]: str(value)[:TEXT] for key, value in sorted(config.items()) if not key.startswith(_UNSHOWN)},
        devices={name[:TEXT]: _words(device) for name, device in every},
        origins={name[:TEXT]: text[:TEXT] for name, text in sorted(origins(found, profiles).items())[:DEVICES]},
        gpus=tuple(shapes.gpu_devices(found)),
        snapshots=tuple(_snapshot(one) for one in (found.get("snapshots") or [])[-SNAPSHOTS:]),
    )


def addresses(interfaces: Any) -> tuple[str, ...]:
    """The addresses by which an instance can be reached: its root decides what there is to read, and how much."""
    kept: list[str] = []
    for _name, interface in sorted((interfaces or {}).items())[:ADDRESSES]:
        for one in (interface.get("addresses") or [])[:ADDRESSES]:
            if one.get("scope") != "global" or len(kept) >= ADDRESSES:
                continue
            try:
                kept.append(str(ipaddress.ip_address(str(one.get("address"))[:45])))
            except ValueError:
                continue
    return tuple(kept)


def _snapshot(found: Json) -> SnapshotSeen:
    size = found.get("size")  # -1 or 0: the pool does not say
    known = isinstance(size, int) and size > 0
    return SnapshotSeen(str(found["name"])[:TEXT], _moment(found.get("created_at")) or 0.0, size if known else None)


def _profile(found: Json) -> ProfileUse:
    used = sum("/instances/" in str(user) for user in found.get("used_by") or ())
    devices = tuple(f"{name}: {_words(device)}"[:TEXT] for name, device in sorted((found.get("devices") or {}).items()))
    return ProfileUse(str(found["name"]), str(found.get("description") or "")[:TEXT], devices[:DEVICES], used)


def _network(found: Json) -> NetworkUse:
    config, used = found.get("config") or {}, found.get("used_by") or ()
    managed = bool(found.get("managed"))
    return NetworkUse(
        str(found["name"])[:TEXT],
        str(found.get("type", ""))[:TEXT],
        managed,
        managed and bool(config.get(network.MARK)),
        str(config.get("ipv4.address", ""))[:TEXT] if managed else "",
        sum("/instances/" in str(user) for user in used),
    )


def root_pool(profile: Json) -> str:
    """The storage pool that instances with this profile are in."""
    roots = (device for device in (profile.get("devices") or {}).values() if device.get("path") == "/")
    return next((str(root.get("pool", ""))[:TEXT] for root in roots), "")


def _words(device: Json) -> str:
    """A device in one line, its type first."""
    rest = " ".join(f"{key}={value}" for key, value in sorted(device.items()) if key != "type")
    return f"{device.get('type', '')} {rest}".strip()[:TEXT]


def _moment(text: Any) -> float | None:
    """Seconds since 1970 of LXD's spelling of a time; None for its zero."""
    try:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", str(text))).timestamp()
    except ValueError:
        return None
    return moment if moment > 0 else None
