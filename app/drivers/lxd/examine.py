"""A host's facts for a check, from LXD and, where LXD runs on this machine, from its kernel."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from app.drivers import this_host
from app.drivers.base import HostSeen, HostUnreachable, Node
from app.drivers.facts import HostFacts, InstanceFacts, NetworkFacts, ProfileFacts
from app.drivers.lxd import libraries, network, shapes
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.peek import Peek
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

LOOKING = 20.0  # seconds for the files of all instances together
_VERSION = re.compile(r"\d{3,4}\.\d{1,4}(?:\.\d{1,4})?")  # LXD gives the kernel's version where a module has none
_NO_APPARMOR = "AppArmor support has been disabled"  # the type of LXD's warning
_IRRELEVANT = ("volatile.", "image.")  # of configuration keys


class Examiner:
    """Examines one LXD server, again and again."""

    def __init__(self, endpoint: str, wire: Wire) -> None:
        self._wire = wire
        self._peek = Peek(endpoint)

    def examine(self, seen: HostSeen, devices_dir: Path | None) -> HostFacts:
        """The facts. `seen` and `devices_dir`: what a look a moment ago showed, and whether it could see nodes."""
        with as_driver_errors("Examine the host", HostUnreachable):
            environment = self._wire.get()["environment"]
            resources = self._wire.get("resources")["gpu"]
            cards = resources.get("cards") or []
            gpus = tuple(gpu for card in cards if (gpu := shapes.gpu_info(card)))
            every = self._wire.instances(recursion=1, **{"all-projects": "true"})
            profiles = tuple(_profile(found) for found in self._wire.get("profiles", recursion=1) or [])
            networks = [_network(found) for found in self._wire.get("networks", recursion=1) or []]
            local, pid = self._wire.lxd_dir is not None, int(environment.get("server_pid") or 0)
            instances, overran = self._instances(every, seen)
            nodes = this_host.gpu_nodes(gpu.minor for gpu in gpus) if local else None
            fence = this_host.fence() if local else None
            listeners = this_host.listeners(pid) if local and pid else None
        return HostFacts(
            version=str(environment["server_version"]),
            local=local,
            gpus=gpus,
            driver=driver_version(cards),
            libraries_by=libraries.decided(self._wire.lxd_dir),
            libraries=libraries.mounted_version(self._wire.lxd_dir) if self._wire.lxd_dir else "",
            nodes=nodes,
            apparmor=self._apparmor(local=local),
            fence=fence,
            listeners=listeners,
            instances=instances,
            profiles=profiles,
            networks=tuple(networks),
            walled=this_host.walled() if local and any(found.ours for found in networks) else None,
            rate=this_host.rate() if local else 0,
            restricted=self._restricted(),
            unseen=_unseen(nodes=devices_dir is not None, fence=fence, ports=listeners) * local + overran,
        )

    def _instances(self, every: list[Json], seen: HostSeen) -> tuple[tuple[InstanceFacts, ...], tuple[str, ...]]:
        deadline = time.monotonic() + LOOKING
        found, silent = [], []
        for instance in every:
            runs = instance["status"].lower() == "running" and instance["type"] == "container"
            here = instance.get("project", "default") == "default"
            libraries = None
            if runs and here:
                libraries = self._peek.libraries(instance["name"]) if time.monotonic() < deadline else None
                silent += [instance["name"]] if libraries is None else []
            found.append(_instance(instance, seen, libraries))
        text = f"the NVIDIA libraries in {', '.join(silent[:5])}{' and others' * (len(silent) > 5)} (no answer)"
        return tuple(found), (text,) if silent else ()

    def _restricted(self) -> bool | None:
        try:
            return self._wire.get("projects", "default")["config"].get("restricted") == "true"
        except RefusedError:  # as with warnings
            return None

    def _apparmor(self, *, local: bool) -> bool | None:
        """LXD knows best: it may not use an AppArmor that the kernel has. Its warnings are for admins only."""
        try:
            warnings = self._wire.get("warnings", recursion=1) or []
        except RefusedError:
            warnings = []
        if any(found.get("type") == _NO_APPARMOR and found.get("status") != "resolved" for found in warnings):
            return False
        return this_host.apparmor() if local else None


def _profile(found: Json) -> ProfileFacts:
    used = sum("/instances/" in str(user) for user in found.get("used_by") or ())
    return ProfileFacts(str(found["name"]), _relevant(found.get("config")), found.get("devices") or {}, used)


def _network(found: Json) -> NetworkFacts:
    config = found.get("config") or {}
    managed = bool(found.get("managed"))
    subnet = str(config.get("ipv4.address", ""))
    ours = managed and bool(config.get(network.MARK))
    return NetworkFacts(str(found["name"]), found.get("type") == "bridge", ours, subnet if managed else "")


def _instance(found: Json, seen: HostSeen, libraries: frozenset[str] | None) -> InstanceFacts:
    name, project = str(found["name"]), str(found.get("project") or "default")
    devices = seen.instances[name].devices if project == "default" and name in seen.instances else ()
    return InstanceFacts(
        name,
        str(found["status"]).lower(),
        found.get("type") == "container",
        project,
        _relevant(found.get("expanded_config")),
        found.get("expanded_devices") or {},
        frozenset(found.get("config") or {}) | frozenset(found.get("devices") or {}),
        tuple(found.get("profiles") or ()),
        tuple(device.name for device in devices if device.configured and device.node == Node.ABSENT),
        libraries,
    )


def _relevant(config: Any) -> dict[str, str]:
    return {key: str(value) for key, value in (config or {}).items() if not key.startswith(_IRRELEVANT)}


def driver_version(cards: list[Json]) -> str:
    """NVIDIA's driver on the host, as its own library says it, else by its kernel module."""
    for card in cards:
        if shapes.gpu_info(card):
            for text in ((card.get("nvidia") or {}).get("nvrm_version"), card.get("driver_version")):
                if text and _VERSION.fullmatch(str(text)):
                    return str(text)
    return ""


def _unseen(*, nodes: bool, fence: str | None, ports: object) -> tuple[str, ...]:
    told = {
        "whether GPUs are in the machines that LXD lists them for": nodes,
        "whether a device cgroup can fence a GPU off": fence is not None,
        "which ports are taken": ports is not None,
    }
    return tuple(what for what, known in told.items() if not known)
