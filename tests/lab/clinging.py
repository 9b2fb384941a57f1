"""Hosts whose GPUs can all be opened and told apart, with machines that open what they can and keep it."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.fault_judge import Span
from tests.lab.lab import Lab

# /dev/net/tun, fuse, random, urandom, loop-control, btrfs-control, full and zero, which every machine with a lab has: a
# device for each GPU. The kernel is one: two hosts at a time must not have the same, and the last two are those of most
# hosts (registry.READABLE).
DEVICES = ((10, 200), (10, 229), (1, 8), (1, 9), (10, 237), (10, 234), (1, 7), (1, 5))


class ToldApart(Lab):
    """A host each of whose GPUs is a device of its own, from the one of this place on."""

    def __init__(self, directory: Path, gpus: int, *, first: int = 0, snap: bool = False) -> None:
        super().__init__(directory, gpus, readable=True, snap=snap)
        self._devices = DEVICES[first : first + gpus]

    def _cards(self) -> list[tuple[str, int, list[tuple[int, int]]]]:
        cards = super()._cards()
        return [(address, minor, [self._devices[n]]) for n, (address, minor, _) in enumerate(cards)]


@contextmanager
def clingers(host: Lab, mode: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Where the machines write, and the options that a machine with a clinger is launched with (see `clinger.py`)."""
    logs = host.directory / f"clingers-{time.monotonic_ns()}"
    logs.mkdir()
    logs.chmod(0o777)
    script = logs / "clinger.py"
    script.write_bytes(Path(__file__).with_name("clinger.py").read_bytes())
    script.chmod(0o644)
    host.lxc("profile", "device", "add", "default", "logs", "disk", f"source={logs}", "path=/logs")
    minors = " ".join(map(str, host.minors))
    try:
        yield logs, ("-c", f"raw.lxc=lxc.init.cmd=/usr/bin/python3 -I /logs/clinger.py /logs {mode} {minors}")
    finally:
        host.lxc("stop", "--all", "--force", check=False)  # side by side: one by one takes a second each
        host.lxc("profile", "device", "remove", "default", "logs", check=False)
        shutil.rmtree(logs, ignore_errors=True)


def tell(logs: Path, machine: str, order: str) -> None:
    """An order to a machine's clinger."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.sendto(order.encode(), str(logs / f"{machine}.sock"))


def last_opened(spans: list[Span], machine: str, minor: int, since: float, until: float) -> float:
    """When the machine could last open the GPU, of the times that began within these moments; 0 for never."""
    found = [one.end for one in spans if (one.machine, one.minor, one.how) == (machine, minor, "open")
             and since <= one.begin < until]  # fmt: skip
    return max(found, default=0.0)


def first_opened(spans: list[Span], machine: str, minor: int, since: float) -> float:
    """When the machine could first open the GPU, from that moment on; infinite for never."""
    found = [one.begin for one in spans if (one.machine, one.minor, one.how) == (machine, minor, "open")]
    return min((begin for begin in found if begin >= since), default=float("inf"))


def shared(spans: list[Span]) -> list[tuple[Span, Span]]:
    """Every two machines that had one GPU at one moment: could open it, or held it open."""
    ordered = sorted(spans, key=lambda span: span.begin)
    return [
        (one, other)
        for place, one in enumerate(ordered)
        for other in ordered[place + 1 :]
        if one.minor == other.minor and one.machine != other.machine and other.begin <= one.end
    ]
