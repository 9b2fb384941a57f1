"""The narrow form: each host in one line, and what to press."""

from __future__ import annotations

from datetime import date

from flask_babel import format_datetime

from app import clock
from app.language import gettext as _
from app.language import ngettext
from app.services.calendar import HostRow, Shown
from app.services.timeline_parts import Cell
from app.web.calendar.blueprint import address, compact
from app.web.calendar.moments import Moments


def line(said: Moments, row: HostRow, shown: Shown, day: date, today: date, form: str) -> dict[str, str]:
    """A host on one of the days shown: what is free, and the address of the form for it; `form`: of an empty one."""
    a_day = len(row.cells) // len(shown.days)
    first = shown.period.days.index(day) * a_day
    cells = [cell for cell in row.cells[first : first + a_day] if cell.free is not None]
    if not cells:
        return {"text": _("This day is over."), "url": ""}
    if day == today:
        text = ngettext(
            "%(free)s of %(num)s GPU free now", "%(free)s of %(num)s GPUs free now", row.gpus, free=row.free_now
        )
        if not row.free_now and row.next_free is not None:
            text = _("%(text)s, next free %(when)s", text=text, when=said.text(row.next_free))
        start = "" if row.free_now else compact(row.next_free) if row.next_free else None
    else:
        best = max(cells, key=lambda cell: cell.free or 0)
        since = format_datetime(best.starts_at, "HH:mm")
        text = _("%(free)s of %(total)s GPUs free from %(when)s", free=best.free, total=row.gpus, when=since)
        start = _start(best) if best.free else None
    return {"text": text, "url": address(form, host=row.host.name, start=start) if start is not None else ""}


def _start(cell: Cell) -> str:
    """A cell's start for a link; empty for now."""
    return "" if cell.starts_at <= clock.now() else compact(cell.starts_at)
