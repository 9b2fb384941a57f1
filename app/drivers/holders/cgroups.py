"""The cgroups of containers: where they are, which container a process is in, and frozen ones.

A container's root makes cgroups of any name and number below its own; only the first part of a path is LXD's.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.drivers.holders.nodes import PROC

# A line is `number:controllers:path`. Only the first part of a path is LXD's; a name holds no newline (EINVAL).
_PAYLOAD = re.compile(rb"^\d+:[^:\n]*:/(lxc\.payload\.[^/\n]+)", re.MULTILINE)
_CGROUPS_AT_MOST = 2000  # below one container; one that has more is told of, not waited for
_CGROUP_LIMIT = 1 << 18  # bytes of a process's own list: a path may be long, the trees are few
_MONITOR = b"[lxc monitor] "  # the path of its containers and a name follow
_TITLE_LIMIT = 4096
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Hierarchies:
    """Where the host's cgroup trees are mounted; None for one it does not have. `unified` is version 2."""

    devices: Path | None
    freezer: Path | None
    unified: Path | None


def hierarchies(proc: Path = PROC) -> Hierarchies:
    """The trees that this process sees."""
    found: dict[str, Path] = {}
    for line in (proc / "self" / "mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        kind, _source, options = [*tail.split(" "), "", "", ""][:3]
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), head.split(" ")[4])
        if kind == "cgroup2":
            found.setdefault("unified", Path(point))
        elif kind == "cgroup":
            for name in {"devices", "freezer"} & set(options.split(",")):
                found.setdefault(name, Path(point))
    return Hierarchies(found.get("devices"), found.get("freezer"), found.get("unified"))


def payload(pid: int, proc: Path = PROC) -> str:
    """The container's cgroup that the process is in, as LXD named it (`lxc.payload.NAME`), or "" for none.

    All trees that name one must name the same: a container's process is in its container's groups in each of them."""
    try:
        with open(f"{proc}/{pid}/cgroup", "rb") as file:
            names = set(_PAYLOAD.findall(file.read(_CGROUP_LIMIT)))
    except OSError:
        return ""
    return names.pop().decode(errors="surrogateescape") if len(names) == 1 else ""


def members() -> dict[int, str]:
    """Every process that is in a container, with the container's cgroup: cheaper than to ask each process."""
    trees = hierarchies()
    tree = trees.devices or trees.freezer or trees.unified
    found: dict[int, str] = {}
    for top in tree.glob("lxc.payload.*") if tree else ():
        with suppress(OSError, OverflowError):  # who is not found here is asked
            for group in below(top):
                found |= dict.fromkeys(map(int, (group / "cgroup.procs").read_text().split()), top.name)
    return found


def monitored(proc: Path = PROC) -> dict[str, int]:
    """The containers that run, by LXD's names for them, and their first processes: as LXC's programs that watch over
    them call themselves. They are in no container; what is in one may call itself what it likes."""
    found: dict[str, int] = {}
    for folder in proc.iterdir():
        with suppress(OSError):
            if not folder.name.isdigit() or not (name := _watches(folder)) or payload(int(folder.name), proc):
                continue
            for task in (folder / "task").iterdir():
                for child in map(int, (task / "children").read_text().split()):
                    if payload(child, proc):
                        found[name] = child
    return found


def _watches(folder: Path) -> str:
    with (folder / "cmdline").open("rb") as file:
        line = file.read(_TITLE_LIMIT).rstrip(b"\0")
    return line.rpartition(b" ")[2].decode(errors="surrogateescape") if line.startswith(_MONITOR) else ""


def below(top: Path) -> Iterator[Path]:
    """A cgroup and those in it, outer ones first. Raises OverflowError when there are too many."""
    waiting, number = [top], 0
    while waiting:
        folder = waiting.pop()
        number += 1
        if number > _CGROUPS_AT_MOST:
            raise OverflowError(f"more than {_CGROUPS_AT_MOST} cgroups")
        yield folder
        try:
            with os.scandir(folder) as entries:
                waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue


def thaw(top: Path, seconds: float) -> None:
    """Let everything in a version 1 freezer cgroup run, groups within it too: what is frozen there cannot even die."""
    deadline = time.monotonic() + seconds
    for group in below(top):
        try:
            (group / "freezer.state").write_text("THAWED")
        except FileNotFoundError:
            continue
        if time.monotonic() > deadline:
            return


def freeze(top: Path) -> None:
    """Stop everything in a version 1 freezer cgroup, as far as it goes; the kernel finishes it by itself."""
    (top / "freezer.state").write_text("FROZEN")


def frozen(top: Path) -> bool:
    """Whether the group is, or is being, frozen."""
    try:
        return (top / "freezer.state").read_text().strip() != "THAWED"
    except OSError:
        return False
