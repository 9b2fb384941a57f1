"""Moments as the calendar says them: short, since the page says which days are shown."""

from __future__ import annotations

from datetime import date, datetime

from flask_babel import get_locale

from app.language import gettext as _
from app.services.words import on_a_clock
from app.web import times
from app.web.calendar.blueprint import bp


@bp.app_template_filter()
def weekday(moment: datetime) -> str:
    """`Tue 4`."""
    return on_a_clock(moment, _("EEE d"), times.viewer_zone(), get_locale() or "en")


def short(moment: datetime) -> str:
    """`Tue 20:00`: the week says which one."""
    return on_a_clock(moment, _("EEE HH:mm"), times.viewer_zone(), get_locale() or "en")


class Moments:
    """`Tue 20:00` by the hundred: each moment is put into words once, and each day."""

    def __init__(self) -> None:
        self._zone = times.viewer_zone()
        self._days: dict[date, str] = {}
        self._known: dict[datetime, tuple[date, str, str]] = {}

    def span(self, start: datetime, end: datetime) -> tuple[str, str]:
        """Both; the second with its day only where that is another one."""
        first, text, _time = self._read(start)
        last, with_day, alone = self._read(end)
        return text, alone if first == last else with_day

    def text(self, moment: datetime) -> str:
        """One."""
        return self._read(moment)[1]

    def _read(self, moment: datetime) -> tuple[date, str, str]:
        """Its day, and what it reads with that and without."""
        if moment not in self._known:
            local = moment.astimezone(self._zone)
            day, time = local.date(), f"{local.hour:02}:{local.minute:02}"  # strftime takes four times as long
            if day not in self._days:
                self._days[day] = short(local.replace(hour=12, minute=0)).replace("12:00", "{}")
            self._known[moment] = day, self._days[day].format(time), time
        return self._known[moment]
