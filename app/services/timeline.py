"""The calendar's arithmetic: moments onto 336 units, bookings into bars, what is between them into gaps. Pure.

A week is 42 cells of four hours by the wall clock, a day one cell for each hour of it. In a week with a clock change
one cell is an hour longer or shorter and drawn as wide as the others, so bars, cells and days always line up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from operator import attrgetter

from app.models import GpuState
from app.services.timeline_parts import NOBODY, Bar, Cell, Gap, ShownGpu, Span, Spans, Waiting

UNITS = 336  # half-hours of an ordinary week; whatever is shown is as wide


@dataclass(frozen=True)
class Frame:
    """The view's edges, and whose eyes it is for. `edges` has one moment more than there are cells."""

    edges: tuple[datetime, ...]
    now: datetime
    viewer_id: int
    mine_only: bool = False

    @property
    def start(self) -> datetime:
        """The first moment shown."""
        return self.edges[0]

    @property
    def end(self) -> datetime:
        """The first moment after what is shown."""
        return self.edges[-1]

    def unit(self, moment: datetime) -> int:
        """Where a moment lies in what is shown, in units, kept inside it."""
        edges = self.edges
        if moment <= edges[0]:
            return 0
        if moment >= edges[-1]:
            return UNITS
        index = bisect_right(edges, moment) - 1
        left, right = edges[index], edges[index + 1]
        return round((index + (moment - left) / (right - left)) * UNITS / (len(edges) - 1))

    def touched(self, start: datetime, end: datetime) -> range:
        """The numbers of the cells that share a moment with `[start, end)`: from the one in which it starts up to the
        one in which its last moment lies."""
        if start >= end:
            return range(0)
        first = max(bisect_right(self.edges, start) - 1, 0)
        return range(first, min(bisect_left(self.edges, end), len(self.edges) - 1))


def touching(spans: Sequence[Span], start: datetime, end: datetime) -> Sequence[Span]:
    """One GPU's spans that share a moment with `[start, end)`."""
    return spans[bisect_right(spans, start, key=_ends_at) : bisect_left(spans, end, key=_starts_at)]


_starts_at, _ends_at = attrgetter("starts_at"), attrgetter("ends_at")


def cells(gpus: Sequence[ShownGpu], spans: Spans, frame: Frame, waits: Sequence[Waiting] = ()) -> tuple[Cell, ...]:
    """A host's cells; of the one that is now, what is left of it counts. `waits`: what the viewer waits for there."""
    changes = [0] * len(frame.edges)  # by cell: how many more GPUs are taken than in the one before
    edges, begin, in_service = frame.edges, max(frame.now, frame.start), usable(gpus)
    last, current = len(edges) - 1, bisect_right(edges, begin) - 1
    for gpu in in_service:
        counted = current  # up to this cell: two bookings may share one
        for span in touching(spans.get(gpu.id, ()), begin, frame.end):  # as Frame.touched, a thousand times
            stop = bisect_left(edges, span.ends_at, counted, last)
            if stop > counted:
                first = bisect_right(edges, span.starts_at, counted, last) - 1
                changes[max(first, counted)] += 1
                changes[stop] -= 1
                counted = stop
    free = [len(in_service) - taken for taken in accumulate(changes)]
    whose = {frame.viewer_id, NOBODY}
    lines = [touching(spans.get(gpu.id, ()), frame.start, frame.end) for gpu in gpus]
    marked = [span for line in lines for span in line if span.user_id in whose]
    mine = _touched(frame, [span for span in marked if span.user_id == frame.viewer_id])
    kept = _touched(frame, [span for span in marked if span.user_id == NOBODY])
    waited = _touched(frame, waits)
    return tuple(
        Cell(left, right, None if right <= frame.now else free[n], n in mine, n in kept, n in waited)
        for n, (left, right) in enumerate(pairwise(frame.edges))
    )


def _touched(frame: Frame, times: Sequence[Span | Waiting]) -> set[int]:
    """The cells in which any of these times has a moment."""
    return {index for one in times for index in frame.touched(one.starts_at, one.ends_at)}


def bars(spans: Sequence[Span], frame: Frame) -> tuple[Bar, ...]:
    """One GPU's bookings as bars, and maintenance; others' are left out when only one's own are wanted."""
    return tuple(
        _bar(span, frame)
        for span in touching(spans, frame.start, frame.end)
        if not frame.mine_only or span.user_id in {frame.viewer_id, NOBODY}
    )


def gaps(spans: Sequence[Span], frame: Frame) -> tuple[Gap, ...]:
    """The free places between one GPU's bookings, from now on, wide enough to be clicked (a unit)."""
    found, cursor = [], max(frame.start, frame.now)
    inside = touching(spans, frame.start, frame.end)
    for until, resume in [*((span.starts_at, span.ends_at) for span in inside), (frame.end, frame.end)]:
        left, right = frame.unit(cursor), frame.unit(until)
        if until > cursor and right > left:
            found.append(Gap(cursor, until, left, right - left))
        cursor = max(cursor, resume)
    return tuple(found)


def free_for(gpus: Sequence[ShownGpu], spans: Spans, start: datetime, end: datetime) -> int:
    """How many of the GPUs nobody has for any moment of `[start, end)`."""
    return sum(not touching(spans.get(gpu.id, ()), start, end) for gpu in gpus)


def next_free(gpus: Sequence[ShownGpu], spans: Spans, now: datetime, known_until: datetime) -> datetime | None:
    """When the first of these GPUs is free, from now; None if it is not before what is known ends."""
    moments = []
    for gpu in gpus:
        cursor = now
        for span in touching(spans.get(gpu.id, ()), now, known_until):
            if span.starts_at > cursor:
                break
            cursor = span.ends_at
        moments.append(cursor)
    first = min(moments, default=known_until)
    return first if first < known_until else None


def usable(gpus: Sequence[ShownGpu]) -> list[ShownGpu]:
    """Those that may be booked."""
    return [gpu for gpu in gpus if gpu.state == GpuState.IN_SERVICE]


def _bar(span: Span, frame: Frame) -> Bar:
    start, end = min(frame.unit(span.starts_at), UNITS - 1), frame.unit(span.ends_at)
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
        state=state(span, frame.now),
        note=span.note,
        offered=span.offered,
    )


def waiting_bar(wait: Waiting, frame: Frame) -> Bar:
    """What the viewer waits for, as a bar; its number is the place's on the waiting list."""
    span = Span(0, wait.wait_id, wait.starts_at, wait.ends_at, frame.viewer_id, "")
    return _bar(span, frame)._replace(state="in_line")


def state(span: Span, now: datetime) -> str:
    """`booked`, `attaching` (it has begun, its GPU was not seen in the machine), `in_use`, `ended` or `maintenance`."""
    if span.is_maintenance:
        return "maintenance"
    if span.ends_at <= now:
        return "ended"
    if span.starts_at > now:
        return "booked"
    return "in_use" if span.attached else "attaching"
