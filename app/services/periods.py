"""What the calendar shows at once: a day, a week or a month, by the clocks of a zone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

CELL_HOURS = 4  # of a week's cells; a day's have one hour, a month's one day
A_DAY, AN_HOUR = timedelta(days=1), timedelta(hours=1)


class Kind(StrEnum):
    """How much of time is shown."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class Period:
    """The days shown, and the moments in UTC at which their cells begin; `edges` has the last one's end too."""

    kind: Kind
    days: tuple[date, ...]
    edges: tuple[datetime, ...]
    zone: ZoneInfo

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return self.edges[0]

    @property
    def end(self) -> datetime:
        """The next one's first moment."""
        return self.edges[-1]

    @property
    def before(self) -> date:
        """A day of the period before it."""
        return self.days[0] - A_DAY

    @property
    def after(self) -> date:
        """A day of the period after it."""
        return self.days[-1] + A_DAY


def period(kind: Kind, day: date, zone: ZoneInfo) -> Period:
    """The day, the week (Monday first) or the month that holds a day."""
    if kind == Kind.DAY:
        return Period(kind, (day,), hours_of(day, zone), zone)
    if kind == Kind.WEEK:
        monday = day - timedelta(days=day.weekday())
        return Period(kind, _days(monday, 7), edges(monday, zone), zone)
    first = day.replace(day=1)
    days = _days(first, ((first + timedelta(days=31)).replace(day=1) - first).days)
    return Period(kind, days, tuple(midnight(one, zone) for one in (*days, days[-1] + A_DAY)), zone)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """A day's first moment in a zone, in UTC."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def hours_of(day: date, zone: ZoneInfo) -> tuple[datetime, ...]:
    """Every hour that passes in a day, 23 or 25 where the clocks change, and the next day's first moment."""
    start, end = midnight(day, zone), midnight(day + A_DAY, zone)
    return (*(start + AN_HOUR * number for number in range(-(-(end - start) // AN_HOUR))), end)


def edges(monday: date, zone: ZoneInfo) -> tuple[datetime, ...]:
    """Every fourth hour of a week by the wall clock, and the next week's first moment."""
    hours = [
        datetime.combine(day, time(hour), tzinfo=zone).astimezone(UTC)
        for day in _days(monday, 7)
        for hour in range(0, 24, CELL_HOURS)
    ]
    return (*hours, midnight(monday + timedelta(days=7), zone))


def _days(first: date, number: int) -> tuple[date, ...]:
    return tuple(first + timedelta(days=count) for count in range(number))
