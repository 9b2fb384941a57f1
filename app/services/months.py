"""A month of GPUs: how much of each day is booked, for each host and, where it is open, for each of its GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.models import User
from app.services import maintenance, timeline
from app.services.calendar import Wanted, by_host, chosen, is_open
from app.services.periods import Period
from app.services.spans import gpus_and_mark, held_by_day, own_bookings
from app.services.timeline_parts import ShownGpu, ShownHost

LEVELS = 4  # of shading: nothing, up to a quarter … more than three quarters of the day


@dataclass(frozen=True)
class Booked:
    """A day of a GPU or host: hours booked of it, how dark it is shown (0 to LEVELS), whether some are the viewer's,
    and whether some of it is kept for maintenance."""

    hours: int
    level: int
    mine: bool
    kept: bool = False


@dataclass(frozen=True)
class GpuMonth:
    """One GPU."""

    gpu: ShownGpu
    days: tuple[Booked, ...]


@dataclass(frozen=True)
class HostMonth:
    """One host; `rows` only where it is open. `closed`: GPUs that cannot be booked, beside `gpus` that can."""

    host: ShownHost
    gpus: int
    closed: int
    days: tuple[Booked, ...]
    open: bool
    own: bool
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
Kept = set[tuple[int, int]]  # a GPU's id and a day's number


def show(viewer: User, period: Period, wanted: Wanted) -> Month:
    """A month as this person sees it."""
    every, mark = gpus_and_mark()
    gpus = chosen(every, wanted)
    own = own_bookings(viewer, period.start, period.end)
    held = held_by_day(period.edges, own, own_only=wanted.mine_only)
    groups = by_host(gpus)
    kept = _kept(period)
    seconds = [int((right - left).total_seconds()) for left, right in pairwise(period.edges)]
    return Month(
        period=period,
        hosts=tuple(
            _host(host, members, (held, kept), seconds, wanted, opened=is_open(host, groups, wanted))
            for host, members in groups
        ),
        total=_days([gpu for gpu, _host in gpus], (held, kept), seconds),
        models=tuple(sorted({gpu.model for gpu, _host in every})),
        host_names=tuple(dict.fromkeys(host.name for _gpu, host in every)),
        mark=mark,
    )


def _kept(period: Period) -> Kept:
    """On which days which GPUs are in maintenance, for however short."""
    days = list(enumerate(pairwise(period.edges)))
    return {
        (gpu_id, number)
        for gpu_id, blocks in maintenance.between(period.start, period.end).items()
        for block in blocks
        for number, (left, right) in days
        if block.starts_at < right and block.ends_at > left
    }


def _host(
    host: ShownHost,
    gpus: Sequence[ShownGpu],
    taken: tuple[Held, Kept],
    seconds: Sequence[int],
    wanted: Wanted,
    *,
    opened: bool,
) -> HostMonth:
    days, usable = _days(gpus, taken, seconds), len(timeline.usable(gpus))
    own = any(day.mine for day in days)
    opened = opened or (own and wanted.mine_only)
    rows = tuple(GpuMonth(gpu, _days([gpu], taken, seconds)) for gpu in gpus) if opened else ()
    return HostMonth(host, usable, len(gpus) - usable, days, opened, own, rows)


def _days(gpus: Sequence[ShownGpu], taken: tuple[Held, Kept], seconds: Sequence[int]) -> tuple[Booked, ...]:
    (held, kept), found = taken, []
    for number, length in enumerate(seconds):
        parts = [held[gpu.id, number] for gpu in gpus if (gpu.id, number) in held]
        booked, room = sum(part for part, _mine in parts), length * len(gpus)
        level = min(-(-booked * LEVELS // room) if room else 0, LEVELS)
        work = any((gpu.id, number) in kept for gpu in gpus)
        found.append(Booked(round(booked / 3600), level, any(mine for _part, mine in parts), work))
    return tuple(found)
