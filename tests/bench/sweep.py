"""What it costs to look over a host for those who hold a GPU without a booking."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.drivers.base import NVIDIA_MAJOR
from app.drivers.holders.scanner import TURNS, Scanner
from tests.bench.report import Figure, Report
from tests.drivers.boxes import Box, unique
from workers.evictor import SWEEP_EVERY

PROCESSES, GPUS, CONTAINERS = 2000, 8, 8
IN_CONTAINERS = 0.8  # of all processes
DESCRIPTORS = 5  # that each has open
ROUNDS, LOOKS = 5, TURNS  # so many until each process has had its turn
TARGET_MS, TARGET_SHARE = 50.0, 1.0


def measure(processes: int = PROCESSES, rounds: int = ROUNDS) -> Report:
    """As an agent looks, over so many processes."""
    numbers = [(NVIDIA_MAJOR, minor) for minor in range(GPUS)]
    scanner = Scanner(patience=30.0)
    with crowd(processes):
        try:
            seen = scanner.look(numbers, thorough=True).processes
            sweeps = [_cost(scanner, numbers, LOOKS, thorough=False) for _ in range(rounds)]
            whole = [_cost(scanner, numbers, 1, thorough=True) for _ in range(rounds)]
        finally:
            scanner.close()
    return Report(
        "sweep",
        f"{processes} processes with {DESCRIPTORS} descriptors each, {IN_CONTAINERS:.0%} of them in {CONTAINERS} "
        f"containers' cgroups; {seen} on the whole machine; a sweep every {SWEEP_EVERY:g} s",
        (
            Figure("CPU of a sweep", tuple(cpu for cpu, _ in sweeps), "ms", most=TARGET_MS),
            Figure("share of a core", tuple(cpu / SWEEP_EVERY / 10 for cpu, _ in sweeps), "%", most=TARGET_SHARE),
            Figure("CPU of a thorough look", tuple(cpu for cpu, _ in whole), "ms"),
            Figure("time of a thorough look", tuple(wall for _, wall in whole), "ms"),
        ),
    )


@contextmanager
def crowd(number: int) -> Iterator[None]:
    """So many processes that sleep; as root most of them in containers' cgroups."""
    with ExitStack() as stack:
        boxes = []
        for _ in range(CONTAINERS if os.geteuid() == 0 else 0):
            box = Box(unique())
            stack.callback(box.remove)
            boxes.append(box)
        inside = round(number * IN_CONTAINERS) if boxes else 0
        for index in range(number):
            groups = boxes[index % CONTAINERS].groups if index < inside else []
            stack.callback(_end, _sleeper(groups))
        yield


def _sleeper(groups: list[Path]) -> subprocess.Popen[bytes]:
    enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
    more = " ".join(f"{fd}</dev/null" for fd in range(3, DESCRIPTORS))
    return subprocess.Popen(["/bin/sh", "-c", f"{enter}exec sleep 600 {more}"], stdin=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _cost(scanner: Scanner, numbers: list[tuple[int, int]], looks: int, *, thorough: bool) -> tuple[float, float]:
    """CPU and time of a look in ms, the mean of so many: the scanning process's and our own share."""
    assert scanner.pid
    before, own, began = _cpu_ns(scanner.pid), time.thread_time_ns(), time.perf_counter_ns()
    for _ in range(looks):
        scanner.look(numbers, thorough=thorough)
    cpu = _cpu_ns(scanner.pid) - before + time.thread_time_ns() - own
    return cpu / looks / 1e6, (time.perf_counter_ns() - began) / looks / 1e6


def _cpu_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
