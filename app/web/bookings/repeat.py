"""The part of the booking form that makes it a series: on which days of the week, and until when."""

from __future__ import annotations

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from babel.dates import get_day_names
from flask_babel import format_date, get_locale
from wtforms import SelectMultipleField, StringField

from app.errors import InvalidInput
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services.claims import Ask
from app.services.rules.terms import listed
from app.services.series.patterns import DAY, WEEK, WORKDAYS, Pattern, checked
from app.web import local_times, times
from app.web.forms import PageForm
from app.web.rule_words import weekday_name

SHORTCUT = "workdays"


class RepeatForm(PageForm):
    """All as ticked and typed; `pattern` makes sense of it."""

    repeat = SelectMultipleField(_l("Repeat on"), validate_choice=False)
    until = StringField(_l("Last day"))


def choices() -> list[tuple[str, str]]:
    """What can be ticked: the shortcut, then each day."""
    return [(SHORTCUT, _("Every weekday (Monday to Friday)")), *((str(day), weekday_name(day)) for day in WEEK)]


def wanted(form: RepeatForm) -> bool:
    """Whether it is to be more than one booking."""
    return bool(form.repeat.data or (form.until.data or "").strip())


def pattern(form: RepeatForm, ask: Ask) -> Pattern:
    """When it is to be: from the day and by the hours of the request, as the reader's clock has them.

    Raises InvalidInput naming the field."""
    weekdays, until = days(form), last_day(form)
    if ask.starts_at is None:
        raise InvalidInput(_("Give a time such as 20:00."), field="start_time")
    zone = times.viewer_zone()
    start, end = (moment.astimezone(zone).replace(tzinfo=None) for moment in (ask.starts_at, ask.ends_at))
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    opens, closes = (int((moment - midnight).total_seconds()) for moment in (start, end))
    return checked(Pattern(weekdays, opens, closes, str(zone), start.date(), until))


def days(form: RepeatForm) -> tuple[int, ...]:
    """The weekdays that are ticked, in order. Raises InvalidInput for none."""
    ticked = set(form.repeat.data or ())
    found = {day for day in WEEK if str(day) in ticked} | (set(WORKDAYS) if SHORTCUT in ticked else set())
    if not found:
        raise InvalidInput(_("Choose the days of the week on which it repeats."), field="repeat")
    return tuple(sorted(found))


def last_day(form: RepeatForm) -> date:
    """The day that was typed. Raises InvalidInput."""
    return local_times.parse_date(form.until.data or "", "until")


def hours(opens: int, closes: int) -> str:
    """`20:00–08:00`, with the days that lie between where it is longer than one."""
    start, end = (clock_text(seconds % DAY) for seconds in (opens, closes))
    text = _("%(start)s–%(end)s", start=start, end=end)
    return text if closes - opens <= DAY else _("%(hours)s (%(days)s days later)", hours=text, days=closes // DAY)


def clock_text(seconds: int) -> str:
    """Seconds since midnight as one would type them; seconds only if there are any."""
    rest, second = divmod(seconds, 60)
    return f"{rest // 60:02d}:{rest % 60:02d}" + (f":{second:02d}" if second else "")


def days_text(found: Pattern) -> str:
    """`every weekday`, `every day`, `every Mon, Wed`."""
    if found.weekdays == WORKDAYS:
        return _("every weekday")
    if found.weekdays == WEEK:
        return _("every day")
    names = get_day_names("abbreviated", locale=get_locale())
    return _("every %(days)s", days=listed(names[day] for day in found.weekdays))


def text(found: Pattern) -> str:
    """`every weekday 20:00–08:00 until Tue 17 Nov`, with the zone where it is not the reader's."""
    until = format_date(found.until, _("EEE d MMM"))
    span = hours(found.opens, found.closes)
    words = _("%(days)s %(hours)s until %(until)s", days=days_text(found), hours=span, until=until)
    return words if ZoneInfo(found.zone) == times.viewer_zone() else f"{words} ({found.zone})"


def closes_after(opens: int, since_midnight: timedelta, found: Pattern) -> int:
    """An end typed as a time of day: the next such moment after `opens`, as many days later as it was."""
    closes = int(since_midnight.total_seconds())
    while closes <= opens:
        closes += DAY
    return closes + (found.closes - found.opens - 1) // DAY * DAY
