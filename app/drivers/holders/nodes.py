"""What the host's kernel shows of device nodes: LXD's device directory and mounts, read and never followed.

A container's text (mount points, process names) is data here, with a size limit. Nothing is opened by a path through a
container's own root: a link planted there would be resolved on the host. Functions take the procfs root, for tests.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from app.drivers.base import Node

PROC = Path("/proc")
NVIDIA_MAJOR = 195
_NAME_LENGTH = 40
_MOUNTINFO_LIMIT = 4 << 20  # bytes; a container may make mounts until the kernel stops it
# What LXD calls the nodes that are one GPU's alone; the second group is N of its /dev/nvidiaN.
_NODE_FILE = re.compile(r"unix\.(.+)\.dev-(?:nvidia(\d{1,3})|dri-(?:card|renderD|controlD)\d{1,3})")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_DELETED = "//deleted"  # the kernel's mark on a mount whose file is gone; the inode is as usable as before


class CannotLookError(Exception):
    """The host did not show what was asked for: that is not the same as nothing being there."""


@dataclass(frozen=True)
class HostNode:
    """A GPU's device node that LXD made for an instance."""

    device: str
    minor: int


@dataclass(frozen=True)
class Mount:
    """One line of a mountinfo: which part of its file system is mounted where."""

    root: str
    point: str


def start_time(pid: int, proc: Path = PROC) -> int | None:
    """When the process began, in clock ticks; with its id this names one process for ever. None: no such process."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
        return int(text[text.rindex(b")") + 1 :].split()[19])  # a process may have any name, brackets too
    except (OSError, ValueError, IndexError):
        return None


def name_of(pid: int, proc: Path = PROC) -> str:
    """What a process calls itself, as a record may hold it."""
    try:
        with (proc / str(pid) / "comm").open("rb") as file:
            text = file.read(64).decode(errors="replace").rstrip("\n")
    except OSError:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_NAME_LENGTH]


def devices_dir(lxd_pid: int, lxd_dir: Path, proc: Path = PROC) -> Path:
    """LXD's device directory as the daemon sees it: from a snap it is in a mount namespace of its own.

    The root passed through is the daemon's, which is trusted, never a container's."""
    path = proc / str(lxd_pid) / "root" / str(lxd_dir).lstrip("/") / "devices"
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path
    except OSError as error:
        raise CannotLookError(str(error)) from error
    raise CannotLookError(f"{path} is not a directory")


def host_nodes(directory: Path, instance: str, major: int = NVIDIA_MAJOR) -> frozenset[HostNode]:
    """The GPU nodes in LXD's device directory of an instance."""
    try:
        folder = os.open(directory / instance, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise CannotLookError(str(error)) from error
    try:
        with os.scandir(folder) as entries:
            return frozenset(node for entry in entries if (node := _host_node(folder, entry.name, major)))
    except OSError as error:
        raise CannotLookError(str(error)) from error
    finally:
        os.close(folder)


def _host_node(folder: int, name: str, major: int) -> HostNode | None:
    match = _NODE_FILE.fullmatch(name)
    if not match or match[2] is None:
        return None
    minor = int(match[2])
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(handle)
    finally:
        os.close(handle)
    genuine = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(major, minor)
    return HostNode(_decode(match[1]), minor) if genuine else None


def shut(directory: Path, instance: str, device: str) -> None:
    """Take owner and permissions from the GPU's nodes that LXD made for the instance: no copy of them can be opened
    then, and root in the container, who does not own them any more, cannot change that.

    Raises CannotLookError where the directory cannot be read."""
    try:
        folder = os.open(directory / instance, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotLookError(str(error)) from error
    try:
        for name in os.listdir(folder):
            match = _NODE_FILE.fullmatch(name)
            if match and _decode(match[1]) == device:
                _shut(folder, name)
    except OSError as error:
        raise CannotLookError(str(error)) from error
    finally:
        os.close(folder)


def _shut(folder: int, name: str) -> None:
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISCHR(os.fstat(handle).st_mode):  # by the descriptor: nothing can be put in its place meanwhile
            os.chown(f"/proc/self/fd/{handle}", 0, 0)
            os.chmod(f"/proc/self/fd/{handle}", 0)
    finally:
        os.close(handle)


def mounts(pid: int, proc: Path = PROC, limit: int = _MOUNTINFO_LIMIT) -> tuple[Mount, ...]:
    """The mounts that the process sees. Raises CannotLookError for one that is gone or whose list has more than `limit`
    bytes."""
    try:
        with (proc / str(pid) / "mountinfo").open("rb") as file:
            text = file.read(limit + 1)
    except OSError as error:
        raise CannotLookError(str(error)) from error
    if not text or len(text) > limit:
        raise CannotLookError(f"mountinfo of process {pid}: {'too long' if text else 'empty'}")
    rows = (line.split(b" ") for line in text.split(b"\n"))
    return tuple(Mount(_plain(row[3]), _plain(row[4])) for row in rows if len(row) > 5)


def mounted_nodes(instance: str, seen: tuple[Mount, ...]) -> dict[str, set[str]]:
    """By device name: where nodes that LXD made for this instance are mounted, the ones unlinked since included."""
    found: dict[str, set[str]] = {}
    for mount in seen:
        folder, _, name = mount.root.removesuffix(_DELETED).rpartition("/")
        match = _NODE_FILE.fullmatch(name)
        if match and folder.endswith("/" + instance):
            found.setdefault(_decode(match[1]), set()).add(mount.point)
    return found


def verdict(device: str, nodes: frozenset[HostNode], mounted: dict[str, set[str]]) -> Node:
    """Whether the device's node is in the instance: there when LXD made it and it is mounted in its place, absent
    when neither is so; one without the other is nothing to rely on."""
    points = mounted.get(device, set())
    made = [node for node in nodes if node.device == device]
    if made and all(f"/dev/nvidia{node.minor}" in points for node in made):
        return Node.PRESENT
    return Node.UNKNOWN if made or points else Node.ABSENT


def _decode(text: str) -> str:
    """LXD writes `/` as `-` and `-` as `--` in these file names."""
    return text.replace("--", "\0").replace("-", "/").replace("\0", "-")


def _plain(field: bytes) -> str:
    """A mountinfo field without its octal escapes."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))
