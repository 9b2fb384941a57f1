"""What is done on the host and in the machines during a fault run: by its root, by people in theirs, by death."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from app.drivers.base import device_name
from tests.lab.fault_judge import ByHand
from tests.lab.fault_members import Members
from tests.lab.fault_moves import KILLED, ORDERS, Step
from tests.lab.lab import Lab

COPIES = 2  # of machines, at one time
VICTIMS = {"agent": "workers agent", "valkey": "valkey", "postgres": "bin/postgres -D"}


class Hand(Members):
    """Carries out whatever step there is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.copies: list[str] = []
        self.snapshots: set[str] = set()
        self.foreign: list[tuple[str, str]] = []

    def order(self, name: str, **order: str) -> str:
        """Tell a machine's resident something."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            try:
                sending.sendto(json.dumps(order).encode(), str(self.watch.logs / f"{name}.sock"))
            except OSError as error:
                return str(error)
        return "told"

    def _lxc(self, step: Step, what: str, *commands: Sequence[str]) -> None:
        def work() -> str:
            for command in commands:
                self.host.lxc(*command, timeout=40)
            return "done"

        self._later(step, what, work)

    def _mark(self, name: str, what: str) -> None:
        self.watch.by_hand.append(ByHand(time.time(), name, what))

    def _stop(self, step: Step, who: int, hard: int) -> None:
        name = self.people[who]
        self._lxc(step, f"stop {name}{' hard' * hard}", ["stop", name, *(["--force"] if hard else ["--timeout", "5"])])

    def _restart(self, step: Step, who: int, hard: int) -> None:
        name = self.people[who]
        how = ["--force"] if hard else ["--timeout", "5"]
        self._mark(name, "restarted")  # LXD starts it with the devices that it had at the beginning
        self._lxc(step, f"restart {name}{' hard' * hard}", ["restart", name, *how])

    def _freeze(self, step: Step, who: int) -> None:
        self._lxc(step, f"freeze {self.people[who]}", ["pause", self.people[who]])

    def _wake_up(self, step: Step, who: int) -> None:
        self._later(step, f"wake up one from {self.people[who]} on", lambda: self.wake_up(who))

    def wake_up(self, first: int = 0) -> str:
        """Start or thaw the first machine that does not run."""
        statuses = self.statuses()
        for name in self.people[first:] + self.people[:first]:
            if statuses.get(name) in {"Stopped", "Frozen"}:
                self.host.lxc("start", name, timeout=40)
                return f"started {name}"
        return "all run"

    def statuses(self) -> dict[str, str]:
        """Every instance's status in LXD's words."""
        return {one["name"]: one["status"] for one in json.loads(self.host.lxc("list", "--format", "json"))}

    def _snapshot(self, step: Step, who: int) -> None:
        name = self.people[who]
        self.snapshots.add(name)
        self._lxc(step, f"snapshot of {name}", ["snapshot", name, "s0", "--reuse"])

    def _restore(self, step: Step, who: int) -> None:
        if self.snapshots:
            name = sorted(self.snapshots)[who % len(self.snapshots)]
            self._mark(name, "restored")
            self._lxc(step, f"restore {name}", ["restore", name, "s0"])

    def _copy(self, step: Step, who: int) -> None:
        name, copy = self.people[who], self.host.unique("c")
        old = self.copies[: max(0, len(self.copies) + 1 - COPIES)]
        self.copies = [*self.copies[len(old) :], copy]
        self._mark(copy, f"copied from {name}")
        removed = [["delete", "--force", one] for one in old]
        self._lxc(
            step, f"start {copy}, a copy of {name}", *removed, ["copy", name, copy, "--instance-only"], ["start", copy]
        )

    def _remove_copy(self, step: Step) -> None:
        if self.copies:
            name = self.copies.pop(0)
            self._lxc(step, f"remove {name}", ["delete", "--force", name])

    def _add(self, step: Step, name: str, gpu: int, device: str) -> None:
        self._mark(name, f"GPU {gpu} added")
        address = self.host.gpus[gpu].pci_address
        command = ["config", "device", "add", name, device, "gpu", f"pci={address}"]
        self._lxc(step, f"add {device} to {name} by hand", command)

    def _add_ours(self, step: Step, who: int, gpu: int) -> None:
        self._add(step, self.people[who], gpu, device_name(self.host.gpus[gpu].pci_address))

    def _add_foreign(self, step: Step, who: int, gpu: int) -> None:
        self.foreign.append((self.people[who], f"by-hand-{gpu}"))
        self._add(step, self.people[who], gpu, f"by-hand-{gpu}")

    def _remove_foreign(self, step: Step) -> None:
        if self.foreign:
            name, device = self.foreign.pop(0)
            self._lxc(step, f"remove {device} of {name}", ["config", "device", "remove", name, device])

    def _remove_ours(self, step: Step, who: int, gpu: int) -> None:
        """Of somebody who has one, if anybody has."""
        name, minor = self._one(who + 5 * gpu) or (self.people[who], self.host.minors[gpu])
        device = device_name(next(one.pci_address for one in self.host.gpus if one.minor == minor))
        self._lxc(step, f"remove {device} of {name} by hand", ["config", "device", "remove", name, device])

    def _one(self, which: int) -> tuple[str, int] | None:
        """A person who has a GPU now, and that GPU."""
        now = sorted(pair for pair in self.watch.now() if pair[0] in self.people)
        return now[which % len(now)] if now else None

    # In the machines

    def _hold(self, step: Step, who: int, how: int) -> None:
        """Mostly somebody who has a GPU; else it waits for one."""
        name, _ = (self._one(who) if how % 2 else None) or (self.people[who], 0)
        self._now(
            step, f"{name} holds what it gets, {ORDERS[how]}", lambda: self.order(name, do="hold", how=ORDERS[how])
        )

    def _keep(self, step: Step, who: int) -> None:
        name = self.people[who]
        self._now(step, f"{name} mounts copies of its nodes", lambda: self.order(name, do="keep"))

    # Time, and death

    def _wait(self, step: Step) -> None:
        def work() -> str:
            time.sleep(1.02 - time.time() % 1)
            return "so it is"

        self._now(step, "wait for the next second", work)

    def _kill(self, step: Step, which: int) -> None:
        what = KILLED[which]
        self._later(step, f"kill {what}", self._restart_lxd if what == "lxd" else lambda: self._murder(what))

    def _murder(self, what: str) -> str:
        pids = self.scene.berth.pids(VICTIMS[what])
        if not pids:
            return "it was dead"
        if what != "valkey":  # without wakes there are ticks
            self.watch.killed(what)
        os.kill(pids[0], signal.SIGKILL)
        return f"process {pids[0]}"

    def _restart_lxd(self) -> str:
        away = self.watch.killed("lxd")
        away.again = float("inf")
        self.host.restart(kill=True)
        away.again = time.time()
        return "started again"


def furnished(host: Lab, logs: Path) -> tuple[str, ...]:
    """Give each machine of the host its resident; options with which a machine is launched."""
    logs.mkdir()
    logs.chmod(0o777)
    script = logs / "resident.py"
    script.write_bytes(Path(__file__).with_name("resident.py").read_bytes())
    script.chmod(0o644)
    host.lxc("profile", "device", "add", "default", "logs", "disk", f"source={logs}", "path=/logs")
    minors = " ".join(map(str, host.minors))
    return ("-c", f"raw.lxc=lxc.init.cmd=/usr/bin/python3 -I /logs/resident.py /logs {minors}")
