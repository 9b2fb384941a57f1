"""A day or week of GPUs: one row per host with what is free in each cell, and the open hosts' GPUs with their bars.

Three queries whatever is stored: hosts and GPUs, what is held in the time shown and worked on, and whose that is. One
more where a host is booked up to the end of that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from app import clock
from app.models import GpuState, User
from app.services import periods, timeline
from app.services.ahead import Ahead
from app.services.periods import Period
from app.services.spans import gpus_mark_and_waits, spans
from app.services.timeline import Frame, touching
from app.services.timeline_parts import Bar, Cell, Gap, ShownGpu, ShownHost, Span, Spans, Waiting

OPEN_AT_MOST = 8  # with so few GPUs in all, every host is open


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside the period. `mine_only` hides others' bars only, and opens the hosts where something is
    the viewer's; `open_hosts`: shown GPU by GPU; `entries`: everybody's bookings as a list too, not only the viewer's.
    """

    open_hosts: frozenset[str] = frozenset()
    model: str = ""
    host: str = ""
    mine_only: bool = False
    entries: bool = True


@dataclass(frozen=True)
class GpuRow:
    """One GPU's bookings."""

    gpu: ShownGpu
    bars: tuple[Bar, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class HostRow:
    """One host. `rows` and what the viewer is `waiting` for there only where it is open; `next_free`: when its first
    GPU is free, from now; `closed`: how many GPUs are in quarantine or out of service; `own`: whether the viewer has a
    booking there in the time shown, or waits for this very host."""

    host: ShownHost
    gpus: int
    free_now: int
    next_free: datetime | None
    cells: tuple[Cell, ...]
    open: bool
    own: bool
    closed: Mapping[GpuState, int]
    rows: tuple[GpuRow, ...] = ()
    waiting: tuple[tuple[Waiting, Bar], ...] = ()


@dataclass(frozen=True)
class Day:
    """One day. `free`: GPUs that nobody has for the whole rest of it; None once it is over."""

    date: date
    starts_at: datetime
    free: int | None


@dataclass(frozen=True)
class Entry:
    """One booking, for the list: the GPUs it has, by their numbers on the host. `state` as of a bar."""

    booking_id: int
    host: str
    minors: tuple[int, ...]
    owner: str
    mine: bool
    starts_at: datetime
    ends_at: datetime
    state: str
    note: str


@dataclass(frozen=True)
class Shown:
    """The page's data. Moments in UTC; the days begin at midnight in the viewer's zone. `mark`: see services.spans."""

    period: Period
    days: tuple[Day, ...]
    hosts: tuple[HostRow, ...]
    entries: tuple[Entry, ...]  # in order of start
    models: tuple[str, ...]
    host_names: tuple[str, ...]
    mark: str
    now_unit: int | None
    total: int
    free_now: int
    any_booking: bool  # whoever's; `entries` may leave out others'


def all_open(found: Shown) -> bool:
    """Whether there is so little that no host needs to be opened."""
    few = sum(row.gpus for row in found.hosts) <= OPEN_AT_MOST or len(found.hosts) == 1
    return few and all(row.open for row in found.hosts)


def show(viewer: User, period: Period, wanted: Wanted) -> Shown:
    """A day or a week as this person sees it."""
    now = clock.now()
    frame = Frame(period.edges, now, viewer.id, wanted.mine_only)
    every, mark, waits = gpus_mark_and_waits(viewer, frame.start, frame.end)
    gpus = chosen(every, wanted)
    current = frame.start <= now < frame.end
    groups = by_host(gpus)
    inside = spans(frame.start, frame.end, now, viewer, _named(groups, wanted))
    ahead = Ahead(inside, frame)
    rows = tuple(
        _host_row(host, members, ahead, waits, opened=is_open(host, groups, wanted)) for host, members in groups
    )
    everything = timeline.usable([gpu for gpu, _host in gpus])
    return Shown(
        period=period,
        days=_days(everything, inside, frame, period),
        hosts=rows,
        entries=_entries(gpus, inside, frame, mine_only=wanted.mine_only or not wanted.entries),
        models=tuple(sorted({gpu.model for gpu, _host in every})),
        host_names=tuple(dict.fromkeys(host.name for _gpu, host in every)),
        mark=mark,
        now_unit=frame.unit(now) if current else None,
        total=len(everything),
        free_now=sum(row.free_now for row in rows),
        any_booking=any(touching(inside.get(gpu.id, ()), frame.start, frame.end) for gpu, _host in gpus),
    )


def chosen(gpus: Sequence[tuple[ShownGpu, ShownHost]], wanted: Wanted) -> list[tuple[ShownGpu, ShownHost]]:
    """Those of the model and on the host that are wanted."""
    return [(gpu, host) for gpu, host in gpus if wanted.model in {"", gpu.model} and wanted.host in {"", host.name}]


def by_host(gpus: Sequence[tuple[ShownGpu, ShownHost]]) -> list[tuple[ShownHost, list[ShownGpu]]]:
    """GPUs by their host, order kept."""
    groups: dict[int, tuple[ShownHost, list[ShownGpu]]] = {}
    for gpu, host in gpus:
        groups.setdefault(host.id, (host, []))[1].append(gpu)
    return list(groups.values())


def is_open(host: ShownHost, groups: Sequence[tuple[ShownHost, Sequence[ShownGpu]]], wanted: Wanted) -> bool:
    """Whether a host is shown GPU by GPU."""
    few = len(groups) == 1 or sum(len(gpus) for _host, gpus in groups) <= OPEN_AT_MOST
    return few or host.name in wanted.open_hosts


def _named(groups: Sequence[tuple[ShownHost, Sequence[ShownGpu]]], wanted: Wanted) -> set[int]:
    """The GPUs, by id, whose bookings are shown with their people. Only mine: nobody else is named."""
    if wanted.mine_only:
        return set()
    return {gpu.id for host, gpus in groups if wanted.entries or is_open(host, groups, wanted) for gpu in gpus}


def _host_row(
    host: ShownHost, gpus: Sequence[ShownGpu], ahead: Ahead, waits: Sequence[Waiting], *, opened: bool
) -> HostRow:
    """`waits`: what the viewer waits for, on whatever host."""
    spans, frame, usable = ahead.spans, ahead.frame, timeline.usable(gpus)
    free_now = timeline.free_for(usable, spans, frame.now, frame.now + timedelta(seconds=1))
    here = [wait for wait in waits if wait.fits(host.name, usable)]
    cells = timeline.cells(gpus, spans, frame, here)
    own = any(cell.mine for cell in cells) or any(wait.host or wait.gpu_ids for wait in here)
    opened = opened or (own and frame.mine_only)
    return HostRow(
        host=host,
        gpus=len(usable),
        free_now=free_now,
        next_free=None if free_now else ahead.next_free(usable),
        cells=cells,
        open=opened,
        own=own,
        closed=Counter(gpu.state for gpu in gpus if gpu.state != GpuState.IN_SERVICE),
        rows=tuple(_gpu_row(gpu, spans.get(gpu.id, ()), frame) for gpu in gpus) if opened else (),
        waiting=tuple((wait, timeline.waiting_bar(wait, frame)) for wait in here) if opened else (),
    )


def _gpu_row(gpu: ShownGpu, spans: Sequence[Span], frame: Frame) -> GpuRow:
    return GpuRow(gpu, timeline.bars(spans, frame), timeline.gaps(spans, frame) if timeline.usable([gpu]) else ())


def _days(gpus: Sequence[ShownGpu], spans: Spans, frame: Frame, period: Period) -> tuple[Day, ...]:
    found = []
    for day in period.days:
        start, end = periods.midnight(day, period.zone), periods.midnight(day + periods.A_DAY, period.zone)
        free = timeline.free_for(gpus, spans, max(start, frame.now), end) if end > frame.now else None
        found.append(Day(day, start, free))
    return tuple(found)


def _entries(
    gpus: Sequence[tuple[ShownGpu, ShownHost]], spans: Spans, frame: Frame, *, mine_only: bool
) -> tuple[Entry, ...]:
    """The bookings shown, each once, however many GPUs it has."""
    held: dict[int, list[int]] = defaultdict(list)
    first: dict[int, tuple[Span, ShownHost]] = {}
    for gpu, host in gpus:
        for span in touching(spans.get(gpu.id, ()), frame.start, frame.end):
            if not mine_only or span.user_id == frame.viewer_id:
                held[span.booking_id].append(gpu.minor)
                first.setdefault(span.booking_id, (span, host))
    ordered = sorted(first.values(), key=lambda pair: (pair[0].starts_at, pair[1].name, pair[0].booking_id))
    return tuple(
        Entry(
            booking_id=span.booking_id,
            host=host.name,
            minors=tuple(held[span.booking_id]),
            owner=span.owner,
            mine=span.user_id == frame.viewer_id,
            starts_at=span.starts_at,
            ends_at=span.ends_at,
            state=timeline.state(span, frame.now),
            note=span.note,
        )
        for span, host in ordered
    )
