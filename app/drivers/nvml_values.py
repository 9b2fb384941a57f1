"""What NVML says a GPU is at, each value by itself: what one GPU does not have, or will not say, is left out.

Loaded by the program that asks NVML (`app.drivers.nvml`) alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any

import pynvml

_DOWN = {pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}  # all of NVML
_GONE = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED} | _DOWN
_WHOLE = 0xFFFFFFFF  # the MIG instance of a process on a GPU that is not split up
_NEVER = {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
_MIB = 1 << 20
_THROTTLED = {  # what keeps a GPU from its clocks; that it has nothing to do is no reason of these
    "power": pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "heat": pynvml.nvmlClocksEventReasonSwThermalSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hardware": pynvml.nvmlClocksEventReasonHwSlowdown,
}
_LISTS = (
    (True, pynvml.nvmlDeviceGetComputeRunningProcesses_v3),
    (False, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3),
)

Values = dict[str, Any]


def _rates(handle: object) -> Values:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return {"utilisation": rates.gpu, "memory_utilisation": rates.memory}


def _memory(handle: object) -> Values:
    try:  # the second version leaves out what the driver keeps for itself
        found = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        found = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {"memory_used": found.used // _MIB, "memory_total": found.total // _MIB}


def _temperature(handle: object) -> Values:
    try:
        return {"temperature": pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)}
    except pynvml.NVMLError as error:  # a driver of before 2025
        if error.value in _GONE:
            raise
        return {"temperature": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)}


def _throttle(handle: object) -> Values:
    try:
        reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return {"throttle": ", ".join(word for word, bits in _THROTTLED.items() if reasons & bits)}


def _ecc(handle: object) -> Values:
    kind = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    return {"ecc_errors": pynvml.nvmlDeviceGetTotalEccErrors(handle, *kind)}


_METRICS: dict[str, Callable[[object], Values]] = {
    "rates": _rates,
    "memory": _memory,
    "power": lambda handle: {"power": round(pynvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1)},
    "limit": lambda handle: {"power_limit": round(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)},
    "temperature": _temperature,
    "sm": lambda handle: {"clock_sm": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)},
    "mem": lambda handle: {"clock_memory": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)},
    "ecc": _ecc,
    "throttle": _throttle,
}


class Meter:
    """One GPU's values from reading to reading. Calls raise NVMLError if GPU or driver are lost, and for that only.

    What it does not have is not asked for again: a program that asks lives as long as the driver does."""

    def __init__(self, address: str) -> None:
        self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(address)
        self._lacks: set[str] = set()
        self._since = 0  # NVML's clock, of the last sample of its utilisation
        self._since_processes = 0
        self._in_use: int | None = None  # of its MIG instances, when processes were listed last
        self.instances = self._count_instances()

    def read(self) -> Values:
        """Its values now; under `busy` the share of the time since the last reading in which kernels ran, without it
        NVML does not say; under `moment` when that was."""
        share, values = self._say("samples", self._busy), {"moment": time.monotonic()}
        for name, metric in _METRICS.items():
            values |= self._say(name, lambda metric=metric: metric(self._handle)) or {}  # type: ignore[misc]
        if "utilisation" in values:
            values["busy"] = values["utilisation"] / 100 if share is None else share
            values["utilisation"] = round(100 * values["busy"])
        if self.instances:
            values |= {"mig": self.instances} | ({} if self._in_use is None else {"mig_in_use": self._in_use})
        return values

    def processes(self) -> tuple[list[list[Any]] | None, float | None]:
        """[pid, memory in MiB or None, whether it computes, utilisation in % or None] of each, None where NVML does
        not list them; and the share of the GPU's MIG instances that have one, None where it is not split up."""
        listed: dict[int, list[Any]] = {}
        parts: set[tuple[int, int]] = set()  # two compute instances may share a GPU instance
        known, self.instances = False, self._count_instances()  # they come and go while it is in use
        for computes, get in _LISTS:
            found = self._say(f"list {computes}", lambda get=get: get(self._handle))  # type: ignore[misc]
            known = known or found is not None
            for one in found or ():
                memory = None if one.usedGpuMemory is None else one.usedGpuMemory // _MIB
                before = listed.get(one.pid)
                listed[one.pid] = before or [one.pid, memory, computes, None]
                if one.gpuInstanceId != _WHOLE:
                    parts.add((one.gpuInstanceId, one.computeInstanceId))
        shares = self._say("process utilisation", self._shares) or {}
        for pid, share in shares.items():
            listed.setdefault(pid, [pid, None, False, None])[3] = share
        self._in_use = min(len(parts), self.instances) if known and self.instances else None
        occupied = None if self._in_use is None else self._in_use / self.instances
        return list(listed.values()) if known else None, occupied

    def _say(self, name: str, question: Callable[[], Any]) -> Any:
        if name in self._lacks:
            return None
        try:
            return question()
        except pynvml.NVMLError as error:
            if error.value in _GONE:
                raise
            if error.value in _NEVER:
                self._lacks.add(name)
            return None

    def _busy(self) -> float | None:
        """The mean of all samples since the last reading: a point each two seconds would miss what is shorter."""
        first = self._since == 0
        new, self._since = _newer(self._samples, self._since)
        if first or not new:
            return None
        return min(1.0, sum(min(100, one.sampleValue.uiVal) for one in new) / len(new) / 100)

    def _samples(self, since: int) -> Collection[Any]:
        kind, found = pynvml.nvmlDeviceGetSamples(self._handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, since)
        return found if kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT else ()

    def _shares(self) -> dict[int, float]:
        """By process, its share of the GPU since the last question, as a mean of what NVML kept of it."""
        new, since = _newer(partial(pynvml.nvmlDeviceGetProcessUtilization, self._handle), self._since_processes)
        # Nothing ran until now? Who begins next would else have the mean of all that time, and be next to idle.
        self._since_processes = since if new else max(since, self._since)
        values: dict[int, list[int]] = {}
        for one in new:
            if 0 < one.smUtil <= 100:  # it is known to make some up
                values.setdefault(one.pid, []).append(one.smUtil)
        most = max(map(len, values.values()), default=1)
        return {pid: round(sum(some) / most, 1) for pid, some in values.items()}

    def _count_instances(self) -> int:
        """Into how many MIG instances it is split up; 0: not at all."""
        with suppress(pynvml.NVMLError):
            if pynvml.nvmlDeviceGetMigMode(self._handle)[0]:
                return max(1, sum(map(self._is_there, range(pynvml.nvmlDeviceGetMaxMigDeviceCount(self._handle)))))
        return 0

    def _is_there(self, index: int) -> bool:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, index)
            return True
        return False


