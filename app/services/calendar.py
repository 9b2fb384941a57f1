"""A week of GPUs: one row per host with what is free in each cell, and the open hosts' GPUs with their bars.

Few queries whatever is stored: hosts and GPUs, the allocations that touch the week, whose they are,
and the models when one is chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ARRAY, BigInteger, any_, func, literal, or_, select

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, User
from app.services import timeline
from app.services.timeline import Bar, Cell, Frame, Gap, Span, Spans

OPEN_AT_MOST = 8  # with so few GPUs in all, every host is open
LOOK_AHEAD = timedelta(days=4)  # beyond the week's end, to say when a GPU is free next


@dataclass(frozen=True)
class GpuRow:
    """One GPU's week."""

    gpu: Gpu
    bars: tuple[Bar, ...]
    gaps: tuple[Gap, ...]


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
class Day:
    """One day of the week. `free`: GPUs that nobody has for the whole rest of it; None once it is over."""

    date: date
    starts_at: datetime
    free: int | None


@dataclass(frozen=True)
class Entry:
    """One booking of the week, for the list: the GPUs it has, by their numbers on the host."""

    booking_id: int
    host: str
    minors: tuple[int, ...]
    owner: str
    mine: bool
    starts_at: datetime
    ends_at: datetime
    running: bool
    past: bool


@dataclass(frozen=True)
class Week:
    """The page's data. Moments in UTC; the days begin at midnight in the viewer's zone."""

    start: datetime
    end: datetime
    days: tuple[Day, ...]
    hosts: tuple[HostRow, ...]
    entries: tuple[Entry, ...]  # in order of start
    models: tuple[str, ...]
    now_unit: int | None
    total: int
    free_now: int
    any_booking: bool  # whoever's; `entries` may leave out others'


def all_open(found: Week) -> bool:
    """Whether there are so few GPUs that no host needs to be opened."""
    return sum(row.gpus for row in found.hosts) <= OPEN_AT_MOST and all(row.open for row in found.hosts)


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
    monday = day - timedelta(days=day.weekday())
    now = clock.now()
    frame = Frame(timeline.edges(monday, zone), now, viewer.id, mine_only)
    gpus = _gpus(model)
    current = frame.start <= now < frame.end
    known_until = frame.end + LOOK_AHEAD if current else now
    spans = _spans(frame.start, known_until if current else frame.end, now)
    groups: dict[int, tuple[Host, list[Gpu]]] = {}
    for gpu, host in gpus:
        groups.setdefault(host.id, (host, []))[1].append(gpu)
    rows = tuple(
        _host_row(host, members, spans, frame, known_until, is_open=_is_open(host, gpus, open_hosts))
        for host, members in groups.values()
    )
    everything = timeline.usable([gpu for gpu, _host in gpus])
    return Week(
        start=frame.start,
        end=frame.end,
        days=_days(everything, spans, frame, monday, zone),
        hosts=rows,
        entries=_entries(gpus, spans, frame),
        models=tuple(sorted(_all_models() if model else {gpu.model for gpu, _host in gpus})),
        now_unit=frame.unit(now) if current else None,
        total=len(everything),
        free_now=sum(row.free_now for row in rows),
        any_booking=any(span.touches(frame.start, frame.end) for gpu, _ in gpus for span in spans.get(gpu.id, ())),
    )


def _is_open(host: Host, gpus: Sequence[object], open_hosts: frozenset[str]) -> bool:
    return len(gpus) <= OPEN_AT_MOST or host.name in open_hosts


def _host_row(
    host: Host, gpus: Sequence[Gpu], spans: Spans, frame: Frame, known_until: datetime, *, is_open: bool
) -> HostRow:
    usable = timeline.usable(gpus)
    free_now = timeline.free_for(usable, spans, frame.now, frame.now + timedelta(seconds=1))
    return HostRow(
        host=host,
        gpus=len(usable),
        free_now=free_now,
        next_free=None if free_now else timeline.next_free(usable, spans, frame.now, known_until),
        cells=timeline.cells(usable, spans, frame),
        open=is_open,
        rows=tuple(_gpu_row(gpu, spans.get(gpu.id, ()), frame) for gpu in gpus) if is_open else (),
    )


def _gpu_row(gpu: Gpu, spans: Sequence[Span], frame: Frame) -> GpuRow:
    return GpuRow(gpu, timeline.bars(spans, frame), timeline.gaps(spans, frame) if timeline.usable([gpu]) else ())


def _days(gpus: Sequence[Gpu], spans: Spans, frame: Frame, monday: date, zone: ZoneInfo) -> tuple[Day, ...]:
    found = []
    for number in range(7):
        day = monday + timedelta(days=number)
        start, end = timeline.midnight(day, zone), timeline.midnight(day + timedelta(days=1), zone)
        free = timeline.free_for(gpus, spans, max(start, frame.now), end) if end > frame.now else None
        found.append(Day(day, start, free))
    return tuple(found)


def _entries(gpus: Sequence[tuple[Gpu, Host]], spans: Spans, frame: Frame) -> tuple[Entry, ...]:
    """The week's bookings, each once, however many GPUs it has."""
    held: dict[int, list[int]] = defaultdict(list)
    first: dict[int, tuple[Span, Host]] = {}
    for gpu, host in gpus:
        for span in spans.get(gpu.id, ()):
            if span.touches(frame.start, frame.end) and (not frame.mine_only or span.user_id == frame.viewer_id):
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
            running=span.starts_at <= frame.now < span.ends_at,
            past=span.ends_at <= frame.now,
        )
        for span, host in ordered
    )


def _gpus(model: str) -> list[tuple[Gpu, Host]]:
    query = select(Gpu, Host).join(Host).where(Host.enabled).order_by(Host.name, Gpu.minor)
    if model:
        query = query.where(Gpu.model == model)
    return [(gpu, host) for gpu, host in db.session.execute(query)]


def _all_models() -> set[str]:
    return set(db.session.scalars(select(Gpu.model).join(Host).where(Host.enabled).distinct()))


def _spans(start: datetime, end: datetime, now: datetime) -> Spans:
    """By GPU, the allocations that touch a span or run now (for "free now", whichever week is shown).

    The range operators are what the overlap constraint's index answers, at any number of stored bookings. Whose they
    are is a query of its own: in a join, PostgreSQL expects far more rows of this one and reads all bookings there are.
    """
    held = func.tstzrange(Allocation.starts_at, Allocation.ends_at)
    query = (
        select(Allocation.gpu_id, Allocation.booking_id, Allocation.starts_at, Allocation.ends_at)
        .where(or_(held.op("&&")(func.tstzrange(start, end)), held.op("@>")(now)), Allocation.released_at.is_(None))
        .order_by(Allocation.starts_at)
    )
    rows = db.session.execute(query).all()
    owners = _owners({row.booking_id for row in rows})
    found: dict[int, list[Span]] = defaultdict(list)
    for gpu_id, booking_id, starts_at, ends_at in rows:
        found[gpu_id].append(Span(gpu_id, booking_id, starts_at, ends_at, *owners[booking_id]))
    return found


def _owners(booking_ids: set[int]) -> dict[int, tuple[int, str]]:
    """By booking, its person's id and the name that others see."""
    query = (
        select(Booking.id, User.id, User.full_name, User.username)
        .join(User, User.id == Booking.user_id)
        .where(Booking.id == any_(literal(list(booking_ids), ARRAY(BigInteger))))
    )
    return {
        booking_id: (user_id, full_name or username)
        for booking_id, user_id, full_name, username in db.session.execute(query)
    }
