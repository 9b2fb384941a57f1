"""The LXD and the GPU that are there, as a lab's host; and programs that use the GPU, in machines and beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from app.drivers.base import GpuInfo
from app.drivers.holders import cgroups
from app.drivers.lxd import PylxdDriver
from app.drivers.lxd.libraries import for_new
from tests.lab.lab import Lab

SOURCE = Path(__file__).with_name("cuda.c")
INSIDE = "/usr/local/bin/berth-cuda"
PATIENCE = 30.0  # seconds for a program to be ready: CUDA's first one on a GPU that slept takes some


class Program(NamedTuple):
    """A program that runs: the host's number of it."""

    mode: str
    pid: int
    client: subprocess.Popen[str]
    ready_ms: float
    said: list[str]  # what it wrote so far

    @property
    def lives(self) -> bool:
        """Whether it does; one that only waits to be buried does not."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
        except OSError:
            return False


class Workstation(Lab):
    """A host that is there already, with an image that machines are made of. Only machines are made and removed."""

    def __init__(self, socket: Path, image: str, folder: Path) -> None:
        super().__init__(folder, gpus=1)
        self.socket, self.image, self.lxd_dir = socket, image, socket.parent
        self.driver = PylxdDriver(str(socket))
        self.card: GpuInfo = self.driver.gpus()[0]
        self.minors = [self.card.minor]
        self.program = folder / "berth-cuda"
        subprocess.run(["cc", "-O2", "-o", self.program, SOURCE, "-ldl"], check=True)
        self.program.chmod(0o755)

    @property
    def node(self) -> str:
        return f"/dev/nvidia{self.card.minor}"

    def launch(self, name: str = "", *options: str, owner: str = "") -> str:
        """As a lab's, with NVIDIA's libraries as Berth brings them to each new machine."""
        name = name or self.unique()
        config, devices = for_new(self.lxd_dir)
        settings = {"user.berth.owner": owner or name, "security.idmap.isolated": "true", **config}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self.lxc("init", self.image, name, *words, *options)
        for device, keys in devices.items():
            self.lxc(
                "config", "device", "add", name, device, "disk", *(f"{k}={v}" for k, v in keys.items() if k != "type")
            )
        self.lxc("start", name)
        self.lxc("exec", "--force-noninteractive", name, "--", "ldconfig", check=False)
        self.lxc("file", "push", str(self.program), f"{name}{INSIDE}", "--create-dirs")
        return name

    def said(self) -> str:
        """What LXD wrote is not ours to read here."""
        return ""

    def start(self, machine: str, mode: str, *words: str) -> Program:
        """A program in a machine (on the host itself: ""), once it says that it is ready. Raises RuntimeError."""
        inside = ["lxc", "exec", "--force-noninteractive", machine, "--", INSIDE]
        began = time.monotonic()
        client = subprocess.Popen(
            [*(inside if machine else [str(self.program)]), mode, *words],
            env=self._env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said: list[str] = []
        listener = threading.Thread(target=_listen, args=(client, said), daemon=True)
        listener.start()
        while not any(line.startswith("ready ") for line in said) and not (mode == "probe" and said):
            if not listener.is_alive() or time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"{mode} in {machine or 'the host'}: {' '.join(said)}")
            time.sleep(0.005)
        took = 1000 * (time.monotonic() - began)
        return Program(mode, self._pid(machine, mode, said) if machine else client.pid, client, took, said)

    def _pid(self, machine: str, mode: str, said: list[str]) -> int:
        """The host's number of what runs in this mode, and `said` this."""
        for pid, group in cgroups.members().items():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if group == f"lxc.payload.{machine}" and words[:2] == [INSIDE.encode(), mode.encode()]:
                    return pid
        raise RuntimeError(f"{mode} is not among the processes of {machine}: {' '.join(said)}")

    def _env(self) -> dict[str, str]:
        return {**os.environ, "LXD_DIR": str(self.lxd_dir)}


def _listen(client: subprocess.Popen[str], said: list[str]) -> None:
    assert client.stdout is not None
    for line in client.stdout:
        said += [line.strip()]


def end(*programs: Program) -> None:
    """Whatever of ours is left on the host."""
    for one in programs:
        one.client.kill()
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        one.client.wait()


def until(what: Callable[[], bool], seconds: float, every: float = 0.005) -> float:
    """When it was first so (as `time.time`). Raises RuntimeError if it is not in time."""
    deadline = time.time() + seconds
    while not what():
        if time.time() > deadline:
            raise RuntimeError(f"not within {seconds} s")
        time.sleep(every)
    return time.time()
