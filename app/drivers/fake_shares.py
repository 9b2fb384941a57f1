"""Shared directories and terminals of a simulated host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from app.drivers.base import GiveUp, TryAgain
from app.drivers.fake_terminal import FakePty
from app.drivers.shares import Share, SharesSeen
from app.drivers.simulated import SimulatedHost, instance_of, owner_of


class FakeShares(SimulatedHost):
    """ShareDriver's and TerminalDriver's part of the simulated driver."""

    def shares(self) -> dict[str, SharesSeen]:
        """By instance, the shared directories there."""
        with self._call("shares") as state:
            return {
                name: SharesSeen(
                    item["status"],
                    item["privileged"],
                    {device: Share(**share) for device, share in item.get("shares", {}).items()},
                    owner_of(item),
                )
                for name, item in state["instances"].items()
            }

    def set_shares(self, instance: str, wanted: Mapping[str, Share]) -> None:
        """Let the instance have these and no others."""
        with self._call("set_shares") as state:
            what = f"Share directories with {instance}"
            item = instance_of(state, what, instance)
            if wanted and item["privileged"]:
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            item["shares"] = {device: asdict(share) for device, share in wanted.items()}

    def terminal(self, instance: str, columns: int, rows: int) -> FakePty:
        """Nothing runs in there."""
        with self._call("terminal") as state:
            if (status := instance_of(state, f"Open a terminal in {instance}", instance)["status"]) != "running":
                raise TryAgain(f"Open a terminal in {instance}", f"the instance is {status}", "Start the instance.")
        return FakePty(instance)
