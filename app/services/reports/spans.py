"""A span of time cut into the lab's days, and where what GPUs did in it is stored. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from app.services.periods import A_DAY, AN_HOUR, midnight
from app.services.policy import Kept

LONGEST = timedelta(days=3700)


class Table(StrEnum):
    """How finely it is stored."""

    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"


@dataclass(frozen=True)
class Source:
    """The rows of a table from a moment (or day) to another, that one excluded; all are of the day with this number."""

    table: Table
    start: datetime | date
    end: datetime | date
    day: int


@dataclass(frozen=True)
class Span:
    """`[start, end)` in days of the lab's; `edges`: where each of them begins and the last one ends within the span.

    `now`: nothing after it is counted, since nobody knows yet."""

    start: datetime
    end: datetime
    zone: ZoneInfo
    days: tuple[date, ...]
    edges: tuple[datetime, ...]

    @classmethod
    def of(cls, start: datetime, end: datetime, zone: ZoneInfo, now: datetime) -> Span:
        """The part of it that is past."""
        until = max(start, min(end, now))
        first, days = start.astimezone(zone).date(), []
        while midnight(first, zone) < until:
            days.append(first)
            first += A_DAY
        inner = (midnight(day, zone) for day in days[1:])
        return cls(start, end, zone, tuple(days), (start, *inner, until) if days else ())

    @property
    def until(self) -> datetime:
        """Where what is past of it ends."""
        return self.edges[-1] if self.edges else self.start

    @property
    def hours(self) -> float:
        """How long what is past of it is."""
        return (self.until - self.start) / AN_HOUR

    def sources(self) -> Iterator[Source]:
        """Where its usage is: whole days by the day; of what is left the whole hours, and of that the minutes.

        Each minute is in exactly one of them. Minutes and hours that are not kept any more are missing: unknown."""
        whole = {number for number, day in enumerate(self.days) if self._has_all_of(day)}
        if whole:
            first = min(whole)
            yield Source(Table.DAYS, self.days[first], self.days[max(whole)] + A_DAY, first)
        for number, day in enumerate(self.days):
            if number not in whole:
                start, end = max(self.start, midnight(day, self.zone)), min(self.end, midnight(day + A_DAY, self.zone))
                yield from _finer(start, end, number)

    def as_far_as_known(self, kept: Kept) -> Span:
        """As much of it, from its start on, as is known though minutes and hours from before `kept` are gone: no hour
        is cut then, and no day, nor where the lab's begins within an hour."""
        gone = {Table.MINUTES: kept.minutes, Table.HOURS: kept.hours}
        midnight_ = midnight(self.until.astimezone(self.zone).date(), self.zone)
        for end in (self.until, _hour(self.until, up=False), midnight_):
            found = Span.of(self.start, max(self.start, end), self.zone, self.until)
            finer = [(one.start, gone[one.table]) for one in found.sources() if one.table in gone]
            if not [start for start, since in finer if isinstance(start, datetime) and start < since]:
                break
        return found

    def _has_all_of(self, day: date) -> bool:
        return self.start <= midnight(day, self.zone) and midnight(day + A_DAY, self.zone) <= self.end


def _finer(start: datetime, end: datetime, day: int) -> Iterator[Source]:
    """Hours are UTC's; a zone may be half an hour beside them."""
    first, last = _hour(start, up=True), _hour(end, up=False)
    if first >= last:
        yield Source(Table.MINUTES, start, end, day)
        return
    yield Source(Table.HOURS, first, last, day)
    if start < first:
        yield Source(Table.MINUTES, start, first, day)
    if last < end:
        yield Source(Table.MINUTES, last, end, day)


def _hour(moment: datetime, *, up: bool) -> datetime:
    floor = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return floor + AN_HOUR if up and floor < moment else floor
