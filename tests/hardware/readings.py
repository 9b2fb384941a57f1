"""What NVML says of a real GPU and what each question costs, beside what NVIDIA's own program says."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynvml

from app.drivers.base import GpuInfo
from app.drivers.gauges import Gauge, NvmlGauges
from app.drivers.nvml_values import _METRICS
from tests.bench.report import Figure

EVERY, READINGS = 2.0, 150
ALIKE = {  # the name that nvidia-smi has for it, and by how much two looks within a second may differ
    "memory_total": ("memory.total", 0), "memory_used": ("memory.used", 32), "temperature": ("temperature.gpu", 6),
    "power": ("power.draw", 250), "power_limit": ("enforced.power.limit", 1), "clock_memory": ("clocks.mem", 100),
    "ecc_errors": ("ecc.errors.uncorrected.volatile.total", 0), "utilisation": ("utilization.gpu", 35),
}  # fmt: skip


class Nvml:
    """A second look at the GPU, of our own, to hold Berth's against."""

    def __init__(self, card: GpuInfo) -> None:
        pynvml.nvmlInit()
        self.handle = pynvml.nvmlDeviceGetHandleByPciBusId(card.pci_address)
        self.card = card

    @property
    def used(self) -> int:
        """MiB that programs have."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(self.handle, pynvml.nvmlMemory_v2).used >> 20)

    @property
    def pids(self) -> set[int]:
        return {one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(self.handle)}

    def about(self) -> dict[str, Any]:
        """Model, driver, and which of Berth's metrics it does not have."""
        lacks = []
        for name, metric in _METRICS.items():
            try:
                metric(self.handle)
            except pynvml.NVMLError as error:
                lacks.append(f"{name}: {error}")
        return {
            "model": pynvml.nvmlDeviceGetName(self.handle), "driver": pynvml.nvmlSystemGetDriverVersion(),
            "minor": pynvml.nvmlDeviceGetMinorNumber(self.handle), "lacks": lacks,
        }  # fmt: skip

    def close(self) -> None:
        pynvml.nvmlShutdown()


def smi(card: GpuInfo) -> dict[str, str]:
    """What nvidia-smi says of it."""
    names = sorted({name for name, _ in ALIKE.values()})
    asked = [
        "nvidia-smi",
        f"--query-gpu={','.join(names)}",
        "--format=csv,noheader,nounits",
        f"--id={card.pci_address}",
    ]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout
    return dict(zip(names, (word.strip() for word in said.strip().split(",")), strict=True))


def differences(gauge: Gauge, said: dict[str, str]) -> list[str]:
    """Where the two do not agree."""
    found = []
    for key, (name, margin) in ALIKE.items():
        theirs: float | None = None
        with suppress(ValueError):
            theirs = float(said[name])
        ours = gauge.values.get(key)
        if (ours is None) != (theirs is None) or (
            ours is not None and theirs is not None and abs(ours - theirs) > margin
        ):
            found.append(f"{key}: {ours}, nvidia-smi {said[name]}")
    return found


def cost(card: GpuInfo, sleep: Callable[[float], None] = time.sleep) -> list[Figure]:
    """Of the process that asks NVML: what a reading takes, and what it is resident with."""
    gauges = NvmlGauges()
    try:
        began = time.monotonic()
        gauges.read([card.pci_address], processes=True)
        first = time.monotonic() - began
        (pid,) = gauges.own
        waits, before = [], _cpu(pid)
        for number in range(READINGS):
            sleep(0.02)
            began = time.monotonic()
            gauges.read([card.pci_address], processes=number % 5 == 0)
            waits.append(1000 * (time.monotonic() - began))
        share = 100 * (_cpu(pid) - before) / READINGS / EVERY
        return [
            Figure("NVML loaded and first reading", (1000 * first,), "ms", most=4000),
            Figure("a reading", tuple(waits), "ms", most=200),
            Figure("share of a core at a reading every 2 s", (share,), "%", most=1),
            Figure("resident, the process that asks NVML", (_resident(pid),), "MiB", most=60),
        ]
    finally:
        gauges.close()


def _cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _resident(pid: int) -> float:
    """MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
