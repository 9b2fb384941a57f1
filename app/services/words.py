"""Phrases that several sentences share: moments, GPUs, people. In the reader's language and zone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_datetime
from flask_babel import get_babel, get_locale, get_timezone

from app.extensions import lab_zone
from app.language import gettext as _
from app.models import Gpu


def when(moment: datetime) -> str:
    """A moment as short as can be without doubt: `Tue 4 Nov 20:00`. Commands and agents have no reader, whose zone it
    would be; that of the machine that they run on is nobody's."""
    lab = lab_zone()
    here = ZoneInfo(str(get_timezone())) if get_babel().timezone_selector else lab
    return on_clocks(moment, _("EEE d MMM HH:mm"), here, lab)


def apart(name: str, which: str) -> str:
    """A name that something else has too, with what nothing else has: `GPU 2 (0000:03:00.0)`."""
    return _("%(name)s (%(which)s)", name=name, which=which)


def on_clocks(moment: datetime, pattern: str, here: ZoneInfo, lab: ZoneInfo) -> str:
    """A moment on the reader's clock and, where the lab's reads otherwise, on the lab's beside it.

    In the hour that comes twice when clocks go back, with the name of its time: `02:30 CEST`."""
    mine, theirs = moment.astimezone(here), moment.astimezone(lab)
    text = _read(mine, pattern, here)
    if mine.utcoffset() == theirs.utcoffset():
        return text
    short = _("HH:mm") if mine.date() == theirs.date() else _("EEE HH:mm")
    return _("%(here)s (lab: %(lab)s)", here=text, lab=_read(theirs, short, lab))


def _read(moment: datetime, pattern: str, zone: ZoneInfo) -> str:
    text = on_a_clock(moment, pattern, zone, get_locale() or "en")
    return f"{text} {moment.tzname()}" if _comes_twice(moment) else text


@lru_cache(maxsize=4096)
def on_a_clock(moment: datetime, pattern: str, zone: ZoneInfo, locale: Locale | str) -> str:
    """A moment by Babel's pattern, which may name no zone. Kept: that never changes, takes long to write, and a page
    that renews itself has the same moments again."""
    return format_datetime(moment, pattern, tzinfo=zone, locale=locale)


def _comes_twice(local: datetime) -> bool:
    """Whether the clock shows this time twice that day."""
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return (first or timedelta()) > (second or timedelta())


def gpu_label(gpu: Gpu) -> str:
    """A GPU's name on its host: `GPU 2`, the N of /dev/nvidiaN."""
    return _("GPU %(number)s", number=gpu.minor)


def gpu_list(gpus: Iterable[Gpu]) -> str:
    """Several GPUs of one host: `GPU 2, GPU 3`."""
    return gpu_numbers(gpu.minor for gpu in gpus)


def gpu_numbers(minors: Iterable[int]) -> str:
    """The same by their numbers, which is all that a notice keeps of them."""
    return _(", ").join(_("GPU %(number)s", number=minor) for minor in sorted(minors))
