"""What a process in the agent's unit may do: run there by test_workstation.py, it prints how each attempt went as JSON.

The first lot is what the agent does all day, by the very functions it uses; the second is what nobody may make it do.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.drivers import this_host
from app.drivers.directories import looker
from app.drivers.holders import bpf, cgroups
from app.drivers.holders.nodes import PROC
from app.drivers.holders.syscalls import call

_libc = ctypes.CDLL(None, use_errno=True)


def processes() -> None:
    signal.pidfd_send_signal(os.pidfd_open(1), 0)
    os.close(call("pidfd_getfd", os.pidfd_open(1), 0, 0))
    call("kcmp", 1, os.getpid(), 2, 0, 0)
    Path("/proc/1/fd/0").readlink()
    Path("/proc/1/maps").read_bytes()


@contextmanager
def group(tree: str) -> Iterator[Path]:
    place = Path("/sys/fs/cgroup", tree, "berth-probe")
    place.mkdir()
    try:
        yield place
    finally:
        place.rmdir()


def freezing() -> None:
    trees = cgroups.hierarchies(PROC)
    for tree in filter(None, (trees.devices, trees.unified)):
        with group(tree.name if tree.name != "cgroup" else "") as place:
            for name, text in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1"), ("devices.deny", "c 1:7 rwm")):
                if (place / name).exists():
                    (place / name).write_text(text)


def fencing_by_bpf() -> None:
    unified = cgroups.hierarchies(PROC).unified
    assert unified is not None
    with group(unified.name if unified.name != "cgroup" else "") as place:
        bpf.deny(place, frozenset({(1, 7)}))


def rules() -> None:
    assert this_host.walled() == {"berthbr0"}, this_host.walled()


def sharing() -> None:
    wish = {"source": sys.argv[1], "read_only": False, "own": False, "gid": 19999, "people": [], "prepare": True}
    said = looker.look(wish, "/var/lib/lxd")
    assert not said, said
    assert Path(sys.argv[1]).stat().st_mode & stat.S_ISGID


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


MAY: dict[str, Callable[[], object]] = {
    "processes": processes, "freezing": freezing, "bpf": fencing_by_bpf, "rules": rules, "sharing": sharing,
    "own state": Path("/var/lib/berth/probe").touch,
}  # fmt: skip
MAY_NOT: dict[str, Callable[[], object]] = {
    "write to the system": Path("/usr/bin/mine").touch,
    "write to settings": Path("/etc/berth/mine").touch,
    "write to root's home": Path("/root/mine").touch,
    "change the kernel": lambda: Path("/proc/sys/kernel/core_pattern").write_text("|/mine"),
    "mount": lambda: check(_libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "load a module": lambda: check(_libc.syscall(175, None, 0, b"")),
    "leave its namespaces": lambda: check(_libc.unshare(0x40000000)),
    "make a device": lambda: os.mknod("/var/lib/berth/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "set the clock": lambda: check(_libc.settimeofday(b"\0" * 16, None)),
    "open a raw socket": lambda: check(_libc.socket(17, 3, 0)),
}


def attempt(what: Callable[[], object]) -> str:
    try:
        what()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return f"{type(error).__name__}: {error}"
    return ""


print(json.dumps([{name: attempt(what) for name, what in lot.items()} for lot in (MAY, MAY_NOT)]))
