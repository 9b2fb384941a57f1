"""Dates and times as people type them, in their own zone, and back."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from app.errors import InvalidInput
from app.language import gettext as _

_TIME = re.compile(r"(\d{1,2})(?:[:.\uff1ah]?(\d{2})(?::(\d{2}))?)?")
_HOURS = re.compile(r"(\d{1,3}(?:[.,]\d{1,2})?)\s*h?")
_YEARS = range(2000, 2200)


def parse_date(text: str, field: str) -> date:
    """`2026-11-04`, as date inputs send it. Raises InvalidInput naming the field."""
    try:
        found = date.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.year not in _YEARS:
        raise InvalidInput(_("Give a date such as 2026-11-04."), field=field)
    return found


def parse_time(text: str, field: str) -> timedelta:
    """`20`, `20:00`, `2000` or `8:30`, as the time since midnight; `24:00` is the day's end. Raises InvalidInput."""
    match = _TIME.fullmatch(text.strip())
    if match:
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        if minutes < 60 and seconds < 60 and (hours < 24 or (hours, minutes, seconds) == (24, 0, 0)):
            return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    raise InvalidInput(_("Give a time such as 20:00."), field=field)


def parse_hours(text: str, field: str) -> int:
    """`6`, `1.5`, `1,5` or `6 h`, in seconds. Raises InvalidInput naming the field."""
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(_("Give a duration in hours, such as 6 or 1.5."), field=field)
    return round(float(match.group(1).replace(",", ".")) * 3600)


def moment(day: date, since_midnight: timedelta, zone: ZoneInfo, field: str) -> datetime:
    """That wall-clock time as a moment; of two, the first. Raises InvalidInput where the clocks jump over it."""
    naive = datetime.combine(day, time()) + since_midnight
    found = naive.replace(tzinfo=zone).astimezone(UTC)
    back = found.astimezone(zone).replace(tzinfo=None)
    if back != naive:
        raise InvalidInput(
            _("%(time)s does not exist on that day: the clocks go forward.", time=f"{naive:%H:%M}"),
            _("Use %(time)s.", time=f"{back:%H:%M}"),
            field=field,
        )
    return found


def date_text(when: datetime, zone: ZoneInfo) -> str:
    """A moment's date as date inputs want it."""
    return when.astimezone(zone).date().isoformat()


def time_text(when: datetime, zone: ZoneInfo) -> str:
    """A moment's time as one would type it; seconds only if there are any."""
    local = when.astimezone(zone)
    return f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
