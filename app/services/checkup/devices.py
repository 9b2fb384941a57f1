"""Which devices of an instance hand a GPU over, whatever they are called."""

from __future__ import annotations

from app.drivers.base import NVIDIA_MAJOR
from app.drivers.facts import Device

_SHARED = {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}  # no GPU by themselves
_SHARED_MINORS = 250  # 195:254 and 195:255 belong to all GPUs


def brings_gpu(device: Device) -> str:
    """What of a GPU the device hands over, in words; "" if nothing."""
    kind, source = device.get("type", ""), device.get("source") or device.get("path", "")
    if kind == "gpu":
        chosen = [f"{key}={device[key]}" for key in ("pci", "id", "vendorid", "productid") if device.get(key)]
        return f"a GPU by {' '.join(chosen)}" if chosen else "every GPU of the host"
    if kind in {"unix-char", "unix-hotplug"} and _is_node(source, device.get("major", ""), device.get("minor", "")):
        return f"the node {source or device.get('minor', '')}"
    if kind == "disk" and (source.rstrip("/") in {"", "/dev", "/dev/dri"} or _is_node(source, "", "")):
        return f"{source or '/'} of the host, device nodes and all" if _of_the_host(device) else ""
    return ""


def _of_the_host(device: Device) -> bool:
    """A disk whose source is a path of the host's, not a volume of a pool."""
    return not device.get("pool") and device.get("source", "").startswith("/")


def _is_node(source: str, major: str, minor: str) -> bool:
    if major == str(NVIDIA_MAJOR):
        return minor.isdigit() and int(minor) < _SHARED_MINORS
    return (source.startswith("/dev/nvidia") and source not in _SHARED) or source.startswith("/dev/dri/")
