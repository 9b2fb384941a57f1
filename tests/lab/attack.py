"""Attacks that try to keep a GPU when its booking ends: many machines at once, each with one of its own.

Each machine has two GPUs. One ends, the other stays; two bystanders are to live on untouched, one of which uses the GPU
that stays. The attacks themselves are in `attacks/`, and run inside.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TypeVar

from tests.lab.grips import Number
from tests.lab.lab import Lab

T, R = TypeVar("T"), TypeVar("R")
SCRIPTS = Path(__file__).with_name("attacks")
AT_ONCE = 4  # programs started side by side
BATCH = 8  # machines attacked at the same time
_KEPT = {"read", "open", "silent"}


@dataclass(frozen=True)
class Attack:
    """One of `attacks/`."""

    name: str
    plain: bool = True  # it works on LXD alone
    stuck: bool = False  # only the end of the whole machine would end it, so the GPU goes into quarantine
    alone: bool = False  # what it does, or that it is stuck, would hold up the others' GPUs
    refused: bool = False  # a machine as Berth makes it does not let it begin
    ending: int = 0  # which of its machine's two GPUs is to end
    systemd: bool = False  # it needs a machine with one
    receiver: bool = False  # there is a second machine, without a booking


@dataclass(frozen=True)
class Outcome:
    """What came of an attack."""

    tries: dict[str, str]  # what it could still do
    bystanders: dict[str, str]  # what they can do
    grips: set[str] = field(default_factory=set)  # who holds the device
    said: str = ""  # by LXD to the detach
    records: set[str] = field(default_factory=set)  # what Berth wrote down of the GPU
    why: str = ""  # it is in quarantine, or was
    seconds: float = 0.0  # from the end to that
    trouble: str = ""  # why it could not be carried out

    @property
    def kept(self) -> dict[str, str]:
        """The tries that show that the GPU can be used, or that do not show that it cannot."""
        return {name: found for name, found in self.tries.items() if found in _KEPT}

    @property
    def harmed(self) -> dict[str, str]:
        """What is not as it should be with the bystanders."""
        wanted = {"the node", "idle: alive", "reader: alive", "reader: read it", "reader: open it again"}
        found = dict.fromkeys(wanted, "no answer") | self.bystanders
        return {
            name: what for name, what in found.items() if not (what.isdigit() if "alive" in name else what == "read")
        }


@dataclass(frozen=True)
class Scenario:
    """An attack on a host, in a machine with the host's GPUs of these indices."""

    attack: Attack
    host: Lab
    machine: str
    receiver: str
    gpus: tuple[int, int]

    @property
    def ending(self) -> int:
        """The index of the GPU that is to be taken away."""
        return self.gpus[self.attack.ending]

    @property
    def staying(self) -> int:
        """The index of the other one."""
        return self.gpus[1 - self.attack.ending]

    @property
    def machines(self) -> list[str]:
        """One, or two."""
        return [name for name in (self.machine, self.receiver) if name]

    @property
    def numbers(self) -> frozenset[Number]:
        """The devices that nobody may hold any more at the end."""
        return self.host.gpus[self.ending].numbers

    def arm(self) -> str:
        """Start the bystanders, and then the attack. What went wrong, or ""."""
        try:
            self._inside(self.machine, "bystander", "hold", self.staying)
            if self.receiver:
                self._inside(self.receiver, self.attack.name, "receive", self.ending)
            self._inside(self.machine, self.attack.name, "hold", self.ending)
        except (RuntimeError, TimeoutExpired) as error:
            return str(error)
        return ""

    def probe(self) -> Outcome:
        """Have the attack try all it can."""
        try:
            found = [self._asked(name, self.attack.name, self.ending) for name in self.machines]
            tries = found[0] | {f"elsewhere, {name}": what for name, what in (found[1:] or [{}])[0].items()}
            return Outcome(tries, self._asked(self.machine, "bystander", self.staying))
        except (RuntimeError, TimeoutExpired) as error:
            return Outcome({}, {}, trouble=str(error))

    def _asked(self, machine: str, script: str, gpu: int) -> dict[str, str]:
        answer: dict[str, str] = json.loads(self._inside(machine, script, "probe", gpu))
        return answer

    def _inside(self, machine: str, script: str, mode: str, gpu: int) -> str:
        node = f"/dev/dri/card{self.host.minors[gpu]}"
        said = self.host.run(machine, "python3", f"/attacks/{script}.py", mode, node).strip()
        if not (said == "ready" or (mode == "probe" and said.startswith("{"))):
            raise RuntimeError(f"{script} {mode} in {machine}: {said or 'no word'}")
        return said


def furnish(host: Lab, folder: Path) -> None:
    """Give every machine of the host the attacks, and a directory that all of them share."""
    folder.mkdir()
    scripts, shared = folder / "attacks", folder / "shared"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    shared.mkdir()
    for path in (folder, scripts, *scripts.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shared.chmod(0o777)
    add = ("profile", "device", "add", "default")
    host.lxc(*add, "attacks", "disk", f"source={scripts}", "path=/attacks", "readonly=true")
    host.lxc(*add, "shared", "disk", f"source={shared}", "path=/shared")


def at_once(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What comes of calling for each of them, several side by side; the first error is raised at the end."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(call, items))


def in_batches(attacks: Sequence[Attack]) -> Iterator[list[tuple[int, Attack]]]:
    """Numbered, and so many at a time. Those of a batch lose the same device, as a host's GPUs have only two between
    them; so an attack that may not let go of it stands alone, at the end, and one that does not last of all: every GPU
    with that device goes into quarantine with its own."""
    numbered = sorted(enumerate(attacks), key=lambda item: item[1].stuck)
    for ending, alone in ((0, False), (1, False), (0, True)):
        same = iter([(number, one) for number, one in numbered if (one.ending, one.alone) == (ending, alone)])
        while batch := list(islice(same, 1 if alone else BATCH)):
            yield batch
