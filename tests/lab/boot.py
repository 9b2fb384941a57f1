"""Boots a Debian in a directory as a workstation of its own: becomes its first process, systemd.

Run as a script by `workstation.py` (under `unshare`, in namespaces and a cgroup of its own), standard library only.
Arguments: one JSON object. It is as much root as this machine's root, since it is to run an LXD; what it has for itself
is what `berth host init` changes: files, devices, mounts, network, services, cgroups.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from host import emulate, mount

NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
         "kmsg": (1, 11), "fuse": (10, 229), "loop-control": (10, 237), "btrfs-control": (10, 234)}  # fmt: skip
LOOPS = 64


def main() -> None:
    wish = json.loads(sys.argv[1])
    root = Path(wish["root"])
    mount("--bind", root, root)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "sysfs", "sysfs", root / "sys")
    _cgroups(root / "sys/fs/cgroup", wish["hierarchies"])
    for name, mode in (("dev", "755"), ("run", "755"), ("tmp", "1777")):
        mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", root / name)
    _devices(root / "dev", wish["gpus"])
    for source, target in wish["shared"].items():
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        mount("--bind", source, place)
    emulate(root / "var/lib/emulated", wish["gpus"], wish["model"], root)
    _on_top(root)
    os.execve("/sbin/init", ["/sbin/init"], {"container": "lab", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def _on_top(root: Path) -> None:
    """Make `root` the root of the mount namespace, with nothing of this machine's below it."""
    old = root / "mnt"
    mount("--make-rprivate", "/")
    subprocess.run(["pivot_root", root, old], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/mnt"], check=True)
    mount("--make-rshared", "/")  # what is mounted later is seen in services too, as on any computer


def _cgroups(place: Path, hierarchies: dict[str, str]) -> None:
    """Those of this machine, from this namespace's own group down."""
    if list(hierarchies) == [""]:
        mount("-t", "cgroup2", "cgroup2", place)
        return
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    for name, options in hierarchies.items():
        (place / name).mkdir()
        kind = ["-t", "cgroup", "-o", options] if options else ["-t", "cgroup2"]
        mount(*kind, "cgroup", place / name)


def _devices(dev: Path, gpus: list[tuple[str, int, str]]) -> None:
    nodes = dict(NODES) | {f"loop{n}": (7, n) for n in range(LOOPS)}
    nodes |= {"nvidiactl": (195, 255), "nvidia-uvm": (511, 0)}
    for _, minor, drm in gpus:
        nodes[f"nvidia{minor}"] = (195, minor)
        if drm:
            major, _, number = drm.partition(":")
            nodes[f"dri/card{minor}"] = (int(major), int(number))
    (dev / "dri").mkdir()
    for name, (major, minor) in nodes.items():
        kind = stat.S_IFBLK if name.startswith("loop") and name != "loop-control" else stat.S_IFCHR
        os.mknod(dev / name, kind | 0o666, os.makedev(major, minor))
        (dev / name).chmod(0o666)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", dev / "pts")
    mount("-t", "tmpfs", "tmpfs", dev / "shm")
    for name, target in {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
                         "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}.items():  # fmt: skip
        (dev / name).symlink_to(target)
    (dev / "console").touch()


main()
