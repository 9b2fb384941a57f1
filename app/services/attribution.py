"""Whose it is what a GPU did: from readings of it to parts of minutes. Pure; every millisecond is somebody's.

A GPU's time is the booking's that it is attached for; without one, of the instances that run something on it, in equal
parts; else the host's. Of that, what a process of somebody else keeps busy is theirs. So for each consumer the time is
what it kept busy, and of what was idle its part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.drivers.base import HostSeen
from app.services.plan import Desired
from app.services.samples import Part

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, order=True)
class Whose:
    """A consumer: a booking in its instance, an instance without one (0), or neither: the host."""

    booking: int = 0
    instance: str = ""


HOST = Whose()


def owners(seen: HostSeen) -> dict[str, Whose]:
    """By PCI address, the booking that a GPU is attached for: by what the instances carry, not by the calendar."""
    return {
        device.pci_address: Whose(device.tag.booking_id, instance.name)
        for instance in seen.instances.values()
        for device in instance.devices
        if device.ours and device.configured and device.tag is not None
    }


def booked(want: Desired) -> dict[str, Whose]:
    """The same by the calendar, for as long as nobody knows what the instances carry."""
    return {one.gpu.pci_address: Whose(one.tag.booking_id, one.instance) for one in want.wants if one.instance}


@dataclass(frozen=True)
class Use:
    """A process on the GPU: MiB and per cent, None where it is not known."""

    whose: Whose
    memory: int | None = None
    utilisation: float | None = None


@dataclass
class _Sums:
    sampled_ms: int = 0
    busy_ms: float = 0.0
    unread_ms: int = 0  # for which it is not known whether it was busy
    energy_j: float = 0.0


@dataclass
class Period:
    """What one GPU did from one look at its processes to the next, for `owner` (None: it was booked by nobody)."""

    owner: Whose | None = None
    bookings: dict[str, int] = field(default_factory=dict)  # by instance, which booking it could use the GPU for
    minutes: dict[datetime, _Sums] = field(default_factory=dict)
    memory_mib: int = 0
    temperature: int = 0

    def __post_init__(self) -> None:
        self.entitle(self.owner)

    def entitle(self, whose: Whose | None) -> None:
        """Count this one's processes too as theirs: the GPU was theirs for some of the time."""
        if whose is not None:
            self.bookings.setdefault(whose.instance, whose.booking)

    def whose(self, instance: str) -> Whose:
        """To whom a process in this instance belongs."""
        return Whose(self.bookings.get(instance, 0), instance)

    def add(self, until: datetime, milliseconds: int, busy: float | None, values: Mapping[str, float]) -> None:
        """A reading that stands for so many milliseconds, of which the share `busy` was busy."""
        minute = until.replace(second=0, microsecond=0)
        after = min(milliseconds, (until - minute) // timedelta(milliseconds=1))
        for moment, some in ((minute - MINUTE, milliseconds - after), (minute, after)):
            if some:
                sums = self.minutes.setdefault(moment, _Sums())
                sums.sampled_ms += some
                sums.energy_j += values.get("power", 0.0) * some / 1000
                if busy is None:
                    sums.unread_ms += some
                else:
                    sums.busy_ms += busy * some
        self.memory_mib = max(self.memory_mib, round(values.get("memory_used", 0)))
        self.temperature = max(self.temperature, round(values.get("temperature", 0)))

    def parts(self, pci_address: str, listed: Sequence[Use] | None, occupied: float | None = None) -> list[Part]:
        """All of it, by minute and consumer; `listed`: None where NVML did not say who is on the GPU.

        Where NVML does not say how busy the GPU was, it counts as busy in as many parts as have a process on them
        (`occupied`, of a GPU that is split up), and a whole one while there is any. Where it says neither, nothing is
        known of that time: it is not idle."""
        uses = listed or ()
        if occupied is None:
            occupied = 1.0 if uses else 0.0
        memory = self._memory(uses)
        idle = self._idle(uses)
        busy = _weights(uses) or idle
        found = []
        for minute, sums in sorted(self.minutes.items()):
            known_ms = sums.sampled_ms - (sums.unread_ms if listed is None else 0)
            busy_ms = min(known_ms, round(sums.busy_ms + occupied * sums.unread_ms))
            times = _divide(busy_ms, busy), _divide(known_ms - busy_ms, idle)
            sampled = {one: times[0].get(one, 0) + times[1].get(one, 0) for one in {**times[0], **times[1], **memory}}
            energy = _divide(round(sums.energy_j), sampled)
            found += [
                Part(
                    pci_address, minute, one.booking, one.instance, milliseconds, times[0].get(one, 0),
                    energy.get(one, 0), memory.get(one, 0), self.temperature,
                )
                for one, milliseconds in sorted(sampled.items())
                if milliseconds or memory.get(one)
            ]  # fmt: skip
        return found

    def _idle(self, uses: Sequence[Use]) -> dict[Whose, float]:
        """Whose the time is in which nothing ran."""
        if self.owner is not None:
            return {self.owner: 1.0}
        return dict.fromkeys({use.whose for use in uses if use.whose.instance}, 1.0) or {HOST: 1.0}

    def _memory(self, uses: Sequence[Use]) -> dict[Whose, int]:
        """The peak of each, in MiB: who is alone on the GPU has had all that was seen of it, between looks too."""
        by_whose: dict[Whose, list[int | None]] = {}
        for use in uses:
            by_whose.setdefault(use.whose, []).append(use.memory)
        if len(by_whose) == 1:
            return dict.fromkeys(by_whose, self.memory_mib)
        return {
            one: self.memory_mib if None in known else sum(value or 0 for value in known)
            for one, known in by_whose.items()
        }


def _weights(uses: Sequence[Use]) -> dict[Whose, float]:
    """What each has of the busy time: as NVML says, or by their processes where it says nothing of any."""
    said = any(use.utilisation for use in uses)
    weights: dict[Whose, float] = {}
    for use in uses:
        weights[use.whose] = weights.get(use.whose, 0.0) + ((use.utilisation or 0.0) if said else 1.0)
    return {one: weight for one, weight in weights.items() if weight > 0}


def _divide(total: int, weights: Mapping[Whose, float]) -> dict[Whose, int]:
    """A whole number in whole parts that add up to it: who lost most by rounding down gets what is left over."""
    whole = sum(weights.values())
    if not total or not whole:
        return {}
    exact = {one: total * weight / whole for one, weight in weights.items()}
    found = {one: int(value) for one, value in exact.items()}
    left = total - sum(found.values())
    for one in sorted(exact, key=lambda one: (found[one] - exact[one], one))[:left]:
        found[one] += 1
    return found
