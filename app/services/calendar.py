"""A week of GPUs: one row per host with what is free in each cell, and the open hosts' GPUs with their bars.

Few queries whatever is stored: hosts and GPUs, and the allocations that touch the week. The rest is arithmetic.
A week is mapped onto 336 units of equal length, however long it is (a week with a clock change has 167 or 169 hours).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Host, User

UNITS = 336  # half-hours of an ordinary week
CELL_HOURS = 4  # a host row's cell: how many GPUs are free for all of it
OPEN_AT_MOST = 8  # with so few GPUs in all, every host is open


@dataclass(frozen=True)
class Bar:
    """One booking on one GPU, cut to the week. `start`, `width` in units; `before`/`after`: it goes on outside."""

    booking_id: int
    owner: str
    mine: bool
    starts_at: datetime
    ends_at: datetime
    start: int
    width: int
    before: bool
    after: bool
    running: bool
    past: bool


@dataclass(frozen=True)
class Gap:
    """A free place on one GPU that can still be booked."""

    starts_at: datetime
    ends_at: datetime
    start: int
    width: int


@dataclass(frozen=True)
class GpuRow:
    """One GPU's week."""

    gpu: Gpu
    bars: tuple[Bar, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Cell:
    """Four hours of one host: how many of its GPUs are free for all of them; None once they are over."""

    starts_at: datetime
    ends_at: datetime
    free: int | None


@dataclass(frozen=True)
class HostRow:
    """One host's week. `rows` only where it is open; `next_free`: when its first GPU is free, from now."""

    host: Host
    gpus: int
    free_now: int
    next_free: datetime | None
    cells: tuple[Cell, ...]
    open: bool
    rows: tuple[GpuRow, ...] = ()


@dataclass(frozen=True)
class Week:
    """The page's data. Times in UTC; the days begin at midnight in the viewer's zone."""

    start: datetime
    end: datetime
    days: tuple[datetime, ...]
    hosts: tuple[HostRow, ...]
    models: tuple[str, ...]
    now_unit: int | None
    total: int
    free_now: int
    any_booking: bool
    day_free: dict[date, int] = field(default_factory=dict)  # GPUs free for the whole rest of each day

    @property
    def previous(self) -> date:
        """A day of the week before."""
        return (self.start - timedelta(days=3)).date()

    @property
    def next(self) -> date:
        """A day of the week after."""
        return (self.end + timedelta(days=3)).date()


@dataclass(frozen=True)
class _Span:
    """An allocation as the calendar needs it."""

    gpu_id: int
    booking_id: int
    starts_at: datetime
    ends_at: datetime
    user_id: int
    owner: str


def week(
    viewer: User,
    day: date,
    zone: ZoneInfo,
    *,
    open_hosts: frozenset[str] = frozenset(),
    model: str = "",
    mine_only: bool = False,
) -> Week:
    """The week that holds `day` in the viewer's zone, Monday first. `mine_only` hides others' bars only."""
    start, end = week_bounds(day, zone)
    now = clock.now()
    gpus = _gpus(model)
    spans = _spans(start, end, now)
    by_gpu: dict[int, list[_Span]] = defaultdict(list)
    for span in spans:
        by_gpu[span.gpu_id].append(span)
    groups: dict[int, tuple[Host, list[Gpu]]] = {}
    for gpu, host in gpus:
        groups.setdefault(host.id, (host, []))[1].append(gpu)
    all_open = len(gpus) <= OPEN_AT_MOST
    frame = _Frame(start, end, now, viewer.id, mine_only, _edges(start, zone))
    rows = tuple(
        _host_row(host, members, by_gpu, frame, is_open=all_open or host.name in open_hosts)
        for host, members in groups.values()
    )
    days = tuple(_midnight(start.astimezone(zone).date() + timedelta(days=n), zone) for n in range(7))
    everything = [gpu for gpu, _host in gpus if gpu.state == GpuState.IN_SERVICE]
    return Week(
        start=start,
        end=end,
        days=days,
        hosts=rows,
        models=tuple(sorted({gpu.model for gpu, _ in gpus} if not model else _all_models())),
        now_unit=frame.unit(now) if start <= now < end else None,
        total=len(everything),
        free_now=sum(row.free_now for row in rows),
        any_booking=any(span.ends_at > start and span.starts_at < end for span in spans),
        day_free={
            first.astimezone(zone).date(): _free_for(everything, by_gpu, max(first, now), last)
            for first, last in zip(days, (*days[1:], end), strict=True)
            if last > now
        },
    )


def week_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Monday's first moment and the next Monday's, in a zone."""
    monday = day - timedelta(days=day.weekday())
    return _midnight(monday, zone), _midnight(monday + timedelta(days=7), zone)


@dataclass(frozen=True)
class _Frame:
    """The view's edges, and whose eyes it is for."""

    start: datetime
    end: datetime
    now: datetime
    viewer_id: int
    mine_only: bool
    edges: tuple[datetime, ...]  # of the host rows' cells

    def unit(self, moment: datetime) -> int:
        """Where a moment lies in the week, in units, kept inside it."""
        share = (moment - self.start) / (self.end - self.start)
        return min(max(round(share * UNITS), 0), UNITS)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def _edges(start: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """Every fourth hour by the wall clock: a day with a clock change has one longer or shorter cell."""
    monday = start.astimezone(zone).date()
    hours = [
        datetime.combine(monday + timedelta(days=day), time(hour), tzinfo=zone).astimezone(UTC)
        for day in range(7)
        for hour in range(0, 24, CELL_HOURS)
    ]
    return (*hours, _midnight(monday + timedelta(days=7), zone))


def _gpus(model: str) -> list[tuple[Gpu, Host]]:
    query = select(Gpu, Host).join(Host).where(Host.enabled).order_by(Host.name, Gpu.minor)
    if model:
        query = query.where(Gpu.model == model)
    return [(gpu, host) for gpu, host in db.session.execute(query)]


def _all_models() -> set[str]:
    return set(db.session.scalars(select(Gpu.model).distinct()))


def _spans(start: datetime, end: datetime, now: datetime) -> list[_Span]:
    """Allocations that touch the week, or that run now (for "free now", whichever week is shown).

    The range operator is what the overlap constraint's index answers, at any number of stored bookings.
    """
    held = func.tstzrange(Allocation.starts_at, Allocation.ends_at)
    shown = func.tstzrange(min(start, now), max(end, now), "[]") if start <= now < end else func.tstzrange(start, end)
    query = (
        select(
            Allocation.gpu_id,
            Allocation.booking_id,
            Allocation.starts_at,
            Allocation.ends_at,
            User.id,
            User.full_name,
            User.username,
        )
        .join(Booking, Booking.id == Allocation.booking_id)
        .join(User, User.id == Booking.user_id)
        .where(held.op("&&")(shown), Allocation.released_at.is_(None))
        .order_by(Allocation.starts_at)
    )
    return [
        _Span(gpu_id, booking_id, starts_at, ends_at, user_id, full_name or username)
        for gpu_id, booking_id, starts_at, ends_at, user_id, full_name, username in db.session.execute(query)
    ]


def _host_row(
    host: Host, gpus: Sequence[Gpu], by_gpu: dict[int, list[_Span]], frame: _Frame, *, is_open: bool
) -> HostRow:
    usable = [gpu for gpu in gpus if gpu.state == GpuState.IN_SERVICE]
    free_now = _free_for(usable, by_gpu, frame.now, frame.now + timedelta(seconds=1))
    cells = tuple(
        Cell(left, right, None if right <= frame.now else _free_for(usable, by_gpu, max(left, frame.now), right))
        for left, right in pairwise(frame.edges)
    )
    rows = tuple(_gpu_row(gpu, by_gpu.get(gpu.id, []), frame) for gpu in gpus) if is_open else ()
    return HostRow(
        host, len(usable), free_now, None if free_now else _next_free(usable, by_gpu, frame.now), cells, is_open, rows
    )


def _gpu_row(gpu: Gpu, spans: Sequence[_Span], frame: _Frame) -> GpuRow:
    inside = [span for span in spans if span.ends_at > frame.start and span.starts_at < frame.end]
    bars = tuple(_bar(span, frame) for span in inside if not frame.mine_only or span.user_id == frame.viewer_id)
    gaps = _gaps(inside, frame) if gpu.state == GpuState.IN_SERVICE else ()
    return GpuRow(gpu, bars, gaps)


def _bar(span: _Span, frame: _Frame) -> Bar:
    start, end = frame.unit(span.starts_at), frame.unit(span.ends_at)
    start = min(start, UNITS - 1)
    return Bar(
        booking_id=span.booking_id,
        owner=span.owner,
        mine=span.user_id == frame.viewer_id,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        start=start,
        width=max(end - start, 1),
        before=span.starts_at < frame.start,
        after=span.ends_at > frame.end,
        running=span.starts_at <= frame.now < span.ends_at,
        past=span.ends_at <= frame.now,
    )


def _gaps(spans: Sequence[_Span], frame: _Frame) -> tuple[Gap, ...]:
    """The free places between bookings, from now on, wide enough to be clicked (half an hour)."""
    found, cursor = [], max(frame.start, frame.now)
    for span in [*spans, None]:
        until = span.starts_at if span else frame.end
        left, right = frame.unit(cursor), frame.unit(until)
        if until > cursor and right > left:
            found.append(Gap(cursor, until, left, right - left))
        if span:
            cursor = max(cursor, span.ends_at)
    return tuple(found)


def _free_for(gpus: Sequence[Gpu], by_gpu: dict[int, list[_Span]], start: datetime, end: datetime) -> int:
    return sum(
        not any(span.starts_at < end and span.ends_at > start for span in by_gpu.get(gpu.id, ())) for gpu in gpus
    )


def _next_free(gpus: Sequence[Gpu], by_gpu: dict[int, list[_Span]], now: datetime) -> datetime | None:
    """When the first of these GPUs has no booking any more that runs on from now, as far as this week shows."""
    moments = []
    for gpu in gpus:
        cursor = now
        for span in by_gpu.get(gpu.id, ()):
            if span.starts_at > cursor:
                break
            cursor = max(cursor, span.ends_at)
        moments.append(cursor)
    return min(moments, default=None)
