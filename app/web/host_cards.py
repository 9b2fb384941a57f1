"""A host and its GPUs as the admin's pages show them: what is booked, and what the last look saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask_babel import LazyString

from app.language import gettext as _
from app.language import pgettext
from app.models import Allocation, Gpu, GpuState, Host
from app.services.checkup import pools
from app.web import host_words


@dataclass(frozen=True)
class GpuLine:
    """One GPU, who has it now by the bookings, and what the last look saw of it; `code`: see app.web.states."""

    gpu: Gpu
    holder: Allocation | None
    seen: dict[str, Any] | None = None  # of services.drift

    @property
    def code(self) -> str:
        """What the GPU is, in one word. Who has one that is out of service still has it."""
        if self.holder is not None:
            return "in_use" if self.holder.attached_at else "booked"
        codes = {GpuState.MAINTENANCE: "out_of_service", GpuState.QUARANTINE: "quarantine"}
        return codes.get(GpuState(self.gpu.state), "free")

    @property
    def trouble(self) -> tuple[str, LazyString] | None:
        """What the last look says beyond that: the code in app.web.states and the word."""
        return host_words.OBSERVED.get(self.seen["code"]) if self.seen else None

    @property
    def machine(self) -> str:
        """The machine that should have it, where the last look knew that booking already."""
        want = self.seen["want"] if self.seen else None
        if want is None or self.holder is None or want["booking"] != self.holder.booking_id:
            return ""
        return str(want["instance"])

    @property
    def who_has_it(self) -> list[str]:
        """The machines that were seen to have it, or to run a program that holds it."""
        return sorted({*self.seen["seen"], *self.seen["held_by"]}) if self.seen else []


def lines(host: Host, gpus: Sequence[Gpu], taken: dict[int, Allocation]) -> list[GpuLine]:
    """The host's GPUs, each with its part of what was last seen."""
    seen = {line["pci"]: line for line in host.observed.get("gpus", [])}
    return [GpuLine(gpu, taken.get(gpu.id), seen.get(gpu.pci_address)) for gpu in gpus]


@dataclass(frozen=True)
class HostCard:
    """One host as the list shows it."""

    host: Host
    lines: Sequence[GpuLine]
    machines: int
    silence: str

    @property
    def counts(self) -> dict[str, int]:
        """How many GPUs are what, in a fixed order."""
        found = Counter(line.code for line in self.lines)
        order = ("in_use", "booked", "free", "out_of_service", "quarantine")
        return {code: found[code] for code in order if found[code]}

    @property
    def held_back(self) -> list[Gpu]:
        """Its GPUs in quarantine."""
        return [line.gpu for line in self.lines if line.gpu.state == GpuState.QUARANTINE]

    @property
    def differences(self) -> int:
        """How many things differed at the last look."""
        return len(self.host.observed.get("drift", []))

    @property
    def filling(self) -> str:
        """`warn` or `bad` where a storage pool of machines was nearly full at the last check-up, else ""."""
        return pools.worst(self.host.findings)

    @property
    def state(self) -> tuple[str, str]:
        """The code in app.web.states and the word."""
        if self.silence:
            return "not_reachable", _("Not reachable") if self.host.seen_at else _("Never seen")
        return ("in_use", pgettext("host", "Reports")) if self.host.enabled else ("out_of_service", _("Not offered"))
