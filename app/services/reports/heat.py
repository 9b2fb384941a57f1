"""How busy GPUs are at each hour of the week, by the lab's clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import text

from app.extensions import db
from app.services.periods import A_DAY, AN_HOUR
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span

# By the hour of the week as UTC counts it, in each part of the time in which the lab's clock is as far from UTC.
_QUERY = """
SELECT width_bucket(hour, CAST(:shifts AS timestamptz[])), CAST(extract(epoch FROM hour) AS bigint) / 3600 % 168,
       CAST(sum(busy_ms) AS bigint), CAST(sum(sampled_ms) AS bigint)
FROM {table} WHERE hour >= :start AND hour < :end{scope} GROUP BY 1, 2
"""
_ALL = "usage_host_hours"  # of all GPUs: also when nobody had them
_SOME = """usage_hours
JOIN consumers AS c ON c.id = consumer_id JOIN bookings AS b ON b.id = c.booking_id"""  # while they had them

LONGEST = timedelta(days=92)  # of a longer span, its last part: how a week goes changes within a year

_THURSDAY = datetime(1970, 1, 1)  # noqa: DTZ001 - by any clock; from it on PostgreSQL counts

Cell = float | None  # the share that was busy, 0 to 1; None: no samples


@dataclass(frozen=True)
class Hour:
    """One of the week's 168 hours. `weekday`: 0 is Monday; `busy`, `sampled`: GPU-milliseconds."""

    weekday: int
    hour: int
    busy: int = 0
    sampled: int = 0

    @property
    def share(self) -> Cell:
        """A program that samples too often for a moment cannot make more of it than all."""
        return min(self.busy / self.sampled, 1.0) if self.sampled else None


def week(span: Span, scope: Scope) -> list[list[Cell]]:
    """Seven days, Monday first, of 24 hours each."""
    found = hours(span, scope)
    return [[one.share for one in found[first : first + 24]] for first in range(0, len(found), 24)]


def hours(span: Span, scope: Scope) -> list[Hour]:
    """The hours from Monday's first on. An hour that the clocks show twice counts as one of that hour."""
    statement = _QUERY.format(table=_SOME if scope.condition else _ALL, scope=scope.condition)
    start = _hour(since(span))
    shifts = list(_shifts(start, span.until, span.zone))
    values = {"start": start, "end": span.until, "shifts": [at for at, _offset in shifts]} | scope.values
    sums: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    for part, hour, busy, sampled in db.session.execute(text(statement), values):
        local = _THURSDAY + hour * AN_HOUR + shifts[part - 1][1]
        found = sums[local.weekday(), local.hour]
        found[0] += busy
        found[1] += sampled
    return [Hour(day, hour, *sums.get((day, hour), (0, 0))) for day in range(7) for hour in range(24)]


def since(span: Span) -> datetime:
    """From when on hours are looked at."""
    return max(span.start, span.until - LONGEST)


def _shifts(start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, timedelta]]:
    """From which whole hour on the zone's clock is how far from UTC."""
    before = None
    while start < end:
        if (offset := start.astimezone(zone).utcoffset() or timedelta()) != before:
            yield start, offset
            before = offset
        # A day at a time where nothing changes within it.
        same = (start + A_DAY).astimezone(zone).utcoffset() == offset
        start += A_DAY if same else AN_HOUR


def _hour(moment: datetime) -> datetime:
    """The first whole hour of UTC's in the span."""
    floor = moment.replace(minute=0, second=0, microsecond=0)
    return floor if floor == moment else floor + AN_HOUR
