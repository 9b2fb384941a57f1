"""What leads into an instance: ports of the host, directories of the host, terminals."""

from __future__ import annotations

from collections.abc import Mapping

from app.drivers.base import DriverError, GiveUp, HostUnreachable
from app.drivers.doors import DEVICES, Door, Doorway
from app.drivers.knocking import PortTaken, knock_here, taken_here
from app.drivers.lxd import pty, shapes, shares
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.updates import Updates
from app.drivers.shares import Share, SharesSeen


class WaysIn(Updates):
    """DoorDriver's, ShareDriver's and TerminalDriver's part of the driver."""

    def doorways(self) -> dict[str, Doorway]:
        """Every instance with its doors."""
        with as_driver_errors("List the ports that lead into instances", HostUnreachable):
            every = self._wire.instances(recursion=1)
            return {str(instance["name"]): shapes.doorway(instance) for instance in every}

    def open_door(self, instance: str, door: Door) -> None:
        """Let the port lead there. LXD itself would try a taken one for six seconds, and do nothing else there."""

        def change(_current: Json, body: Json) -> bool:
            if body["devices"].get(DEVICES[door.purpose]) == door.device:
                return False
            if reason := self.taken(door):
                raise PortTaken(door, reason)
            body["devices"][DEVICES[door.purpose]] = door.device
            return True

        try:
            self._update(instance, f"Open port {door.number} into {instance}", change)
        except PortTaken:
            raise
        except DriverError as error:
            if reason := self.taken(door):  # somebody was faster
                raise PortTaken(door, reason) from error
            raise

    def close_door(self, instance: str, purpose: str) -> None:
        """Let no port lead there for this purpose."""

        def change(_current: Json, body: Json) -> bool:
            return body["devices"].pop(DEVICES[purpose], None) is not None

        self._update(instance, f"Close the {purpose} port of {instance}", change, missing_ok=True)

    def taken(self, door: Door) -> str:
        """Why the port cannot be opened now. Of another machine's only LXD can tell."""
        return taken_here(door) if self._wire.socket else ""

    def knock(self, door: Door) -> str:
        """Who answers behind the door."""
        return knock_here(door)

    def shares(self) -> dict[str, SharesSeen]:
        """By instance, the shared directories there."""
        with as_driver_errors("Look at the shared directories", HostUnreachable):
            return {item["name"]: shares.seen(item) for item in self._wire.instances(recursion=1)}

    def set_shares(self, instance: str, wanted: Mapping[str, Share]) -> None:
        """Let the instance have these and no others."""
        what = f"Share directories with {instance}"

        def change(current: Json, body: Json) -> bool:
            if wanted and shapes.privileged(current):
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            return shares.change(body, wanted)

        self._update(instance, what, change)

    def terminal(self, instance: str, columns: int, rows: int) -> pty.LxdPty:
        """Open a root shell in the running instance."""
        return pty.terminal(self._wire, instance, columns, rows)
