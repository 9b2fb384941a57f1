"""The numbers that every report is made of, and how they hang together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter


@dataclass(frozen=True)
class Numbers:
    """GPU-seconds, of which each second that was booked is in exactly one of five parts:

    reserved = busy + idle + no data + not attached + not given. `not_given`: Berth was late with it, or it is the rest
    of what maintenance ended and no machine took it, and nobody pays for it (see services.rules.fees). `busy`: kernels
    ran, by NVML's utilisation (a minute at 40 % is 24 s busy). `sampled`: attached, and the sampler looked. `energy`:
    joules. `memory`: the peak of one GPU in MiB.

    What is left of a difference of two sums of floats may lie a hair below nothing: no part does.
    """

    reserved: float = 0.0
    attached: float = 0.0
    sampled: float = 0.0
    busy: float = 0.0
    energy: int = 0
    memory: int = 0
    not_given: float = 0.0

    @property
    def not_attached(self) -> float:
        """Booked and to be had, but in nobody's machine."""
        return max(0.0, self.reserved - self.attached - self.not_given)

    @property
    def no_data(self) -> float:
        """Attached, but not looked at: neither busy nor idle."""
        return max(0.0, self.attached - self.sampled)

    @property
    def idle(self) -> float:
        """Attached and looked at, and no kernel ran."""
        return max(0.0, self.sampled - self.busy)

    @property
    def wasted(self) -> float:
        """What others could have had, and whoever booked it did not use."""
        return self.not_attached + self.idle

    @property
    def kwh(self) -> float:
        """The energy in kWh."""
        return self.energy / 3_600_000

    def __add__(self, other: Numbers) -> Numbers:
        """Both together."""
        return Numbers(
            reserved=self.reserved + other.reserved,
            attached=self.attached + other.attached,
            sampled=self.sampled + other.sampled,
            busy=self.busy + other.busy,
            energy=self.energy + other.energy,
            memory=max(self.memory, other.memory),
            not_given=self.not_given + other.not_given,
        )


_columns = attrgetter(*(one.name for one in fields(Numbers)))


def total(parts: Iterable[Numbers]) -> Numbers:
    """All together; by columns, since a report has thousands and each sum of two is an object."""
    found = [_columns(one) for one in parts]
    if not found:
        return Numbers()
    reserved, attached, sampled, busy, energy, memory, not_given = zip(*found, strict=True)
    return Numbers(sum(reserved), sum(attached), sum(sampled), sum(busy), sum(energy), max(memory), sum(not_given))


def percent(part: float, whole: float) -> int | None:
    """A share in whole per cent; None of nothing. Whole steps down: what is not quite all is never 100 %."""
    return int(100 * part / whole + 1e-9) if whole > 0 else None
