"""The calendar: a week of all hosts, the open ones by GPU; the same as a list; and day by day on a phone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, request, url_for
from flask_babel import format_date, format_datetime, ngettext, pgettext
from flask_babel import gettext as _
from markupsafe import Markup, escape

from app import clock
from app.errors import InvalidInput
from app.services import calendar
from app.services.calendar import Day, HostRow, Week
from app.services.timeline import CELL_HOURS, CELLS, Bar, Cell, Gap
from app.web import local_times, times
from app.web.render import render
from app.web.sessions import me

bp = Blueprint("calendar", __name__)

LABEL_FROM = 10  # units: narrower bars carry no text, only their name
SUGGESTED = timedelta(hours=4)
YEARS = range(2000, 2200)
CELLS_A_DAY = CELLS // 7


@dataclass(frozen=True)
class View:
    """What the address asks for."""

    day: date
    open_hosts: tuple[str, ...]
    model: str
    mine: bool
    as_list: bool
    chosen_day: bool

    def url(self, **changes: Any) -> str:
        """The address of this view with something changed; an empty value drops it."""
        values: dict[str, Any] = {
            "week": self.day.isoformat() if self.chosen_day else "",
            "open": list(self.open_hosts),
            "model": self.model,
            "mine": "1" if self.mine else "",
            "view": "list" if self.as_list else "",
        }
        values |= changes
        return url_for("calendar.index", **{name: value for name, value in values.items() if value not in ("", [])})

    def toggled(self, host: str) -> str:
        """The address with a host opened, or closed if it is open."""
        others = [name for name in self.open_hosts if name != host]
        return self.url(open=others if host in self.open_hosts else [*others, host])


@bp.get("/calendar")
def index() -> Response:
    """A week; `week` is any day of it."""
    view = _view()
    week = calendar.week(
        me(),
        view.day,
        times.viewer_zone(),
        open_hosts=frozenset(view.open_hosts),
        model=view.model,
        mine_only=view.mine,
    )
    return render(
        "calendar/index.html",
        fragment="calendar/_week.html",
        view=view,
        week=week,
        period=_period(week),
        today=clock.now().astimezone(times.viewer_zone()).date(),
        day=week.days[view.day.weekday()],
        summary=_summary(week),
        hours=[_hour(number) for number in range(CELLS_A_DAY)],
        bar_name=bar_name,
        bar_class=bar_class,
        cells=cell_links(week, view.model),
        a_week=timedelta(days=7),
        gap_url=gap_url,
        gap_name=gap_name,
        on_day=on_day,
        short=short,
        compact=_compact,
        all_open=calendar.all_open(week),
        label_from=LABEL_FROM,
    )


@bp.app_template_filter()
def weekday(moment: datetime) -> str:
    """`Tue 4`."""
    return format_datetime(moment, _("EEE d"))


def bar_name(bar: Bar, host: str, minor: int) -> str:
    """`Li Wei, lab03 GPU 2, Tue 20:00 to Wed 08:00, in use`: what the bar shows, for those who hear it."""
    return _(
        "%(owner)s, %(host)s GPU %(number)s, %(start)s to %(end)s, %(state)s",
        owner=_("You") if bar.mine else bar.owner,
        host=host,
        number=minor,
        start=short(bar.starts_at),
        end=short(bar.ends_at),
        state=_("ended") if bar.past else _("in use") if bar.running else _("booked"),
    )


def bar_class(bar: Bar) -> str:
    """Where it lies, and what it is."""
    kind = "off" if bar.past else "in-use" if bar.running else "booked"
    flags = f"{' mine' if bar.mine else ''}{' before' if bar.before else ''}{' after' if bar.after else ''}"
    return f"s{bar.start} w{bar.width} bar {kind}{flags}"


def cell_links(week: Week, model: str) -> dict[str, Markup]:
    """By host, its row's cells: the number of free GPUs, leading to the form. Written here and not in the template:
    there are hundreds of them, and this takes a fifth of the time."""
    now = clock.now()
    first = week.hosts[0].cells if week.hosts else ()
    starts = ["" if cell.starts_at <= now else f"&amp;start={_compact(cell.starts_at)}" for cell in first]
    rows = {}
    for row in week.hosts:
        wanted: dict[str, Any] = {"host": row.host.name} | ({"model": model} if model else {})
        base = escape(url_for("bookings.new", **wanted))
        cells = (_cell(cell.free, base, start) for cell, start in zip(row.cells, starts, strict=True))
        rows[row.host.name] = Markup("".join(cells))  # noqa: S704 - numbers, moments, and an escaped address
    return rows


def _cell(free: int | None, base: Markup, start: str) -> str:
    if free is None:
        return '<td class="gone"></td>'
    return f'<td><a href="{base}{start}">{free}</a></td>' if free else '<td class="full">0</td>'


def gap_url(gap: Gap, gpu_id: int) -> str:
    """The form for a free place, filled in."""
    start = "" if gap.starts_at <= clock.now() else _compact(gap.starts_at)
    end = min(gap.ends_at, gap.starts_at + SUGGESTED)
    wanted: dict[str, Any] = {"gpu": gpu_id, "start": start, "end": _compact(end) if end == gap.ends_at else ""}
    return url_for("bookings.new", **{name: value for name, value in wanted.items() if value})


def gap_name(gap: Gap, host: str, minor: int) -> str:
    """What a free place leads to."""
    return _("Book %(host)s GPU %(number)s from %(start)s", host=host, number=minor, start=short(gap.starts_at))


def short(moment: datetime) -> str:
    """`Tue 20:00`: the week says which one."""
    return format_datetime(moment, _("EEE HH:mm"))


def on_day(row: HostRow, day: Day, number: int, today: date) -> dict[str, str]:
    """A host in one line for a phone: what is free on the week's day of that number, and the form for it."""
    cells = [cell for cell in row.cells[number * CELLS_A_DAY : (number + 1) * CELLS_A_DAY] if cell.free is not None]
    if not cells:
        return {"text": _("This day is over."), "url": ""}
    if day.date == today:
        text = ngettext(
            "%(free)s of %(num)s GPU free now", "%(free)s of %(num)s GPUs free now", row.gpus, free=row.free_now
        )
        if not row.free_now and row.next_free is not None:
            text = _("%(text)s, next free %(when)s", text=text, when=short(row.next_free))
        start = "" if row.free_now else _compact(row.next_free) if row.next_free else None
    else:
        best = max(cells, key=lambda cell: cell.free or 0)
        text = _(
            "%(free)s of %(total)s GPUs free from %(when)s", free=best.free, total=row.gpus, when=_clock(best.starts_at)
        )
        start = _start(best) if best.free else None
    wanted: dict[str, Any] = {"host": row.host.name} | ({"start": start} if start else {})
    url = url_for("bookings.new", **wanted) if start is not None else ""
    return {"text": text, "url": url}


