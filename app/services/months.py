"""A month of GPUs: how much of each day is booked, for each host and, where it is open, for each of its GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.models import Gpu, Host, User
from app.services import timeline
from app.services.calendar import Wanted, by_host, chosen, is_open
from app.services.periods import Period
from app.services.spans import gpus_and_mark, held_by_day, own_bookings

LEVELS = 4  # of shading: nothing, up to a quarter … more than three quarters of the day


@dataclass(frozen=True)
class Booked:
    """A day of a GPU or host: hours booked of it, how dark it is shown (0 to LEVELS), and whether some are the
    viewer's."""

    hours: int
    level: int
    mine: bool


@dataclass(frozen=True)
class GpuMonth:
    """One GPU."""

    gpu: Gpu
    days: tuple[Booked, ...]


@dataclass(frozen=True)
class HostMonth:
    """One host; `rows` only where it is open."""

    host: Host
    gpus: int
    days: tuple[Booked, ...]
    open: bool
    rows: tuple[GpuMonth, ...]


@dataclass(frozen=True)
class Month:
    """The page's data. `total`: what is booked of each day on all GPUs shown; the rest as in services.calendar."""

    period: Period
    hosts: tuple[HostMonth, ...]
    total: tuple[Booked, ...]
    models: tuple[str, ...]
    host_names: tuple[str, ...]
    mark: str


Held = dict[tuple[int, int], tuple[int, bool]]


def show(viewer: User, period: Period, wanted: Wanted) -> Month:
    """A month as this person sees it."""
    every, mark = gpus_and_mark()
    gpus = chosen(every, wanted)
    own = own_bookings(viewer, period.start, period.end)
    held = held_by_day(period.edges, own, own_only=wanted.mine_only)
    groups = by_host(gpus)
    seconds = [int((right - left).total_seconds()) for left, right in pairwise(period.edges)]
    return Month(
        period=period,
        hosts=tuple(
            _host(host, members, held, seconds, opened=is_open(host, groups, wanted)) for host, members in groups
        ),
        total=_days([gpu for gpu, _host in gpus], held, seconds),
        models=tuple(sorted({gpu.model for gpu, _host in every})),
        host_names=tuple(dict.fromkeys(host.name for _gpu, host in every)),
        mark=mark,
    )


def _host(host: Host, gpus: Sequence[Gpu], held: Held, seconds: Sequence[int], *, opened: bool) -> HostMonth:
    rows = tuple(GpuMonth(gpu, _days([gpu], held, seconds)) for gpu in gpus) if opened else ()
    return HostMonth(host, len(timeline.usable(gpus)), _days(gpus, held, seconds), opened, rows)


def _days(gpus: Sequence[Gpu], held: Held, seconds: Sequence[int]) -> tuple[Booked, ...]:
    found = []
    for number, length in enumerate(seconds):
        parts = [held[gpu.id, number] for gpu in gpus if (gpu.id, number) in held]
        booked, room = sum(part for part, _mine in parts), length * len(gpus)
        level = -(-booked * LEVELS // room) if room else 0
        found.append(Booked(round(booked / 3600), min(level, LEVELS), any(mine for _part, mine in parts)))
    return tuple(found)