def _newer(ask: Callable[[int], Collection[Any]], since: int) -> tuple[list[Any], int]:
    """What NVML sampled since then, and when the last of it was.

    Where the host's clock was set back, all that it samples is older than what was seen before: that is not waited for,
    and what comes from now on is new."""
    new = [one for one in _kept(ask, since) if one.timeStamp > since]
    if new or not since:
        return new, max((one.timeStamp for one in new), default=since)
    return [], min(since, max((one.timeStamp for one in _kept(ask, 0)), default=since))


def _kept(ask: Callable[[int], Collection[Any]], since: int) -> Collection[Any]:
    try:
        return ask(since)
    except pynvml.NVMLError as error:
        if error.value in {pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND}:
            return ()
        raise


class Meters:
    """All GPUs of one program that asks."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def read(self, addresses: Collection[str], *, processes: bool) -> list[Values]:
        """One entry for each: {"pci", "values", "trouble", and if asked "processes", "occupied"}. Raises NVMLError
        where NVML as a whole is not there any more."""
        return [self._one(address, processes=processes) for address in addresses]

    def _one(self, address: str, *, processes: bool) -> Values:
        answer: Values = {"pci": address, "values": {}, "trouble": ""}
        try:
            if address not in self._meters:
                self._meters[address] = Meter(address)
            meter = self._meters[address]
            answer["values"] = meter.read()
            if processes:
                answer["processes"], answer["occupied"] = meter.processes()
        except pynvml.NVMLError as error:
            if error.value in _DOWN:
                raise
            self._meters.pop(address, None)
            answer |= {"values": {}, "trouble": str(error)}
        return answer
