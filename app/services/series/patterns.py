"""The same hours on certain weekdays until a day: when that is. Pure arithmetic, by the wall clock of one zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from app.errors import InvalidInput
from app.language import gettext as _
from app.services.windows import Window

DAY = 86400  # seconds by a wall clock, whatever the night
MOST = 60  # bookings of one series: twelve weeks of weekdays
LONGEST = timedelta(days=366)
WEEK = (0, 1, 2, 3, 4, 5, 6)  # 0 for Monday
WORKDAYS = WEEK[:5]


@dataclass(frozen=True)
class Pattern:
    """From `opens` to `closes` on each of these weekdays, from `first_day` to `until`; as models.Series has them.

    It keeps to the wall clock: 20:00 to 08:00 is an hour longer or shorter in a night when clocks change. A time that
    comes twice is the first; one that the clocks jump over is as much later.
    """

    weekdays: tuple[int, ...]
    opens: int
    closes: int
    zone: str
    first_day: date
    until: date

    def on(self, day: date) -> Window:
        """Its window that begins on that day. No window at all if the clocks jump over the whole of it: reversed."""
        zone = ZoneInfo(self.zone)
        midnight = datetime.combine(day, time())
        moments = (midnight + timedelta(seconds=seconds) for seconds in (self.opens, self.closes))
        return Window(*(moment.replace(tzinfo=zone).astimezone(UTC) for moment in moments))

    def days(self) -> list[date]:
        """The days on which it begins, in order."""
        span = range((self.until - self.first_day).days + 1)
        every = (self.first_day + timedelta(days=number) for number in span)
        return [day for day in every if day.weekday() in self.weekdays]

    def day_of(self, moment: datetime) -> date:
        """The day of a moment by its clock."""
        return moment.astimezone(ZoneInfo(self.zone)).date()


def checked(pattern: Pattern) -> Pattern:
    """The pattern, if it can be meant. Raises InvalidInput naming the field: weekdays, until, starts_at or ends_at."""
    if not pattern.weekdays or not set(pattern.weekdays) <= set(WEEK):
        raise InvalidInput(_("Choose the days of the week on which it repeats."), field="weekdays")
    if not 0 <= pattern.opens < DAY:
        raise InvalidInput(_("This is no time of a day."), field="starts_at")
    if not pattern.opens < pattern.closes <= pattern.opens + LONGEST.total_seconds():
        raise InvalidInput(_("The end must be after the start."), _("Choose a later end."), field="ends_at")
    if pattern.until < pattern.first_day:
        raise InvalidInput(_("The last day lies before the first."), _("Choose a later last day."), field="until")
    if pattern.until - pattern.first_day > LONGEST:
        raise InvalidInput(_("The last day is more than a year away."), _("Check the dates."), field="until")
    days = pattern.days()
    if not days:
        raise InvalidInput(
            _("None of these weekdays comes before the last day."), _("Choose a later last day."), field="until"
        )
    if len(days) > MOST:
        raise InvalidInput(
            _("That would be %(count)s bookings; a series has %(most)s at most.", count=len(days), most=MOST),
            _("The last day can be %(day)s.", day=days[MOST - 1].isoformat()),
            field="until",
        )
    return pattern
