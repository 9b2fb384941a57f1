"""Doors: ports of the host that lead into an instance, and what is asked of a driver for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# Of equal length and no beginning of each other: see DEVICE_NAME in app.drivers.base.
DEVICES = {"ssh": "port-ssh", "rdp": "port-rdp"}
INSIDE = {"ssh": 22, "rdp": 3389}  # where sshd and xrdp listen
# Why a port cannot be opened now, as codes.
BUSY, NO_ADDRESS = "busy", "no_address"
# Why a door that is open does not answer, as codes.
REFUSED, SILENT, CLOSED, OTHER = "refused", "silent", "closed", "other"


@dataclass(frozen=True)
class Door:
    """A port of the host's address `listen` that leads to an instance's own 22 (`ssh`) or 3389 (`rdp`)."""

    purpose: str
    listen: str
    number: int

    @property
    def device(self) -> dict[str, str]:
        """The LXD device. It connects from within: the instance needs no network, and its address does not matter."""
        host = f"[{self.listen}]" if ":" in self.listen else self.listen
        return {
            "type": "proxy",
            "listen": f"tcp:{host}:{self.number}",
            "connect": f"tcp:127.0.0.1:{INSIDE[self.purpose]}",
            "bind": "host",
        }


@dataclass(frozen=True)
class Doorway:
    """An instance as its doors concern it. `owner`: as Berth marked it, "" for one that is not Berth's."""

    status: str
    doors: Mapping[str, dict[str, str]] = field(default_factory=dict)  # purpose → device
    owner: str = ""

    def has(self, door: Door) -> bool:
        """Whether this door, and no other, is configured for its purpose."""
        return self.doors.get(door.purpose) == door.device


class DoorDriver(Protocol):
    """The part of a driver that is about doors."""

    def doorways(self) -> dict[str, Doorway]:
        """Every instance with its doors. Raises HostUnreachable."""

    def open_door(self, instance: str, door: Door) -> None:
        """Let the port lead there; so already is fine. Raises app.drivers.knocking.PortTaken where it cannot."""

    def close_door(self, instance: str, purpose: str) -> None:
        """Let no port lead there for this purpose; a missing instance has none."""

    def taken(self, door: Door) -> str:
        """Why the host's port cannot be opened now: BUSY, NO_ADDRESS or ""."""

    def knock(self, door: Door) -> str:
        """Whether SSH or Remote Desktop answers behind an open door, by its own words: "" or why not, as a code."""


def doors_of(devices: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The doors among an instance's own devices, by purpose."""
    return {purpose: dict(devices[name]) for purpose, name in DEVICES.items() if name in devices}
