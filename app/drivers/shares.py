"""Directories of the host in instances: LXD's disk devices, and what the host's own file systems say of a directory.

A device is id-mapped (`shift`): uid N inside is uid N of the host's files, whatever the instance's id range is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

# Of equal length: LXD 5.0.2 removes every device whose name starts with that of the one to remove.
SHARE_DEVICE = re.compile(r"^share-(\d{8})\Z")
BAD, WARN = "bad", "warn"
# A directory of the host that may be shared, and a place for it inside. Nothing of the system's is either.
PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*){1,8}\Z")
SYSTEM = (
    *(
        "bin",
        "boot",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "root",
        "run",
        "sbin",
        "snap",
        "sys",
        "usr",
    ),
    *(f"var/{name}" for name in ("backups", "cache", "lib", "lock", "log", "mail", "run", "snap", "spool")),
)
TOPS = {"/home", "/var", "/tmp", "/var/tmp", "/opt"}  # noqa: S108 - what lies below them may be shared, they may not


def share_device(number: int) -> str:
    """The device name of a shared directory."""
    return f"share-{number:08d}"


def proper(path: str) -> bool:
    """Whether a path may be shared, or shared into: absolute, plain, and not the system's."""
    if not PATH.match(path) or path in TOPS:
        return False
    return not any(f"{path}/".startswith(f"/{name}/") for name in SYSTEM)


def finds_none_fit(lxd: str, kernel: str) -> bool:
    """Whether this LXD tries a file system out in a way that Linux refuses from 6.9 on (canonical/lxd#13522)."""
    version, release = _numbers(lxd), _numbers(kernel)
    fixed = (5, 0, 4) if version[:2] == (5, 0) else (5, 21, 2)
    return bool(version) and version < fixed and release >= (6, 9)


def _numbers(text: str) -> tuple[int, ...]:
    """`5.21.2` or `6.9.0-12-amd64` as numbers; none for what is no version."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def overlap(one: str, other: str) -> bool:
    """Whether one of two paths lies within the other, or both are the same."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


@dataclass(frozen=True)
class Share:
    """A directory of the host in an instance. `source` on the host, `path` inside."""

    source: str
    path: str
    read_only: bool


@dataclass(frozen=True)
class SharesSeen:
    """The shared directories that an instance's own configuration has; one that Berth would not have made is None."""

    status: str
    privileged: bool
    shares: Mapping[str, Share | None] = field(default_factory=dict)
    owner: str = ""  # as Berth marked it


class ShareDriver(Protocol):
    """The part of an LxdDriver that puts directories of the host into instances."""

    def shares(self) -> dict[str, SharesSeen]:
        """By instance, the shared directories there. Raises HostUnreachable."""

    def set_shares(self, instance: str, wanted: Mapping[str, Share]) -> None:
        """Let the instance have these, by device name, and no others, at once where it runs. One whose directory is
        gone does not keep it from starting. Raises GiveUp for an instance that is missing, or privileged and to get
        any."""


@dataclass(frozen=True)
class Wish:
    """A directory to be looked at, and made ready if nothing speaks against it.

    Where people write: a common one gets the group `gid` and is set-group-id; an `own` one gets a directory for each of
    `people` (name and uid), closed to all others."""

    source: str
    read_only: bool
    own: bool = False
    gid: int = 0
    people: tuple[tuple[str, int], ...] = ()
    prepare: bool = False


@dataclass(frozen=True)
class Found:
    """One thing that speaks against a directory (BAD) or has to be known of it (WARN): a code, and the detail."""

    level: str
    code: str
    detail: str = ""


class Directories(Protocol):
    """The host's file systems."""

    def look(self, wishes: Sequence[Wish]) -> list[tuple[Found, ...]]:
        """What is to be said of each. Raises DriverError when no answer comes: a file system may hang for ever."""
