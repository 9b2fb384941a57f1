"""What a host's GPUs are at, as a Protocol and plain values. `NvmlGauges` asks NVML, `FakeGauges` makes it up."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.drivers.nvml_asked import NvmlAsked

PATIENCE = 2.0  # seconds for an answer; all calls of NVML wait for one lock in the driver
PER_GPU = 3.0  # seconds more for each GPU that it opens: where no daemon keeps them awake, each is woken, one by one
SILENT = "NVML says nothing"  # how the trouble begins that is all GPUs'
ENDING = "the process that asked it last is still there"
ANEW = 60.0  # seconds after which a GPU that fell off the bus is looked for again, with NVML started anew
SELDOM = 3600.0  # likewise at last, of one that stays away: at each start the others are not read for a while


@dataclass(frozen=True)
class Running:
    """A process on a GPU: the host's number of it, MiB, per cent. `computes`: not only with graphics."""

    pid: int
    memory: int | None = None
    computes: bool = True
    utilisation: float | None = None


@dataclass(frozen=True)
class Gauge:
    """One reading of one GPU. `values`: as services.samples.Now has them, and `mig`: into how many it is split up.

    `busy`: the share (0 to 1) of the time since the reading before in which kernels ran, None where NVML does not say.
    `moment`: when it was read, by the monotonic clock.
    `processes`: None unless asked for and told. `occupied`: the share of MIG instances on which something runs, None
    where it is not split up. `trouble`: why it could not be read; there is nothing else then."""

    pci_address: str
    values: Mapping[str, Any] = field(default_factory=dict)
    busy: float | None = None
    processes: tuple[Running, ...] | None = None
    occupied: float | None = None
    trouble: str = ""
    moment: float = field(default_factory=time.monotonic, compare=False)


class Gauges(Protocol):
    """Reads one host's GPUs, for one thread at a time. Nothing is raised."""

    def read(self, addresses: Collection[str], *, processes: bool) -> tuple[Gauge, ...]:
        """These GPUs, by PCI address; none of them stays open that was not asked for."""

    @property
    def own(self) -> frozenset[int]:
        """The processes of ours that have GPUs open in order to read them."""

    def close(self) -> None:
        """Let go of them all."""


class NvmlGauges(NvmlAsked):
    """Through NVML, by a process of its own: an eviction that asks who is listed does not wait for a reading.

    It keeps open what it reads, and what is open can be neither reset nor its driver unloaded. So only GPUs that are in
    service are to be asked for; when one of them is not any more, the process ends and another is started for the rest.
    """

    patience = PATIENCE
    _addresses: tuple[str, ...] = ()
    _lost: frozenset[str] = frozenset()
    _looked_at = _anew_after = 0.0  # when those were looked for last, or found to be away, and for how long no more

    def read(self, addresses: Collection[str], *, processes: bool) -> tuple[Gauge, ...]:
        """One question for all of them."""
        wanted = tuple(sorted(addresses))
        if set(self._addresses) - set(wanted):
            self.close()
        patience = self.patience + PER_GPU * len(set(wanted) - set(self._addresses))
        self._addresses, question = wanted, {"read": wanted, "processes": processes}
        answer = self._question(question, patience, PER_GPU * len(wanted)) if wanted else None
        if answer is None:
            return tuple(Gauge(address, trouble=f"{SILENT}: {self.why or ENDING}") for address in wanted)
        gauges = tuple(_gauge(one) for one in answer["gauges"])
        self._look_for_lost(gauges)
        return gauges

    def close(self) -> None:
        """End the process that asks."""
        self._end()

    def _look_for_lost(self, gauges: Collection[Gauge]) -> None:
        """NVML finds a GPU that has been away only when it is started."""
        lost = frozenset(gauge.pci_address for gauge in gauges if gauge.trouble)
        if not lost or lost - self._lost:
            self._looked_at, self._anew_after = self._asked_at, ANEW
        elif self._asked_at - self._looked_at > self._anew_after:
            self._looked_at, self._anew_after = self._asked_at, min(2 * self._anew_after, SELDOM)
            self._end()
        self._lost = lost


def _gauge(said: Mapping[str, Any]) -> Gauge:
    values = dict(said["values"])
    processes = said.get("processes")
    return Gauge(
        said["pci"],
        values,
        values.pop("busy", None),
        None if processes is None else tuple(Running(*one) for one in processes),
        said.get("occupied"),
        str(said["trouble"])[:200],
        values.pop("moment", 0.0),
    )
