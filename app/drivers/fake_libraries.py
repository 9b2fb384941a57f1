"""NVIDIA's libraries on a simulated host: what would be lent to a machine is noted with it."""

from __future__ import annotations

import time

from app.drivers.base import GiveUp
from app.drivers.fake_facts import DRIVER
from app.drivers.libraries import DUE, INSIDE, Brought, Way, Why
from app.drivers.simulated import SimulatedHost, State, instance_of


class FakeLibraries(SimulatedHost):
    """A part of FakeLxd."""

    def bring_libraries(self, wanted: Way | None = None) -> Brought:
        """Nothing runs in simulated machines: each way is as good."""
        with self._call("bring_libraries") as state:
            state["libraries"] = wanted or Way.MOUNT
            return Brought(wanted or Way.MOUNT, Why.CHOSEN if wanted else Why.NO_TOOLS, DRIVER)

    def lend_libraries(self, instance: str) -> bool:
        """Note which way they came; by nvidia.runtime they do with a start."""
        with self._call("lend_libraries") as state:
            what, way = f"Give {instance} NVIDIA's libraries", state.get("libraries", Way.INSTALL)
            item = instance_of(state, what, instance)
            if way == Way.INSTALL:
                detail = "this host brings no libraries into machines"
                raise GiveUp(what, detail, "Install those of its driver's version in the machine.")
            if item["privileged"]:
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            if item.get("lent", ("", 0))[0] != way:
                at_once = way == Way.MOUNT and item["status"] == "running"
                item["lent"] = [way, 0 if at_once else time.time()]
            return _due(item)


def lend_to_new(state: State) -> State:
    """What a machine gets as it is made."""
    way = state.get("libraries", Way.INSTALL)
    return {} if way == Way.INSTALL else {"lent": [way, 0]}


def lent(item: State) -> tuple[dict[str, str], dict[str, str]]:
    """Keys and devices that an instance has of it, as a look shows them."""
    way = item.get("lent", ("", 0))[0]
    if not way:
        return {}, {}
    due = {DUE: "true"} if _due(item) else {}
    if way == Way.RUNTIME:
        return {"nvidia.runtime": "true", **due}, {}
    return due, {"nvidia-lib": f"disk path={INSIDE} readonly=true"}


def _due(item: State) -> bool:
    """`at` is 0 where they were there at once."""
    _way, at = item["lent"]
    return at > 0 and item.get("started", 0) <= at
