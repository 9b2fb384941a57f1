"""The simulated driver's doors: ports of a host that exists only in a file."""

from __future__ import annotations

import hashlib
from base64 import b64encode

from app.drivers.base import GiveUp
from app.drivers.doors import BUSY, CLOSED, DEVICES, REFUSED, Door, Doorway, doors_of
from app.drivers.inside import Command
from app.drivers.knocking import PortTaken
from app.drivers.simulated import SimulatedHost, State, owner_of


class FakeDoors(SimulatedHost):
    """DoorDriver for a simulated host."""

    def occupy(self, *numbers: int) -> None:
        """Let these ports, and no others, be somebody else's."""
        with self._open() as state:
            state["occupied"] = list(numbers)

    def serve_desktop(self, *ports: int) -> None:
        """Let Remote Desktop of the host itself answer at these ports, and no others."""
        with self._open() as state:
            state["desktops"] = list(ports)

    def silence(self, *doors: tuple[str, str], why: str = REFUSED) -> None:
        """Let these (instance, purpose), and no others, not answer."""
        with self._open() as state:
            state["silent"] = {f"{instance} {purpose}": why for instance, purpose in doors}

    def refuse_taken(self, state: State, what: str, item: State) -> None:
        """As LXD does: an instance with a door whose port somebody else has does not start."""
        for device in _doors(item).values():
            if _is_taken(state, device["listen"]):
                raise GiveUp(what, f"Failed to listen on {device['listen'][4:]}: bind: address already in use")

    def doorways(self) -> dict[str, Doorway]:
        """Every instance with its doors."""
        with self._call("doorways") as state:
            found = state["instances"].items()
            return {name: Doorway(item["status"], doors_of(_doors(item)), owner_of(item)) for name, item in found}

    def open_door(self, instance: str, door: Door) -> None:
        """Let the port lead there."""
        with self._call("open_door") as state:
            what = f"Open port {door.number} into {instance}"
            if (item := state["instances"].get(instance)) is None:
                raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
            if _doors(item).get(DEVICES[door.purpose]) == door.device:
                return
            if _is_taken(state, door.device["listen"]):
                raise PortTaken(door, BUSY)
            _doors(item)[DEVICES[door.purpose]] = door.device

    def close_door(self, instance: str, purpose: str) -> None:
        """Let no port lead there for this purpose."""
        with self._call("close_door") as state:
            if item := state["instances"].get(instance):
                _doors(item).pop(DEVICES[purpose], None)

    def taken(self, door: Door) -> str:
        """Why the port cannot be opened now."""
        with self._call("taken") as state:
            return BUSY if _is_taken(state, door.device["listen"]) else ""

    def knock(self, door: Door) -> str:
        """SSH answers in every machine that runs, Remote Desktop in those made from an image with a desktop."""
        with self._call("knock") as state:
            if door.number in state.get("desktops", []):
                return ""
            for name, item in state["instances"].items():
                if item["status"] == "running" and _doors(item).get(DEVICES[door.purpose]) == door.device:
                    if why := state.get("silent", {}).get(f"{name} {door.purpose}"):
                        return str(why)
                    return "" if door.purpose == "ssh" or "desktop" in item.get("image", "") else CLOSED
            return REFUSED


def says(instance: str, command: Command) -> str:
    """What a machine says that is asked for its host keys: a key that is always the same there."""
    if "ssh_host_" not in " ".join(command.argv):
        return ""
    secret = hashlib.sha256(instance.encode()).digest()
    return f"ssh-ed25519 {b64encode(bytes([0, 0, 0, 11]) + b'ssh-ed25519' + bytes([0, 0, 0, 32]) + secret).decode()}\n"


def _doors(item: State) -> State:
    found: State = item.setdefault("doors", {})
    return found


def _is_taken(state: State, listen: str) -> bool:
    """Whether somebody else has the port, or an instance that runs."""
    if int(listen.rpartition(":")[2]) in state.get("occupied", []):
        return True
    listening = [item for item in state["instances"].values() if item["status"] == "running"]
    return any(device["listen"] == listen for item in listening for device in _doors(item).values())
