"""What is to be said of the network between machines, and from them to the host and the lab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.drivers.facts import HostFacts, InstanceFacts, NetworkFacts
from app.services.checkup.finding import BAD, OK, WARN, Finding, Known, on
from app.services.checkup.instances import cared_for, label, lxc

_HOST_INIT = "berth host init"
_ISOLATED = ("security.mac_filtering", "security.port_isolation")
_FILTERED = (*_ISOLATED, "security.ipv4_filtering", "security.ipv6_filtering")  # only where LXD gives out addresses


def judge(facts: HostFacts) -> Iterator[Finding]:
    """Berth's bridge and its rules; a bridge that others made, if machines are on it."""
    ours = {found.name for found in facts.networks if found.ours}
    for name in sorted(ours):
        if facts.walled is not None and name in facts.walled:
            detail = f"{name}: of the host and of private networks machines reach what they need"
            each = f", each at {facts.rate} Mbit/s at most" if facts.rate else ""
            yield Finding(OK, "network", detail + each)
        elif facts.walled is not None:
            detail = f"{name} is without Berth's rules: machines reach the host's services and the lab's network"
            fix = f"systemctl restart berth-firewall; if there is none: {_HOST_INIT}"
            yield Finding(BAD, "network", detail, fix)
    used = {bridge for instance in facts.instances for _, _, bridge in _nics(facts, instance) if bridge}
    for name in sorted(used - ours):
        detail = f"machines are on {name}, which is not Berth's: they reach the host's services and the lab's network"
        yield Finding(WARN, "network", detail, f"Give the host Berth's own bridge, for new machines: {_HOST_INIT}")


def judge_machines(facts: HostFacts, known: Known) -> Iterator[Finding]:
    """Berth's machines that could reach others, or be taken for them."""
    networks = {found.name: found for found in facts.networks}
    for instance in facts.instances:
        if instance.container and cared_for(known, instance):
            for name, device, bridge in _nics(facts, instance):
                if bridge:
                    yield from _on_bridge(instance, name, device, networks.get(bridge))
                else:
                    kind = device.get("nictype") or device.get("network")
                    detail = f"its NIC {name} ({kind}) is on no bridge: LXD cannot keep it from the other machines"
                    fix = f"Give the host Berth's own bridge ({_HOST_INIT}), and the machine a NIC on it"
                    yield Finding(WARN, label(instance), detail, fix)


def _on_bridge(
    instance: InstanceFacts, name: str, device: Mapping[str, str], network: NetworkFacts | None
) -> Iterator[Finding]:
    gives = bool(network and network.subnet not in {"", "none"})
    missing = [key for key in (_FILTERED if gives else _ISOLATED) if not on(device, key)]
    if not missing:
        return
    words = "it can reach the other machines" if "security.port_isolation" in missing else "it can pass for another one"
    keys = [f"{key}=true" for key in missing]
    if network and "security.ipv4_filtering" in missing and not device.get("ipv4.address"):
        keys.append("ipv4.address=ADDRESS")
    where = f", ADDRESS being a free one of {network.subnet}" if network and keys[-1].endswith("ADDRESS") else ""
    verb = "set" if name in instance.own else "override"
    fix = lxc(instance, f"config device {verb} {instance.name} {name} {' '.join(keys)}") + where
    yield Finding(WARN, label(instance), f"its NIC {name} is without {', '.join(missing)}: {words}", fix)


def _nics(facts: HostFacts, instance: InstanceFacts) -> Iterator[tuple[str, Mapping[str, str], str]]:
    """Each NIC: its name, itself, and the bridge it is on; "" for another kind of network."""
    bridges = {found.name: found.bridge for found in facts.networks}
    for name, device in instance.devices.items():
        if device.get("type") == "nic":
            network = device.get("network") or (device.get("parent", "") if device.get("nictype") == "bridged" else "")
            yield name, device, network if bridges.get(network, True) else ""
