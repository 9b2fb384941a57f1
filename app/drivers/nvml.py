"""What NVML says of GPUs: a program of its own, and the only one that loads NVIDIA's library.

NVML can block within the driver, and what it has opened does not survive a fork. Reads requests, a line of JSON each,
and answers each with a line. {"minors": [n, …]}, who is on them: {"gpus": [{"minor": n, "pci": address, "pids":
[pid, …], "unknown": why}, …]}. `unknown` is "" unless NVML would not say all of it; `minor` is -1 for a GPU that has
dropped out. {"read": [address, …], "processes": whether}, what they are at: {"gauges": […]}, see `nvml_values`.
Where NVML cannot be asked at all: {"silent": why, "absent": whether there is nothing to ask}, and it ends. Arguments:
where pynvml is, and after how many seconds without a request it ends.

It ends when nobody asks since it keeps every GPU open: one that is held cannot be reset, nor the driver unloaded.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pynvml

from app.drivers.base import pci_address
from app.drivers.nvml_values import Meters

_ABSENT = {pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
_LISTS = (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3)

Answer = dict[str, Any]


def start() -> Answer | None:
    """Load the library and speak to the driver; what to answer where that cannot be."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _silent(error)
    return None


def answer(minors: Collection[int]) -> Answer:
    """What runs on the GPUs with these minor numbers."""
    try:
        number = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return _silent(error)
    return {"gpus": [found for index in range(number) if (found := _gpu(index, minors))]}


def readings(meters: Meters, request: Answer) -> Answer:
    """What the GPUs at these addresses are at."""
    try:
        return {"gauges": meters.read(request["read"], processes=request["processes"])}
    except pynvml.NVMLError as error:
        return _silent(error)


def _silent(error: pynvml.NVMLError) -> Answer:
    return {"silent": str(error), "absent": error.value in _ABSENT}


def _gpu(index: int, minors: Collection[int]) -> Answer | None:
    """One GPU; None for one that nobody asked about."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        minor = pynvml.nvmlDeviceGetMinorNumber(handle)
    except pynvml.NVMLError as error:  # it fell off the bus, say; the others may be well
        return {"minor": -1, "pci": "", "pids": [], "unknown": f"number {index}: {error}"}
    if minor not in minors:
        return None
    pids: set[int] = set()
    doubts: set[str] = set()
    for listed in _LISTS:
        try:
            pids |= {process.pid for process in listed(handle)}
        except pynvml.NVMLError as error:
            doubts.add(str(error))
    return {"minor": minor, "pci": _address(handle), "pids": sorted(pids), "unknown": ", ".join(sorted(doubts))}


def _address(handle: object) -> str:
    """LXD's spelling of the GPU's PCI address; "" where NVML does not say."""
    try:
        text = pynvml.nvmlDeviceGetPciInfo(handle).busId
        return pci_address(text if isinstance(text, str) else text.decode())
    except (pynvml.NVMLError, ValueError):
        return ""


def main() -> None:
    """Answer requests until there are no more, or none for so long."""
    patience = float(sys.argv[-1])
    Path("/proc/self/comm").write_text("berth-nvml")  # for whoever finds out that it holds the GPUs
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # a library that prints something does not spoil an answer
        trouble, meters = start(), Meters()
        while select.select([sys.stdin], [], [], patience)[0] and (line := sys.stdin.readline()):
            request = json.loads(line)
            found = trouble or (readings(meters, request) if "read" in request else answer(request["minors"]))
            answers.write(json.dumps(found) + "\n")
            answers.flush()
            if "silent" in found:
                return
