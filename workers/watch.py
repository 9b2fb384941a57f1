"""Who may hold which GPU during one pass, and what was seen of the host."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from app.drivers.base import GpuInfo, HostSeen, Number
from app.drivers.kernel import HOST, Holder, Scan
from app.services.plan import Desired, Ending, is_in


def located(endings: Iterable[Ending], seen: HostSeen, before: Mapping[str, Ending]) -> dict[str, Ending]:
    """By PCI address, the endings, each with the name under which the instance that has the GPU was seen: in the
    database it may be called otherwise since. `before`: those known so far, for GPUs that are out already."""
    return {
        one.gpu.pci_address: replace(one, instance=_name(one, seen, before.get(one.gpu.pci_address))) for one in endings
    }


def _name(ending: Ending, seen: HostSeen, before: Ending | None) -> str | None:
    number = ending.tag.allocation_id
    known = before.instance if before and before.tag.allocation_id == number else None
    having = [
        name
        for name, instance in seen.instances.items()
        if any(device.ours and device.tag and device.tag.allocation_id == number for device in instance.devices)
    ]  # several: a copy of an instance has its devices' settings
    last = known if known in seen.instances else ending.instance
    return next((name for name in (ending.instance, known, *having) if name in having), last)


@dataclass
class Watch:
    """What a pass goes by. Keys: PCI addresses, or names of instances."""

    want: Desired
    seen: HostSeen
    gpus: tuple[GpuInfo, ...]  # as the host lists them, DRM nodes and all
    endings: dict[str, Ending]  # what has to be free
    numbers: dict[str, frozenset[Number]] = field(default_factory=dict)
    allowed: dict[str, frozenset[Number]] = field(default_factory=dict)  # what each instance's bookings are for
    admitted: dict[str, frozenset[Number]] = field(default_factory=dict)  # plugged in during this pass

    def __post_init__(self) -> None:
        listed = {gpu.pci_address: gpu.numbers for gpu in self.gpus}
        self.numbers = {gpu.pci_address: gpu.numbers for gpu in self.want.gpus if gpu.minor >= 0} | listed
        for item in self.want.wants:
            if item.instance:
                self.allowed[item.instance] = self.allowed.get(item.instance, frozenset()) | self.of(
                    item.gpu.pci_address
                )

    @property
    def every(self) -> frozenset[Number]:
        """All devices of the host's GPUs, those too that are out of service."""
        return frozenset().union(*(self.of(gpu.pci_address) for gpu in self.want.gpus))

    @property
    def guarded(self) -> frozenset[Number]:
        """All devices that nobody holds without a booking."""
        return frozenset().union(*(self.of(pci) for pci in self.want.guarded))

    def of(self, pci: str) -> frozenset[Number]:
        """One GPU's devices."""
        return self.numbers.get(pci, frozenset())

    def wants(self, instance: str | None, pci: str) -> bool:
        """Whether the instance is to have that GPU now."""
        return any((item.instance, item.gpu.pci_address) == (instance, pci) for item in self.want.wants)

    def go_on(self, begun: Collection[str], before: Watch | None) -> None:
        """Admit what earlier passes may have plugged in since the look, as far as it is booked: GPUs that they have
        `begun` with and, where nobody can look, all that the one `before` admitted."""
        for item in self.want.wants:
            if item.instance and item.gpu.pci_address in begun:
                self.admit(item.instance, item.gpu.pci_address)
        for name, numbers in before.admitted.items() if before else ():
            still = numbers & self.allowed.get(name, frozenset())
            self.admitted[name] = self.admitted.get(name, frozenset()) | still

    def admit(self, instance: str, pci: str) -> None:
        """Count a GPU among those that the instance may open."""
        self.admitted[instance] = self.admitted.get(instance, frozenset()) | self.of(pci)

    def open_to(self, instance: str) -> frozenset[Number]:
        """What an instance may open now: the GPUs that are rightly in it, or about to be."""
        found = self.admitted.get(instance, frozenset())
        for item in self.want.wants:
            # Where nobody knows what is in it, what is booked stays open: nothing can be plugged in meanwhile.
            if item.instance == instance and (is_in(item, self.seen) or not self.seen.looked):
                found |= self.of(item.gpu.pci_address)
        return found

    def intruders(self, scan: Scan, pci: str) -> list[Holder]:
        """Who in an instance holds the GPU without having it booked."""
        numbers = self.of(pci)
        return [
            holder
            for holder in scan.holders
            if holder.instance != HOST and (holder.numbers & numbers) - self.allowed.get(holder.instance, frozenset())
        ]