def _view() -> View:
    args = request.args
    today = clock.now().astimezone(times.viewer_zone()).date()
    try:
        day = local_times.parse_date(args.get("week", ""), "week")
        chosen = True
    except InvalidInput:  # whatever is no day means this week
        day, chosen = today, False
    open_hosts = tuple(dict.fromkeys(_known_length(args.getlist("open")[:64])))
    return View(
        day, open_hosts, args.get("model", "")[:120], args.get("mine") == "1", args.get("view") == "list", chosen
    )


def _known_length(names: Iterable[str]) -> list[str]:
    return [name for name in names if 0 < len(name) <= 63]


def _period(week: Week) -> str:
    """`2–8 Nov 2026 (week 45)`."""
    first, last = week.days[0].date, week.days[-1].date
    same = first.month == last.month
    start = format_date(first, pgettext("start of a week", "d") if same else pgettext("start of a week", "d MMM"))
    end = format_date(last, pgettext("end of a week", "d MMM y"))  # apart: pybabel overlooks a call within a call
    return _("%(first)s–%(last)s (week %(number)s)", first=start, last=end, number=first.isocalendar().week)


def _summary(week: Week) -> dict[str, Any]:
    """What is worth a sentence: nothing booked, or nothing free."""
    if not week.hosts:
        return {"none": True}
    if not week.any_booking and week.now_unit is not None:
        return {"empty": True}
    if week.now_unit is not None and not week.free_now:
        soonest = sorted((row.next_free, row.host.name) for row in week.hosts if row.next_free is not None)
        return {"full": True, "soonest": soonest[0] if soonest else None}
    return {}


def _start(cell: Cell) -> str:
    """A cell's start for a link; empty for now."""
    return "" if cell.starts_at <= clock.now() else _compact(cell.starts_at)


def _compact(moment: datetime) -> str:
    """A moment as a link carries it: `20261104T1200Z`."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M{'%S' if moment.second else ''}Z}"


def _hour(number: int) -> str:
    return f"{number * CELL_HOURS:02d}"


def _clock(moment: datetime) -> str:
    return format_datetime(moment, "HH:mm")
