"""LXD itself: installed, with a storage pool, Berth's bridge and a profile that gives machines a disk."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.drivers.lxd.network import BRIDGE_CONFIG, ISOLATED, NIC
from app.drivers.system import NOT_FOUND, System
from app.services.hostinit import disks, storage
from app.services.hostinit.asking import ask, by_snap, distribution
from app.services.hostinit.step import Action, Command, Trouble
from app.services.hostinit.wish import Wish

CHANNEL = "5.21/stable"
DEBIAN = ("lxd", "btrfs-progs", "dnsmasq-base", "nftables")  # LXD makes no bridge without dnsmasq
_UBUNTU = ("snapd", "nftables")  # LXD's snap brings the tools for its pools along


@dataclass(frozen=True)
class Packages:
    """What the distribution has to bring."""

    wish: Wish
    title: str = "packages"

    def look(self, system: System) -> str:
        """Whether all are installed."""
        wanted = _wanted(system)
        if not wanted:
            if not (system.run(["lxc", "--version"]).ok and system.run(["nft", "--version"]).ok):
                todo = "Install LXD and nft as your distribution does, and run this again."
                raise Trouble("this is neither Ubuntu nor Debian, and LXD or nft is missing", todo)
            return "LXD and nft are there"
        shown = system.run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted])
        lines = shown.text.splitlines()
        return " ".join(wanted) if all(f"{name} installed" in lines for name in wanted) else ""

    def actions(self, system: System) -> list[Action]:
        """Install them."""
        install = ("apt-get", "-qy", "install", "--no-install-recommends", *_wanted(system))
        return [Command(("apt-get", "-q", "update"), 600), Command(install, 1800)]


@dataclass(frozen=True)
class Lxd:
    """LXD answers."""

    wish: Wish
    title: str = "LXD"

    def look(self, system: System) -> str:
        """Which version answers."""
        done = system.run(["lxc", "query", "/1.0"])
        if done.ok:
            return f"version {json.loads(done.text)['environment']['server_version']} answers"
        if done.status != NOT_FOUND and not by_snap(system) and system.run(["lxd", "waitready", "--timeout=5"]).ok:
            raise Trouble(f"LXD runs and does not answer: {done.complaint}", "Run this as root.")
        return ""

    def actions(self, system: System) -> list[Action]:
        """Install it, on Ubuntu from the snap, and wait until it is up."""
        snap = [Command(("snap", "install", "lxd", f"--channel={CHANNEL}"), 1800)] if by_snap(system) else []
        return [*snap, Command(("lxd", "waitready", "--timeout=60"))]


@dataclass(frozen=True)
class Pool:
    """A storage pool."""

    wish: Wish
    title: str = "storage pool"

    def look(self, system: System) -> str:
        """Which there is. With neither a disk nor a size given, any will do."""
        pools = {pool["name"]: pool["driver"] for pool in ask(system, "storage-pools?recursion=1") or []}
        asked = bool(self.wish.disk or self.wish.loop_gib)
        name = self.wish.pool if self.wish.pool in pools or asked else next(iter(sorted(pools)), "")
        if name not in pools:
            return ""
        if self.wish.storage not in {"", pools[name]}:
            todo = f"Go without --storage, or have it made anew, {storage.replacing(name)}"
            raise Trouble(f"{name} is of {pools[name]}, not of {self.wish.storage}", todo)
        return f"{name} ({pools[name]}{', which limits no disk' if pools[name] == 'dir' else ''})"

    def actions(self, system: System) -> list[Action]:
        """Make one on the disk, if there is nothing on it, or in a file."""
        if not (self.wish.disk or self.wish.loop_gib):
            raise Trouble("there is no storage pool, and it is not said where to make one", disks.advice(system))
        place = f"source={self.wish.disk}" if self.wish.disk else f"size={self.wish.loop_gib}GiB"
        clear = disks.clear(system, self.wish.disk, erase=self.wish.erase) if self.wish.disk else []
        driver = storage.choose(system, self.wish.storage).driver
        return [*clear, Command(("lxc", "storage", "create", self.wish.pool, driver, place), 300)]

    def notes(self, system: System) -> tuple[str, ...]:
        """Which storage it takes, why no other, and how to get another."""
        return storage.choose(system, self.wish.storage).notes


@dataclass(frozen=True)
class Bridge:
    """The network for machines."""

    wish: Wish
    title: str = "bridge"

    def look(self, system: System) -> str:
        """Whether it is there with all its settings."""
        found = self._found(system)
        if not found or self._lacks(found):
            return ""
        return f"{self.wish.bridge}, {found['config'].get('ipv4.address')}, each machine for itself"

    def actions(self, system: System) -> list[Action]:
        """Make it, or set what it lacks."""
        name, found = self.wish.bridge, self._found(system)
        if found and not found.get("managed"):
            raise Trouble(f"{name} is an interface of the host's that LXD does not manage", "Remove it.")
        if found:
            return [Command(("lxc", "network", "set", name, *self._lacks(found)))]
        address = self.wish.subnet or _free_subnet(system)
        config = {**BRIDGE_CONFIG, "ipv4.address": address}
        return [Command(("lxc", "network", "create", name, *(f"{key}={value}" for key, value in config.items())))]

    def _found(self, system: System) -> Any:
        return ask(system, f"networks/{self.wish.bridge}")

    def _lacks(self, found: Any) -> list[str]:
        config = found.get("config") or {}
        wanted = {**BRIDGE_CONFIG, **({"ipv4.address": self.wish.subnet} if self.wish.subnet else {})}
        return [f"{key}={value}" for key, value in wanted.items() if config.get(key) != value]


@dataclass(frozen=True)
class Profile:
    """The default profile: a root disk, and a NIC for what is made by hand."""

    wish: Wish
    title: str = "default profile"

    def look(self, system: System) -> str:
        """Whether it has a root disk and a NIC; one on another network stays."""
        root, nic = self._found(system)
        if not (root and nic):
            return ""
        return f"root disk on {root['pool']}, NIC on {nic.get('network') or nic.get('parent') or nic.get('nictype')}"

    def actions(self, system: System) -> list[Action]:
        """Add what is missing."""
        root, nic = self._found(system)
        add = ("lxc", "profile", "device", "add", "default")
        pool = Pool(self.wish).look(system).partition(" ")[0] or self.wish.pool
        isolated = (f"{key}={value}" for key, value in ISOLATED.items())
        wanted = [] if root else [Command((*add, "root", "disk", "path=/", f"pool={pool}"))]
        if not nic:
            wanted.append(Command((*add, NIC, "nic", f"name={NIC}", f"network={self.wish.bridge}", *isolated)))
        return [*wanted]

    def _found(self, system: System) -> tuple[Any, Any]:
        devices = (ask(system, "profiles/default") or {}).get("devices", {}).values()
        root = next((device for device in devices if device.get("path") == "/" and device.get("pool")), None)
        return root, next((device for device in devices if device.get("type") == "nic"), None)


def _wanted(system: System) -> tuple[str, ...]:
    if by_snap(system):
        return _UBUNTU
    return DEBIAN if "debian" in distribution(system) else ()


def _free_subnet(system: System) -> str:
    """LXD looks for one too, but finds none where a router answers for every address."""
    done = system.run(["ip", "-j", "-4", "route", "show", "table", "all"])
    routes = [_route(row.get("dst", "")) for row in (json.loads(done.text or "[]") if done.ok else [])]
    for network in _candidates():
        if not any(route and route.overlaps(network) for route in routes):
            return f"{network[1]}/{network.prefixlen}"
    raise Trouble("no private network is free for the bridge", "Choose one: --subnet 10.77.0.1/24.")


def _candidates() -> Iterator[ipaddress.IPv4Network]:
    return (ipaddress.IPv4Network(f"10.{number}.0.0/24") for number in (77, *range(100, 250)))


def _route(text: str) -> ipaddress.IPv4Network | None:
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError:  # default, and broadcast addresses are networks of one
        return None
    return found if found.prefixlen > 8 else None  # a route to all of 10/8 leads away, and a nearer one wins
