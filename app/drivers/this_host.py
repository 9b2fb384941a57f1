"""What the machine this program runs on shows of itself: for checks, so nothing here is worth an error."""

from __future__ import annotations

import ipaddress
import json
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.drivers.base import NVIDIA_MAJOR
from app.drivers.facts import Listener
from app.drivers.holders import bpf, cgroups
from app.drivers.holders.nodes import PROC

_NET_LIMIT = 4 << 20  # bytes of one list of sockets
_WAITING = {"tcp": "0A", "udp": "07"}  # the kernel's number for a socket that waits for somebody
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")


def gpu_nodes(minors: Iterable[int], folder: Path = Path("/dev")) -> frozenset[int]:
    """Those GPUs whose device node NVIDIA's driver has made."""
    return frozenset(minor for minor in minors if _is_node(folder / f"nvidia{minor}", minor))


def _is_node(path: Path, minor: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(NVIDIA_MAJOR, minor)


def apparmor(switch: Path = _APPARMOR) -> bool | None:
    """Whether the kernel has AppArmor on; None where it does not say."""
    try:
        return switch.read_text().strip() == "Y"
    except FileNotFoundError:
        return False if switch.parents[2].is_dir() else None
    except OSError:
        return None


def fence(proc: Path = PROC) -> str | None:
    """By which cgroup tree a container can be denied a device: `v1`, `v2`, "" for none; None if only root can tell."""
    try:
        trees = cgroups.hierarchies(proc)
    except OSError:
        return None
    if trees.devices:
        return "v1"
    if not trees.unified:
        return ""
    try:
        bpf.deny(trees.unified, ())  # denies nothing, and asks the kernel on the way whether it could
    except PermissionError:
        return None
    except OSError:
        return ""
    return "v2"


def listeners(pid: int, proc: Path = PROC) -> frozenset[Listener] | None:
    """The ports that are taken where the process `pid` (LXD's own, so that its network is the one) listens."""
    found: set[Listener] = set()
    for protocol in _WAITING:
        for table in (protocol, protocol + "6"):
            try:
                with (proc / str(pid) / "net" / table).open() as file:
                    text = file.read(_NET_LIMIT)
            except FileNotFoundError:  # a host without IPv6
                continue
            except OSError:
                return None
            found.update(_rows(protocol, text))
    return frozenset(found)


def walled(table: str = "berth") -> frozenset[str] | None:
    """The bridges that Berth's rules hold for, as the kernel has them; None if only root can tell."""
    rules = _rules(table)
    return None if rules is None else _held(rules)


def rate(table: str = "berth") -> int:
    """The Mbit/s that Berth's rules leave each machine for what it sends; 0: no limit, or only root can tell."""
    for rule in _rules(table) or []:
        for part in rule["expr"]:
            update = part.get("set", {})
            limits = (one["limit"] for one in update.get("stmt") or () if "limit" in one)
            if update.get("set") == "@sent":
                return next((_bytes(limit) * 8 // 1_000_000 for limit in limits), 0)
    return 0


def _rules(table: str) -> list[dict[str, Any]] | None:
    command = ["nft", "-j", "list", "table", "inet", table]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - our own
        if done.returncode:
            return None if "not permitted" in done.stderr else []
        return [item["rule"] for item in json.loads(done.stdout)["nftables"] if "rule" in item]
    except FileNotFoundError:
        return []  # without nft nobody has made the table
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return None


def _bytes(limit: Mapping[str, Any]) -> int:
    """Of a second; nft says it in the largest unit that leaves a whole number."""
    return int(limit["rate"]) * {"kbytes": 1 << 10, "mbytes": 1 << 20}.get(limit.get("rate_unit", ""), 1)


def _held(rules: Iterable[dict[str, Any]]) -> frozenset[str]:
    """What both chains are about: `iifname != "BRIDGE" accept` comes first in each, and the rest is for the bridge."""
    held: dict[str, str] = {}
    for rule in rules:
        for part in rule["expr"]:
            match = part.get("match", {})
            if match.get("op") == "!=" and match.get("left") == {"meta": {"key": "iifname"}}:
                held.setdefault(rule["chain"], match["right"])
    names = [held.get(chain, "") for chain in ("to_host", "onward")]
    return frozenset(names) - {""} if names[0] == names[1] else frozenset()


def _rows(protocol: str, text: str) -> Iterator[Listener]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _WAITING[protocol]:
            address, _, port = fields[1].partition(":")
            yield Listener(protocol, _address(address), int(port, 16))


def _address(text: str) -> str:
    """The kernel writes addresses as hexadecimal words in this machine's byte order."""
    words = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(word.to_bytes(4, "little") for word in words)))
