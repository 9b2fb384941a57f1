"""What the simulated host reports of itself for a check: no fault, but for what it was told to report."""

from __future__ import annotations

from typing import Any

from app.drivers.base import DENIED_CALLS, GpuInfo
from app.drivers.facts import HostFacts, InstanceFacts, Listener, ProfileFacts

DRIVER = "580.95.05"
_SAFE = {
    "boot.autostart": "false", "limits.cpu": "4", "limits.memory": "16GiB", "limits.processes": "4096",
    "security.devlxd": "false", "security.idmap.isolated": "true", "security.nesting": "false",
    "security.syscalls.deny": DENIED_CALLS,
}  # fmt: skip
_ROOT = {"type": "disk", "path": "/", "pool": "pool", "size": "50GiB"}


def host_facts(state: dict[str, Any]) -> HostFacts:
    """From the host's state; `state["facts"]` may hold `version`, `local`, `driver`, `nodes`, `apparmor`, `fence`,
    `unseen`, `listeners` (lists of protocol, address, port), and `libraries` and `devices` (by instance)."""
    told = state.get("facts", {})
    gpus = tuple(GpuInfo(**gpu) for gpu in state["gpus"])
    default = {
        name: {"type": "gpu", "pci": device["pci"]}
        for item in state["instances"].values()
        for name, device in item["devices"].items()
        if not device["own"]
    }
    return HostFacts(
        version=told.get("version", "simulated"),
        local=told.get("local", True),
        gpus=gpus,
        driver=told.get("driver", DRIVER),
        nodes=frozenset(told.get("nodes", [gpu.minor for gpu in gpus])),
        apparmor=told.get("apparmor", True),
        fence=told.get("fence", "v2"),
        listeners=frozenset(Listener(*row) for row in told.get("listeners", [])),
        instances=tuple(_instance(name, item, told) for name, item in state["instances"].items()),
        profiles=(ProfileFacts("default", {}, {"root": _ROOT, **default}, len(state["instances"])),),
        unseen=tuple(told.get("unseen", [])),
    )


def _instance(name: str, item: dict[str, Any], told: dict[str, Any]) -> InstanceFacts:
    config = {**_SAFE, "security.privileged": str(item["privileged"]).lower(), **item["config"]}
    gpus = {device: {"type": "gpu", "pci": known["pci"]} for device, known in item["devices"].items()}
    devices = {"root": _ROOT, **gpus, **told.get("devices", {}).get(name, {})}
    runs = item["status"] == "running"
    return InstanceFacts(
        name,
        item["status"],
        config=config,
        devices=devices,
        own=frozenset(config) | {device for device in devices if item["devices"].get(device, {"own": True})["own"]},
        profiles=("default",),
        without_node=tuple(device for device in item["devices"] if runs and device not in item["nodes"]),
        libraries=frozenset(told.get("libraries", {}).get(name, [])) if runs else None,
    )
