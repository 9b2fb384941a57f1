"""Moments, spans and amounts as the pages print them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from flask import Flask
from flask_babel import format_timedelta, get_timezone
from markupsafe import Markup, escape

from app import clock
from app.extensions import lab_zone
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services.windows import hours_text
from app.services.words import on_clocks

SHORT = "EEE d MMM HH:mm"
# Patterns that pages print moments with; each is translated, since the order of day and month is the language's.
PATTERNS = (
    _l("EEE d MMM HH:mm"),
    _l("EEE d MMM HH:mm:ss"),
    _l("EEE HH:mm"),
    _l("EEE HH:mm:ss"),
    _l("d MMM HH:mm"),
    _l("d MMM yyyy"),
    _l("d MMM yyyy HH:mm"),
    _l("d MMM yyyy HH:mm:ss"),
)


def init_app(app: Flask) -> None:
    """The filters `moment`, `moment_text`, `hours`, `signed_hours`, `ago`."""
    app.add_template_filter(moment)
    app.add_template_filter(moment_text)
    app.add_template_filter(hours_text, "hours")
    app.add_template_filter(signed_hours)
    app.add_template_filter(ago)


def moment(when: datetime | None, pattern: str = SHORT) -> str:
    """A `<time>` in the viewer's zone and, where the lab's clock reads otherwise, the lab's time beside it."""
    if when is None:
        return Markup("")
    return _element(when, moment_text(when, pattern))


def moments(pattern: str = SHORT) -> Callable[[datetime], str]:
    """The same for a table's cells: language and zones are looked up once."""
    order, here, lab = _(pattern), viewer_zone(), lab_zone()
    return lambda when: _element(when, on_clocks(when, order, here, lab))


def _element(when: datetime, text: str) -> str:
    machine = when.isoformat(timespec="seconds")
    # Markup.format takes twice as long.
    return Markup(f'<time datetime="{machine}">{escape(text)}</time>')  # noqa: S704 - escaped


def moment_text(when: datetime, pattern: str = SHORT) -> str:
    """The same as plain text, for names and attributes."""
    return on_clocks(when, _(pattern), viewer_zone(), lab_zone())


def ago(when: datetime) -> str:
    """How far away a moment is: `3 hours ago`, `in 2 days`."""
    distance: timedelta = when - clock.now()
    return format_timedelta(distance, add_direction=True, granularity="minute")


def signed_hours(seconds: int) -> str:
    """GPU-seconds as hours with their sign: `+12`, `−6.5` (a real minus)."""
    sign = "+" if seconds > 0 else "\N{MINUS SIGN}" if seconds < 0 else ""
    amount = hours_text(abs(seconds))
    return sign + (amount if amount != "0" else f"{abs(seconds) / 3600:.4f}")  # some seconds are not nothing


def differs_from_lab(when: datetime) -> bool:
    """Whether the viewer's clock and the lab's read differently at that moment."""
    return when.astimezone(viewer_zone()).utcoffset() != when.astimezone(lab_zone()).utcoffset()


def viewer_zone() -> ZoneInfo:
    """The zone that the pages are printed in."""
    found = get_timezone()
    return ZoneInfo(str(found)) if found is not None else lab_zone()
