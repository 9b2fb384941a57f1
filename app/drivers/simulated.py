"""A simulated host's state: a JSON file that several processes share, and what tests may do to it."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.drivers.base import TAG_PREFIX, DriverError, GiveUp, HostUnreachable, TryAgain
from app.drivers.lifecycle import BESIDE

OWNER = TAG_PREFIX + "owner"
_KINDS = {kind.__name__: kind for kind in (DriverError, GiveUp, HostUnreachable, TryAgain)}

State = dict[str, Any]


class SimulatedHost:
    """The host in `path`. Options count when the file is made, on first use.

    `pace` stretches the simulated work: 1 as on a small workstation, 0 without any delay.
    """

    def __init__(
        self,
        path: Path,
        *,
        gpus: int = 4,
        model: str = "NVIDIA RTX A6000",
        first_minor: int = 0,
        pace: float = 1.0,
    ) -> None:
        self._path = path
        self._options = gpus, model, first_minor, pace

    def fail_next(self, method: str, error: DriverError, times: int = 1, *, after: int = 0) -> None:
        """Let the next `times` calls of `method` (`*`: of any) fail; `after` so many that still go well."""
        fault = {
            "method": method, "kind": type(error).__name__, "arguments": [error.what, error.detail, error.todo],
            "times": times, "after": after,
        }  # fmt: skip
        with self._open() as state:
            state["faults"].append(fault)

    def unreachable(self, value: bool = True) -> None:
        """Let every call raise HostUnreachable, or no more."""
        with self._open() as state:
            state["unreachable"] = value

    def lie(self, *, attach: bool = False, detach: bool = False) -> None:
        """Say done of an attach that makes no node, of a detach that leaves it there; without arguments no more."""
        with self._open() as state:
            state["lies"] = {"attach": attach, "detach": detach}

    def answer(self, instance: str, status: int, text: str = "") -> None:
        """Let commands in this instance end so."""
        with self._open() as state:
            state.setdefault("answers", {})[instance] = [status, text]

    def ran(self, instance: str) -> list[list[str]]:
        """The commands that were run in there, the last hundred of the host's."""
        with self._open() as state:
            return [argv for name, *argv in state.get("ran", []) if name == instance]

    def add_instance(self, name: str, status: str = "running", *, owner: str = "", privileged: bool = False) -> None:
        """Put an instance there that Berth did not make."""
        with self._open() as state:
            state["instances"][name] = new_instance(status, owner=owner, privileged=privileged)

    def plug(self, instance: str, device: str, pci: str = "", *, own: bool = True, tag: str = "") -> None:
        """Give an instance a GPU device behind Berth's back; from a profile if not its `own`."""
        with self._open() as state:
            item = state["instances"][instance]
            item["devices"][device] = {"pci": pci, "own": own}
            item["nodes"] += [device] if item["status"] == "running" else []
            if tag:
                item["config"][TAG_PREFIX + device] = tag

    def report(self, **facts: Any) -> None:
        """Let a check be told these facts of the host (JSON, see fake_facts) in place of faultless ones."""
        with self._open() as state:
            state.setdefault("facts", {}).update(facts)

    def calls(self) -> list[str]:
        """Which methods were called, in order, failed ones too; the last thousand."""
        with self._open() as state:
            return list(state["calls"])

    def _pause(self, seconds: float) -> None:
        with self._open() as state:
            pace = state["pace"]
        time.sleep(seconds * pace)

    @contextmanager
    def _call(self, method: str) -> Iterator[State]:
        """A call of the driver's: written down, and failing if it was told to."""
        with self._open() as state:
            state["calls"] = [*state["calls"][-999:], method]
            if trouble := _due(state, method):
                raise trouble
            yield state

    @contextmanager
    def _open(self) -> Iterator[State]:
        """The host's state, for this caller alone; kept whatever is raised, so look before you change it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = self._path.read_text() if self._path.exists() else ""
            state = json.loads(text) if text else self._first()
            try:
                yield state
            finally:
                if (changed := json.dumps(state)) != text:
                    self._path.with_suffix(".new").write_text(changed)
                    self._path.with_suffix(".new").replace(self._path)

    def _first(self) -> State:
        gpus, model, first_minor, pace = self._options
        addresses = [f"0000:{n:02x}:00.0" for n in range(1, gpus + 1)]
        return {
            "gpus": [
                {"pci_address": address, "model": model, "minor": minor, "uuid": f"GPU-{self._path.stem}-{minor}"}
                for minor, address in enumerate(addresses, start=first_minor)
            ],
            "images": [
                {"alias": "base", "description": "Debian with SSH", "size_bytes": 82_000_000},
                {"alias": "desktop", "description": "Debian with a desktop (Xfce)", "size_bytes": 250_000_000},
            ],
            "instances": {}, "faults": [], "calls": [], "lies": {}, "unreachable": False, "pace": pace,
        }  # fmt: skip


def new_instance(status: str, *, owner: str = "", privileged: bool = False) -> State:
    """An instance's state, without devices."""
    config = {OWNER: owner} if owner else {}
    return {"status": status, "privileged": privileged, "config": config, "devices": {}, "nodes": []}


def instance_of(state: State, what: str, name: str) -> State:
    """The instance's state. Raises GiveUp where there is none."""
    item: State | None = state["instances"].get(name)
    if item is None:
        raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
    return item


def owner_of(item: State | None) -> str:
    """Whose it is, as Berth marked it; "" for one that is not Berth's, or none."""
    return str(item["config"].get(OWNER, "")) if item else ""


def clear(state: State, name: str, owner: str) -> None:
    """Remove what a rebuild or a move of it would leave on a real host, where it can fail half-way."""
    for end in BESIDE:
        if owner_of(state["instances"].get(name + end)) == owner:
            del state["instances"][name + end]


def _due(state: State, method: str) -> DriverError | None:
    """The error that this call was told to fail with."""
    if state["unreachable"]:
        return HostUnreachable("Connect to LXD", "the simulated host is switched off", "Switch it on again.")
    for fault in state["faults"]:
        if fault["method"] not in {method, "*"}:
            continue
        if fault["after"]:
            fault["after"] -= 1
            continue
        fault["times"] -= 1
        state["faults"] = [item for item in state["faults"] if item["times"] > 0]
        return _KINDS[fault["kind"]](*fault["arguments"])
    return None
