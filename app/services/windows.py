"""Windows of time: `[starts_at, ends_at)`, aware, snapped to the grid. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.errors import InvalidInput
from app.language import gettext as _

LATE_BY = timedelta(seconds=60)  # a form that was open for a minute still means "now"
LONGEST = timedelta(days=366)  # beyond this it is a typing mistake, whatever the rules say
YEARS = range(1971, 9000)


@dataclass(frozen=True)
class Window:
    """A half-open span of time in UTC: back-to-back windows do not overlap."""

    starts_at: datetime
    ends_at: datetime

    @property
    def seconds(self) -> int:
        """Its length in whole seconds."""
        return int((self.ends_at - self.starts_at).total_seconds())

    def overlaps(self, other: Window) -> bool:
        """Whether the two share a moment."""
        return self.starts_at < other.ends_at and other.starts_at < self.ends_at


def floor_to_grid(moment: datetime, slot: int) -> datetime:
    """The last grid line at or before `moment`; the grid starts at 1970 in UTC, `slot` in seconds."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % slot, UTC)


def ceil_to_grid(moment: datetime, slot: int) -> datetime:
    """The first grid line at or after `moment`."""
    floor = floor_to_grid(moment, slot)
    return floor if floor == moment else floor + timedelta(seconds=slot)


def snapped(starts_at: datetime | None, ends_at: datetime, now: datetime, slot: int) -> Window:
    """The window that is booked for what was asked: never shorter than asked.

    `starts_at` None, or up to a minute ago, means now, to the second. Raises InvalidInput for a window that is naive,
    empty, reversed, in the past or absurdly long, naming the field.
    """
    this_second = now.replace(microsecond=0)
    asked = in_utc(starts_at, "starts_at") if starts_at is not None else this_second
    if asked < now - LATE_BY:
        raise InvalidInput(_("The start lies in the past."), _("Choose a start from now on."), field="starts_at")
    start = this_second if asked <= now else max(floor_to_grid(asked, slot), this_second)
    end = in_utc(ends_at, "ends_at")
    if end <= max(asked, start):
        raise InvalidInput(_("The end must be after the start."), _("Choose a later end."), field="ends_at")
    if end - asked > LONGEST:
        raise InvalidInput(_("The window is longer than a year."), _("Check the dates."), field="ends_at")
    return Window(start, ceil_to_grid(end, slot))


def in_utc(moment: datetime, field: str) -> datetime:
    """The moment in UTC: two of one zone are compared by the clock on the wall, which lies when clocks change.

    Raises InvalidInput for one without a zone, or so far off that no arithmetic can be done with it.
    """
    if moment.tzinfo is None:
        brief = _("The start has no time zone.") if field == "starts_at" else _("The end has no time zone.")
        raise InvalidInput(brief, _('End it with "Z" for UTC or an offset such as +08:00.'), field=field)
    if moment.year not in YEARS:
        raise InvalidInput(_("This is no date to book for."), _("Check the dates."), field=field)
    return moment.astimezone(UTC)


def hours_text(seconds: int) -> str:
    """GPU-seconds as hours for people and programs: `12`, `6.5`, `0.25`; at most two decimals."""
    return f"{seconds / 3600:.2f}".rstrip("0").rstrip(".")
