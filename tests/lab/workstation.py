"""A fresh Debian to be set up: `with Workstation(directory, gpus=2) as host: host.run("berth", …)`.

systemd is its first process, in namespaces and cgroups of its own, on a disk that debootstrap filled; nothing but the
kernel is this machine's. It reaches the outside by NAT. Nobody has installed anything: what Berth installs lies in
apt's cache already, so that it needs no mirror, and takes it from there where there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import registry
from tests.lab.image import image
from tests.lab.lab import MODEL
from tests.lab.remains import remove_workstation, workstation_name
from tests.runtime.running import wait_for

ROOT = Path(__file__).resolve().parents[2]
CGROUPS = Path("/sys/fs/cgroup")
_PLAIN = {"rw", "relatime", "nosuid", "nodev", "noexec", "nsdelegate", "memory_recursiveprot", "xattr"}
_NFT = """table ip {name} {{
    chain out {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {net} masquerade
    }}
}}
"""


class Workstation:
    """One in `directory`; `shared`: directories of this machine, and where it sees them."""

    def __init__(self, directory: Path, gpus: int = 1, shared: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.root = directory / "rootfs"
        self.name = workstation_name(directory)
        self._gpus = gpus
        self._shared = {str(ROOT): str(ROOT), sys.prefix: sys.prefix, **(shared or {})}
        self._launched: subprocess.Popen[bytes] | None = None
        self._first = 0  # its first process, as this machine numbers it
        self._groups = _hierarchies()

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        return f"{self._net}.2"

    @property
    def _net(self) -> str:
        number = zlib.crc32(self.name.encode())
        return f"198.18.{number % 256}"

    def __enter__(self) -> Self:
        try:
            self._unpack()
            self._launch()
            self._connect()
            self._await()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def run(self, *command: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program in there as root, as over SSH; both its streams."""
        settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **environment}
        words = ["env", "-i", *(f"{key}={value}" for key, value in settings.items()), *command]
        return subprocess.run(
            self._entering(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def must(self, *command: str, timeout: float = 60, **environment: str) -> str:
        """What a program that may not fail says."""
        done = self.run(*command, timeout=timeout, **environment)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}"
        return done.stdout

    def _entering(self, *words: str) -> list[str]:
        """In its cgroups, so that it ends with them; where systemd keeps its own, only there."""
        enter = ["nsenter", f"--target={self._first}", "--all", "--root", "--wd", "--", *words]
        return _in_groups([CGROUPS / name / self.name for name in self._groups], enter)

    def _unpack(self) -> None:
        self.root.mkdir(parents=True)
        unpack = ["tar", "-C", str(self.directory), "--numeric-owner", "-xf", str(image("workstation"))]
        subprocess.run(unpack, check=True, capture_output=True)
        resolver = Path("/run/systemd/resolve/resolv.conf")  # where this machine's own is a program of its own
        shutil.copy(resolver if resolver.exists() else "/etc/resolv.conf", self.root / "etc/resolv.conf")

    def _launch(self) -> None:
        record = registry.enter(self.directory, self._gpus, None, owned=True, readable=True)
        drm = ["{}:{}".format(*registry.READABLE[place % 2]) for place in range(self._gpus)]
        gpus = [(f"0000:{n + 1:02x}:00.0", minor, drm[n]) for n, minor in enumerate(record.minors)]
        for name in self._groups:
            _make_group(CGROUPS / name / self.name)
        wish = {"root": str(self.root), "hierarchies": self._groups, "gpus": gpus, "model": MODEL,
                "shared": self._shared}  # fmt: skip
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child"]
        become = ["setpriv", "--pdeathsig=KILL", "unshare", *namespaces, "--propagation", "private", sys.executable,
                  str(Path(__file__).with_name("boot.py")), json.dumps(wish)]  # fmt: skip
        with (self.directory / "console").open("w") as console:
            self._launched = subprocess.Popen(
                _in_groups([CGROUPS / name / self.name for name in self._groups], become),
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        children = Path(f"/proc/{self._launched.pid}/task/{self._launched.pid}/children")
        self._first = int(wait_for(lambda: children.read_text().split(), 10, "its first process is there")[0])
        wait_for(self._is_init, 20, "that is systemd")

    def _is_init(self) -> bool:
        assert self._launched is not None
        assert self._launched.poll() is None, (self.directory / "console").read_text()
        return Path(f"/proc/{self._first}/comm").read_text() == "systemd\n"

    def _connect(self) -> None:
        """A cable to this machine, which passes on for it what is not for itself."""
        inside = ["nsenter", f"--target={self._first}", "--net"]
        for command in (
            ["ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self._first)],
            ["ip", "address", "add", f"{self._net}.1/24", "dev", self.name],
            ["ip", "link", "set", self.name, "up"],
            [*inside, "ip", "address", "add", f"{self.address}/24", "dev", "eth0"],
            [*inside, "ip", "link", "set", "eth0", "up"],
            [*inside, "ip", "link", "set", "lo", "up"],
            [*inside, "ip", "route", "add", "default", "via", f"{self._net}.1"],
            ["sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        rules = _NFT.format(name=self.name, net=f"{self._net}.0/24")
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)

    def _await(self) -> None:
        """Until it is up, whatever does not start in a machine without hardware."""
        ask = ("systemctl", "is-system-running")
        wait_for(lambda: self.run(*ask).stdout.strip() in {"running", "degraded"}, 60, "it is up")

    def down(self) -> None:
        """End it and remove every trace."""
        if self._launched:
            with suppress(ProcessLookupError):
                os.kill(self._first or self._launched.pid, signal.SIGKILL)
            remove_workstation(self.directory)
            self._launched.wait(20)
        if record := registry.find(self.directory):
            registry.leave(record)
        shutil.rmtree(self.directory, ignore_errors=True)


def _in_groups(groups: list[Path], words: list[str]) -> list[str]:
    """The command that runs this one in those cgroups. systemd's own group, where version 2 lets it be in no other."""
    join = " ".join(map(str, groups))
    script = f"for d in {join}; do [ ! -d $d/init.scope ] || d=$d/init.scope; echo 0 >$d/cgroup.procs || exit 1; done"
    return ["sh", "-c", f'{script}; exec "$@"', "in-groups", *words]


def _hierarchies() -> dict[str, str]:
    """This machine's cgroup trees: each one's place, and what it is mounted with; nothing for version 2."""
    found = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind in {"cgroup", "cgroup2"} and Path(point).is_relative_to(CGROUPS):
            asked = [word for word in options.split(",") if word not in _PLAIN]
            found[str(Path(point).relative_to(CGROUPS))] = ",".join(asked) if kind == "cgroup" else ""
    return found


def _make_group(place: Path) -> None:
    place.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts with none, and lets nobody in
        if (place / "cgroup.clone_children").exists() and (place / name).exists():
            (place / name).write_text((place.parent / name).read_text())
