"""A real LXD with emulated GPUs, on any Debian machine with root: `with Lab(directory, gpus=2) as lab: ...`.

Everything lies in the lab's own directory (LXD_DIR too), but for device nodes in /dev and the containers' cgroups;
`down` removes all of it, `sweep` does so for labs whose program was killed. Two labs at once are two hosts: equal PCI
addresses, different minors. They share the kernel's cgroups, so their instances need different names.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tests.lab import registry
from tests.lab.image import image
from tests.lab.remains import bridge_name, down, environment, sweep

if TYPE_CHECKING:
    from app.drivers.base import GpuInfo

MODEL = "NVIDIA RTX A6000"
BUSY = 40.0  # seconds for which LXD may be at something else with an instance
# A start of LXD 5.0 fails so now and then, and goes on when it is asked for again: as in app.drivers.lxd.instances.
STARTS, HALF_WAY = {"launch", "start", "restart"}, ("lxd forkstart", "Failed to change ownership of")
AWAY = "unix.socket: connect: "  # how it begins what it says of a LXD that does not listen
FREED = 60.0  # seconds in which a pool has to have room again
STEP = 50  # MiB to which a filler fills it
REMOVALS = 4  # times that BUSY: a change that hangs has an instance to itself for 30 s
# LXD's own client hears nothing of one in a hundred commands that end at once, of none that ends a moment later.
LINGER = '"$0" "$@"; status=$?; sleep 0.1; exit $status'
_numbers = itertools.count(1)


class Lab:
    """One LXD daemon in `directory`, whose host shows `gpus` emulated GPUs from PCI address 0000:01:00.0 on.

    `first_minor`: N of the first /dev/nvidiaN, by itself one that is free. `snap`: the device directory is hidden in
    the daemon's mount namespace. `readable`: each GPU brings along a /dev/dri/cardN that can be opened and read; those
    of neighbours are different devices.
    `bridge`: give it a network of Berth's for its machines, with NAT to the outside; `lab.bridge` is its name.
    `preload`: a library that LXD is started with.
    `owned`: take it down when this program ends or, if it is killed, at the next `sweep`.
    """

    def __init__(
        self,
        directory: Path | str,
        gpus: int = 2,
        first_minor: int | None = None,
        *,
        name: str = "",
        snap: bool = False,
        readable: bool = False,
        bridge: bool = False,
        owned: bool = True,
        preload: Path | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.name = name or self.directory.name
        self.lxd_dir = self.directory / "lxd"
        self.socket = self.lxd_dir / "unix.socket"
        self.minors: list[int] = []
        self.snap = snap
        self._wish = (gpus, first_minor, owned)
        self._readable, self._preload = readable, preload
        self.bridge = bridge_name(self.directory) if bridge else ""
        self._daemon: subprocess.Popen[bytes] | None = None
        self._restarting = threading.Lock()  # held while it is away by our doing
        self._namespace = -1  # a descriptor of where the daemon sees its emulated GPUs: it outlives the daemon

    @property
    def gateway(self) -> str:
        """The bridge's address. LXD looks for a free network by itself, but not where a router answers for them all."""
        number = zlib.crc32(self.bridge.encode())
        return f"10.{100 + number % 100}.{number // 100 % 256}.1"

    @property
    def gpus(self) -> list[GpuInfo]:
        """The emulated GPUs."""
        from app.drivers.base import GpuInfo  # not at the top: a lab by hand needs no more than the standard library

        return [GpuInfo(address, MODEL, minor, drm=frozenset(drm)) for address, minor, drm in self._cards()]

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self, *, with_image: bool = True, bare: bool = False) -> None:
        """Start the daemon and make its storage pool and image ready; `bare`: nothing but the daemon."""
        tarball = image("networked" if self.bridge else "base") if with_image and not bare else None
        sweep()
        gpus, first_minor, owned = self._wish
        record = registry.enter(self.directory, gpus, first_minor, owned=owned, readable=self._readable)
        self.minors = record.minors
        try:
            record.daemon = self._start()
            registry.write(record)
            self._namespace = os.open(f"/proc/{record.daemon}/ns/mnt", os.O_RDONLY)
            self.lxc("config", "set", "images.auto_update_interval", "0")
            if bare:
                return
            self.lxc("storage", "create", "pool", "btrfs", "size=32GiB")
            self.lxc("profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool")
            if self.bridge:
                self._add_bridge()
            if tarball:
                self.lxc("image", "import", str(tarball), "--alias", "base", timeout=300)
        except BaseException:
            self.down()
            raise

    def restart(self, *, kill: bool = False) -> None:
        """Stop LXD, or kill it, and start it again, its instances running on."""
        with self.without_lxd(kill=kill):
            pass

    @contextmanager
    def without_lxd(self, *, kill: bool = True) -> Iterator[None]:
        """LXD is killed, or stopped, and started again afterwards; its instances run on meanwhile."""
        if not self._daemon:
            raise RuntimeError("no daemon of this program's to restart")
        with self._restarting:
            try:
                # SIGPWR would stop the instances too
                self._daemon.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
                self._daemon.wait(20)
                yield
            finally:
                self._start_again()

    def revived(self) -> bool:
        """Whether LXD was away by nobody's doing: 5.0 aborts now and then, or has lost its socket and hears no more.
        Then it is started again, as systemd does on a host, and a warning says what it was."""
        if not self._daemon or not self._restarting.acquire(blocking=False):
            return False
        try:
            status = self._daemon.poll()
            if status is None and self.socket.exists():
                return False
            how = "lost its socket" if status is None else f"ended with {status}"
            warnings.warn(f"LXD {how}, and is started again: {self.said()}", stacklevel=2)
            self._daemon.kill()
            self._daemon.wait(20)
            self._start_again()
            return True
        finally:
            self._restarting.release()

    def down(self) -> None:
        """Stop and remove everything; what is not there is no trouble."""
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1
        down(self.directory)
        if self._daemon:
            self._daemon.wait(5)

    def lxc(self, *arguments: str, timeout: float = 60, check: bool = True) -> str:
        """Run the `lxc` command on this daemon; returns what it wrote. Where LXD is at something else with the instance
        it is asked again, as a person would; so is a start that it gives up half-way, and one that was away."""
        until = time.monotonic() + BUSY
        while True:
            done = subprocess.run(
                ["lxc", *arguments],
                env=self._env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            )  # fmt: skip
            half_way = arguments[0] in STARTS and any(words in done.stderr for words in HALF_WAY)
            again = half_way or "is busy running" in done.stderr or (AWAY in done.stderr and check and self.revived())
            if not check or not again or time.monotonic() > until:
                break
            if half_way:
                warnings.warn(f"{done.stderr.strip()[-300:]}: {self.said()}", stacklevel=2)
                arguments = ("start", arguments[2] if arguments[0] == "launch" else arguments[1])
            time.sleep(0.2)
        if check and done.returncode:
            raise RuntimeError(f"lxc {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def said(self) -> str:
        """The end of what the daemon wrote; where it crashed, that, from its beginning."""
        text = (self.directory / "lxd.out").read_text(errors="replace")
        crash = max(text.find(word) for word in ("SIGABRT", "SIGSEGV", "fatal error:", "panic:"))
        return text[max(0, crash - 1000) :][:3000] if crash >= 0 else text[-1000:]

    def preseed(self, wish: dict[str, Any]) -> None:
        """Give it a configuration, as `lxd init --preseed` reads it: JSON is YAML."""
        done = subprocess.run(
            ["lxd", "init", "--preseed"],
            env=self._env(), input=json.dumps(wish), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"lxd init --preseed: {done.stderr.strip()}")

    def launch(self, name: str = "", *options: str, owner: str = "") -> str:
        """Start an unprivileged instance (`options` as for `lxc launch`); returns its name, by itself a unique one
        and its owner's too."""
        name = name or self.unique()
        marks = ["-c", f"user.berth.owner={owner or name}", "-c", "security.idmap.isolated=true"]
        self.lxc("launch", "base", name, *marks, *options)
        return name

    def unique(self, prefix: str = "t") -> str:
        """An instance name that no other lab of this machine uses."""
        return f"{prefix}-{os.getpid()}-{next(_numbers)}"

    def run(self, instance: str, *command: str, timeout: float = 20) -> str:
        """Run a command in an instance; returns its output, both streams."""
        done = subprocess.run(
            ["lxc", "exec", "--force-noninteractive", instance, "--", "sh", "-c", LINGER, *command],
            env=self._env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        return done.stdout

    def gpu_nodes(self, instance: str) -> set[int]:
        """Which /dev/nvidiaN the instance itself sees."""
        names = self.run(instance, "ls", "/dev").split()
        if "null" not in names:
            raise RuntimeError(f"ls /dev in {instance}: {' '.join(names)}")
        return {int(name[6:]) for name in names if name.startswith("nvidia") and name[6:].isdigit()}

    def sql(self, statement: str) -> None:
        """Change LXD's database behind its back."""
        command = ["lxd", "sql", "global", statement]
        subprocess.run(command, env=self._env(), capture_output=True, check=True, timeout=20)

    @contextmanager
    def without_node(self, minor: int) -> Iterator[None]:
        """A host on which NVIDIA's driver has not made /dev/nvidiaN."""
        Path(f"/dev/nvidia{minor}").unlink()
        try:
            yield
        finally:
            registry.make_node(f"nvidia{minor}", 195, minor)

    @contextmanager
    def filled(self, pool: str) -> Iterator[None]:
        """A storage pool without room: something else lies in it."""
        filler = self.lxd_dir / "storage-pools" / pool / "filler"
        take = f"fallocate -l ${{size}}M {filler} 2> /dev/null && echo $size && exit"
        size = int(self.as_lxd(f"for size in $(seq 900 -{STEP} {STEP}); do {take}; done; exit 1"))
        try:
            yield
        finally:
            self.as_lxd(f"rm {filler}")
            self._has_room(filler, size - STEP)

    def _has_room(self, probe: Path, size: int) -> None:
        """Wait for so many MiB. btrfs takes away what was deleted when it finds the time, and on a busy machine some of
        it not for minutes (`btrfs subvolume sync` waits for all): what is needed is room."""
        until = time.monotonic() + FREED
        script = (
            f"sync -f {probe.parent}; fallocate -l {max(size, 1)}M {probe} 2> /dev/null && echo room; rm -f {probe}"
        )
        while "room" not in self.as_lxd(script):
            if time.monotonic() > until:
                use = self.as_lxd(f"btrfs filesystem df {probe.parent} 2>&1 || true").strip()
                raise RuntimeError(
                    f"{probe.parent}: no room for {size} MiB {FREED:.0f} s after it was given back: {use}"
                )
            time.sleep(0.2)

    def as_lxd(self, script: str) -> str:
        """Run a script where LXD's own mounts are, its storage pools above all; returns what it wrote."""
        place = f"--mount=/proc/{registry.find(self.directory).daemon}/ns/mnt"  # type: ignore[union-attr]
        asked = ["nsenter", place, "sh", "-c", script]
        return subprocess.run(asked, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout

    def remove(self, *names: str) -> None:
        """Delete instances, whatever they or an agent are doing with them. What stays all the same is warned of."""
        for name in names:
            for _ in range(REMOVALS):
                self.lxc("config", "set", name, "security.protection.delete=false", check=False)  # as Berth has it
                try:
                    self.lxc("delete", "--force", name)
                except RuntimeError as error:
                    if "not found" in str(error):
                        break
                    warnings.warn(str(error), stacklevel=2)
                else:
                    break

    def _cards(self) -> list[tuple[str, int, list[tuple[int, int]]]]:
        """Each GPU's address, its minor, and the number of its DRM node if it is to have one."""
        drm = [[number] if self._readable else [] for number in registry.READABLE]
        return [(f"0000:{n + 1:02x}:00.0", minor, drm[n % 2]) for n, minor in enumerate(self.minors)]

    def _add_bridge(self) -> None:
        from app.drivers.lxd.network import BRIDGE_CONFIG

        config = {**BRIDGE_CONFIG, "ipv4.address": f"{self.gateway}/24"}
        self.lxc("network", "create", self.bridge, *(f"{key}={value}" for key, value in config.items()))

    def _start(self) -> int:
        self.lxd_dir.mkdir(parents=True)
        for folder in self.lxd_dir.parents:  # container root is nobody on the host, and has to get through to its files
            if not folder.stat().st_mode & 0o001:
                raise RuntimeError(f"{folder} is closed to others (chmod o+x): a container could not reach its files")
        wish = {
            "lxd_dir": str(self.lxd_dir),
            "emulated": str(self.directory / "emulated"),
            "gpus": [(address, minor, "".join(f"{a}:{b}" for a, b in drm)) for address, minor, drm in self._cards()],
            "model": MODEL,
            "snap": self.snap,
        }
        script = Path(__file__).with_name("host.py")
        return self._spawn(
            "unshare", "--mount", "--propagation", "private", sys.executable, str(script), json.dumps(wish)
        )

    def _start_again(self) -> None:
        record = registry.find(self.directory)
        assert record
        lxd = ["lxd", "--group", "root", "--logfile", str(self.directory / "lxd.log")]
        enter = ["nsenter", f"--mount=/proc/self/fd/{self._namespace}"]
        record.daemon = self._spawn(*enter, *lxd, pass_fds=(self._namespace,))
        registry.write(record)

    def _spawn(self, *command: str, pass_fds: tuple[int, ...] = ()) -> int:
        with (self.directory / "lxd.out").open("a") as log:
            preload = {"LD_PRELOAD": str(self._preload)} if self._preload else {}
            self._daemon = subprocess.Popen(
                command, env=self._env() | preload, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=pass_fds,
            )  # fmt: skip
        ready = subprocess.run(
            ["lxd", "waitready", "--timeout", "60"], env=self._env(), capture_output=True, text=True, check=False
        )
        if ready.returncode or self._daemon.poll() is not None:
            raise RuntimeError(f"LXD does not start: {ready.stderr.strip()} {self.said()}")
        return self._daemon.pid

    def _env(self) -> dict[str, str]:
        return environment(self.directory)


def new_directory() -> Path:
    """A fresh directory for a lab: open to pass through, and not on /tmp, whose device nodes may not count."""
    path = Path(tempfile.mkdtemp(prefix="berth-lab-", dir="/var/tmp"))
    path.chmod(0o711)
    return path
