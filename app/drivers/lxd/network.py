"""The network between machines: each has a NIC that can be nobody else, and reaches no other machine."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Iterator, Mapping

from app.drivers.base import TAG_PREFIX
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

MARK = TAG_PREFIX + "network"  # on a bridge: this one is for Berth's machines
BRIDGE_CONFIG = {  # and an ipv4.address
    "ipv4.nat": "true", "ipv4.dhcp": "true", "ipv4.firewall": "true", "ipv6.address": "none", "dns.mode": "none",
    MARK: "machines",
}  # fmt: skip
ISOLATED = {"security.mac_filtering": "true", "security.port_isolation": "true"}  # what any bridge can do
FILTERED = {**ISOLATED, "security.ipv4_filtering": "true", "security.ipv6_filtering": "true"}  # if LXD gives addresses
NIC = "eth0"


def nics(wire: Wire, instance: str) -> Json:
    """The NICs of a new instance: one on Berth's bridge, where the host has it, in the place of the profile's; else the
    profile's own, confined as far as their network lets LXD do it."""
    networks = {found["name"]: found for found in wire.get("networks", recursion=1) or [] if found.get("managed")}
    profile = wire.get("profiles", "default")["devices"].items()
    theirs = {name: device for name, device in profile if device.get("type") == "nic"}
    ours = next((name for name in sorted(networks) if _marked(networks[name])), "")
    if not ours and not theirs:
        return {}
    # Of all members of a cluster: its bridges have one subnet, and a machine that moves keeps its address.
    every = wire.get("instances", recursion=1, **{"all-projects": "true"}) or []
    if ours:
        away = {name: {"type": "none"} for name in theirs if name != NIC}
        plain = {"type": "nic", "name": NIC, "network": ours}
        return {**away, NIC: confined(plain, networks[ours], instance, taken(every, ours, instance))}
    return {name: _own(device, networks, instance, every) for name, device in theirs.items()}


def confined(device: Json, network: Json, instance: str, used: Iterable[str]) -> Json:
    """The NIC on a bridge that LXD manages, with an address of its own: LXD 5.0 cannot filter without one."""
    config = network.get("config") or {}
    address = free_address(config, instance, used)
    if not address:
        return {**device, **ISOLATED}
    six = {} if config.get("ipv6.address", "none") in {"", "none"} else {"ipv6.address": "none"}
    return {**device, **FILTERED, **six, "ipv4.address": address}


def free_address(config: Mapping[str, str], instance: str, used: Iterable[str]) -> str:
    """An address of the bridge's network that no machine has; "" if there is none. Where to begin depends on the name:
    two that are made at once begin at different places."""
    try:
        gateway = ipaddress.IPv4Interface(config.get("ipv4.address", ""))
    except ValueError:  # none, or a bridge that has no IPv4
        return ""
    used = {*used, str(gateway.ip)}
    count = gateway.network.num_addresses - 2
    begin = zlib.crc32(instance.encode())
    places = (gateway.network[1 + (begin + step) % count] for step in range(min(count, 1 << 16)))
    return next((str(place) for place in places if str(place) not in used), "")


def taken(every: Iterable[Json], network: str, but: str) -> Iterator[str]:
    """The fixed addresses in a network, of all machines but one."""
    for instance in every:
        if instance["name"] != but or instance.get("project", "default") != "default":
            devices = instance.get("expanded_devices", {}).values()
            yield from (device.get("ipv4.address", "") for device in devices if device.get("network") == network)


def _own(device: Json, networks: Json, instance: str, every: list[Json]) -> Json:
    network = networks.get(str(device.get("network") or device.get("parent")))
    if network and network["type"] == "bridge" and device.get("nictype", "bridged") == "bridged":
        used = taken(every, network["name"], instance)
        managed = {key: value for key, value in device.items() if key not in {"nictype", "parent"}}
        return confined({**managed, "network": network["name"]}, network, instance, used)
    bridged = device.get("nictype") == "bridged"  # macvlan and others know no such thing
    return {**device, **ISOLATED} if bridged else dict(device)


def _marked(network: Json) -> bool:
    return network["type"] == "bridge" and bool((network.get("config") or {}).get(MARK))
