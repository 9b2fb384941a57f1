"""Days, weeks and months in which booked hours count, by the wall clock of the lab's zone. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from app.services.rules.terms import Rules
from app.services.windows import Window

KINDS = {"hours_day": "day", "hours_week": "week", "hours_month": "month"}


def period(moment: datetime, kind: str, rules: Rules, zone: ZoneInfo) -> Window:
    """The day, week or month that holds the moment; in a night when clocks change it is an hour longer or shorter."""
    day = moment.astimezone(zone).date()
    if kind == "day":
        return _between(day, day + timedelta(days=1), zone)
    if kind == "week":
        first = day - timedelta(days=(day.weekday() - rules.week_day) % 7)
        return _between(first, first + timedelta(days=7), zone)
    first = day.replace(day=rules.month_day)
    if first > day:
        first = _next_month(first, -1)
    return _between(first, _next_month(first, 1), zone)


def touched(window: Window, kind: str, rules: Rules, zone: ZoneInfo) -> Iterator[Window]:
    """All such periods that share a moment with the window, in order."""
    moment = window.starts_at
    while moment < window.ends_at:
        found = period(moment, kind, rules, zone)
        yield found
        moment = found.ends_at


def shared(one: Window, other: Window) -> int:
    """How many seconds two windows share."""
    seconds = (min(one.ends_at, other.ends_at) - max(one.starts_at, other.starts_at)).total_seconds()
    return max(int(seconds), 0)


def midnight(day: date, zone: ZoneInfo, hour: int = 0) -> datetime:
    """That hour of the day by the wall clock, in UTC."""
    return (datetime.combine(day, time()) + timedelta(hours=hour)).replace(tzinfo=zone).astimezone(UTC)


def _between(first: date, after: date, zone: ZoneInfo) -> Window:
    return Window(midnight(first, zone), midnight(after, zone))


def _next_month(day: date, by: int) -> date:
    months = day.year * 12 + day.month - 1 + by
    return day.replace(year=months // 12, month=months % 12 + 1)
