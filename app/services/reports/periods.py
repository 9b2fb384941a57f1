"""What a report covers: a month, a quarter or any days, and the period before it to compare with. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from app.services.periods import A_DAY, midnight
from app.services.policy import Kept
from app.services.reports.spans import Span

SHORT, MIDDLE = 45, 200  # days up to which a chart has a bar for each day, and for each week


class Choice(StrEnum):
    """The periods that have a link."""

    THIS_MONTH = "this-month"
    LAST_MONTH = "last-month"
    QUARTER = "quarter"
    CUSTOM = "custom"


class Step(StrEnum):
    """What days are taken together to."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def first(self, day: date) -> date:
        """The first day of the day's step."""
        if self == Step.WEEK:
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self == Step.MONTH else day


@dataclass(frozen=True)
class Range:
    """Days of the lab's, both included."""

    first: date
    last: date

    def span(self, zone: ZoneInfo, now: datetime) -> Span:
        """As moments, as far as they are past."""
        return Span.of(midnight(self.first, zone), midnight(self.last + A_DAY, zone), zone, now)

    @property
    def days(self) -> int:
        """How many."""
        return (self.last - self.first).days + 1

    @property
    def step(self) -> Step:
        """What a chart of it has a bar for."""
        return Step.DAY if self.days <= SHORT else Step.WEEK if self.days <= MIDDLE else Step.MONTH


def of(choice: Choice, today: date) -> Range:
    """The days of a choice, as of today."""
    this = today.replace(day=1)
    if choice == Choice.LAST_MONTH:
        return Range(_back(this, 1), this - A_DAY)
    first = this if choice == Choice.THIS_MONTH else _back(this, (this.month - 1) % 3)
    return Range(first, _on(first, 1 if choice == Choice.THIS_MONTH else 3) - A_DAY)


def before(span: Span, choice: Choice, shown: Range, now: datetime, kept: Kept) -> tuple[Range, Span]:
    """The days before, and of them as long a span as is past of this one, so that a month that has just begun is not
    compared with a whole one; but where its minutes are gone, as many whole hours, and where its hours are, whole
    days."""
    if choice == Choice.CUSTOM:
        days = Range(shown.first - shown.days * A_DAY, shown.first - A_DAY)
    else:
        days = Range(_back(shown.first, 3 if choice == Choice.QUARTER else 1), shown.first - A_DAY)
    start, end = midnight(days.first, span.zone), midnight(days.last + A_DAY, span.zone)
    if span.until < span.end:
        end = min(end, start + (span.until - span.start))
    return days, Span.of(start, end, span.zone, now).as_far_as_known(kept)


def as_long_before(span: Span, now: datetime, kept: Kept) -> Span:
    """The same of a span of any moments: of whole days as many of the lab's, of others as long a time."""
    first, end = span.start.astimezone(span.zone).date(), span.end.astimezone(span.zone).date()
    if (midnight(first, span.zone), midnight(end, span.zone)) == (span.start, span.end):
        return before(span, Choice.CUSTOM, Range(first, end - A_DAY), now, kept)[1]
    start = span.start - (span.end - span.start)
    return Span.of(start, start + (span.until - span.start), span.zone, now)


def _back(month: date, number: int) -> date:
    """The first day of the month so many before one."""
    whole = month.year * 12 + month.month - 1 - number
    return date(whole // 12, whole % 12 + 1, 1)


def _on(month: date, number: int) -> date:
    return _back(month, -number)
