"""What the calendar's bars, cells and free places say, and where they lead."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import Any

from flask import url_for
from flask_babel import format_date
from markupsafe import Markup, escape

from app import clock
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext, pgettext
from app.services.calendar import GpuRow, Shown
from app.services.months import Booked
from app.services.periods import Kind, Period
from app.services.timeline_parts import Bar, Cell, Gap, Waiting
from app.web.calendar.blueprint import address, code, compact
from app.web.calendar.moments import Moments

LABEL_FROM = 10  # units: narrower bars carry no text, only their name
NOTE_LENGTH = 60  # of what a bar's name says of what it is for; all of it is in the list
STATES = {  # of bars: how they are drawn, and the word in their names
    "ended": ("off", ""),  # what lies before now has ended: not worth seven bytes a bar
    "in_use": ("in-use", _l("in use")),
    "attaching": ("waiting", _l("not attached yet")),
    "booked": ("", _l("booked")),  # what a bar is if nothing else
}


_IN_LINE = Markup('<li class="{}"><a href="{}" aria-label="{}">{}</a>')


def of_a_day(day: Booked) -> str:
    """What a day of a month has beside its number: that some of it is the viewer's, or kept for maintenance."""
    text = _("%(hours)s, some of them yours", hours=day.hours) if day.mine else str(day.hours)
    return _("%(text)s, maintenance", text=text) if day.kept else text


class Lane:
    """What writes a GPU's bookings, and the free places among them, for one page: its words are looked up once. Written
    here and not in the template, and short: there are up to 1,500. HTML closes a `<li>` at the next one; which GPU it
    is the list around them says; who may not open a booking is led to the list."""

    def __init__(self, moments: Moments, form: str, *, with_gaps: bool) -> None:
        self._moments = moments
        self._gaps = Gaps(moments, form) if with_gaps else None
        self._escaped = Escaped()
        self._you = self._escaped[_("You")]
        self._noted = self._escaped[_("%(name)s: %(note)s", name="{name}", note="{note}")]
        filled_in = {name: f"{{{name}}}" for name in ("owner", "start", "end")}
        self._plain = _("%(owner)s, %(start)s to %(end)s", **filled_in)
        said = {
            code: _("%(owner)s, %(start)s to %(end)s, %(state)s", state=word, **filled_in) if word else self._plain
            for code, (_role, word) in STATES.items()
        }
        self._states = {code: self._escaped[text] for code, text in said.items()}

    def __call__(self, row: GpuRow) -> Markup:
        """One GPU's, in order of time: that is how the Tab key goes."""
        parts = [(bar.starts_at, self._bar(bar)) for bar in row.bars]
        if self._gaps:
            parts += [(gap.starts_at, self._gaps.one(gap, row.gpu.id)) for gap in row.gaps]
            parts.sort(key=itemgetter(0))
        return Markup("".join(text for _moment, text in parts))  # noqa: S704 - what people wrote is escaped below

    def _bar(self, bar: Bar) -> str:
        if bar.state == "maintenance":
            name = escape(self.maintenance(bar))
            return f'<li class="s{bar.start} w{bar.width} kept"><p title="{name}">{name}</p>'
        owner = self._you if bar.mine else self._escaped[bar.owner]
        text = owner if bar.width >= LABEL_FROM else ""
        link = f'<a href=/b/{code(bar.booking_id)} aria-label="{self._name(bar, owner)}"{bar_hooks(bar)}>{text}</a>'
        return f'<li class="{bar_class(bar)}">{link}'

    def waiting(self, wait: Waiting, bar: Bar) -> Markup:
        """What the viewer waits for; it leads to their places on the waiting list."""
        start, end = self._moments.span(wait.starts_at, wait.ends_at)
        name = ngettext(
            "You wait for %(num)s GPU, %(start)s to %(end)s",
            "You wait for %(num)s GPUs, %(start)s to %(end)s",
            wait.count,
            start=start,
            end=end,
        )
        where = f"s{bar.start} w{bar.width} in-line"
        return _IN_LINE.format(where, url_for("waits.index"), name, _("Waiting") if bar.width >= LABEL_FROM else "")

    def _name(self, bar: Bar, owner: str) -> str:
        """`Li Wei, Tue 20:00 to Wed 08:00, in use`: what the bar shows, for those who hear it or point at it; and what
        for, where they may read that. Escaped, as the owner is."""
        start, end = self._moments.span(bar.starts_at, bar.ends_at)
        name = self._states[bar.state].format(owner=owner, start=self._escaped[start], end=self._escaped[end])
        return self._noted.format(name=name, note=escape(bar.note[:NOTE_LENGTH])) if bar.note else name

    def maintenance(self, bar: Bar) -> str:
        """`Maintenance: new fans, Tue 20:00 to Wed 08:00`."""
        start, end = self._moments.span(bar.starts_at, bar.ends_at)
        what = _("Maintenance: %(reason)s", reason=bar.note[:NOTE_LENGTH]) if bar.note else _("Maintenance")
        return self._plain.format(owner=what, start=start, end=end)


class Escaped(dict[str, str]):
    """What has been written on a page, for HTML: each once."""

    def __missing__(self, text: str) -> str:
        found = self[text] = str(escape(text))
        return found


def bar_class(bar: Bar) -> str:
    """Where it lies, and what it is."""
    role = STATES[bar.state][0]
    found = f"s{bar.start} w{bar.width} {role}" if role else f"s{bar.start} w{bar.width}"
    if bar.mine:
        found += " mine"
    if bar.before:
        found += " before"
    return f"{found} after" if bar.after else found


def bar_hooks(bar: Bar) -> str:
    """What lets one move an edge of one's own booking: where it begins and ends, in minutes since 1970."""
    if not bar.mine or bar.offered or bar.state == "ended":
        return ""
    return f' data-start="{_minutes(bar.starts_at)}" data-end="{_minutes(bar.ends_at)}"'


def edges(shown: Shown) -> str:
    """Where the first cell begins, in minutes since 1970, and how many minutes each one has: far fewer bytes, packed,
    than as many moments."""
    minutes = [_minutes(moment) for moment in shown.period.edges]
    return " ".join(map(str, [minutes[0], *(right - left for left, right in pairwise(minutes))]))


def _minutes(moment: datetime) -> int:
    return int(moment.timestamp()) // 60


def cell_links(shown: Shown, model: str, form: str) -> dict[str, Markup]:
    """By host, its row's cells: the number of free GPUs, leading to the form, whose address is `form`. Written here and
    not in the template: there are hundreds of them, and this takes a fifth of the time. HTML closes a `<td>` at the
    next one."""
    now = clock.now()
    first = shown.hosts[0].cells if shown.hosts else ()
    starts = ["" if cell.starts_at <= now else f"&start={compact(cell.starts_at)}" for cell in first]
    rows, marks = {}, Marks()
    for row in shown.hosts:
        base = escape(address(form, host=row.host.name, model=model))
        kinds = [("", "") if row.open else marks.of(cell) for cell in row.cells]
        parts = zip(row.cells, starts, kinds, strict=True)
        cells = (_cell(cell.free, base, start, kind) for cell, start, kind in parts)
        rows[row.host.name] = Markup("".join(cells))  # noqa: S704 - numbers, moments, and an escaped address
    return rows


def _cell(free: int | None, base: Markup, start: str, marks: tuple[str, str]) -> str:
    kind, name = marks
    if not free:
        return f"<td{kind}{name}>" if free is None else f"<td{kind}{name}>0"
    return f'<td{kind}><a href="{base}{start}"{name}>{free}</a>'


class Marks:
    """What a closed host's cell says beside its number: what is the viewer's there, maintenance, and what they wait
    for. The open one's rows say it. A cell without a link has its name itself: one element less for each of them."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[str, str]] = {}

    def of(self, cell: Cell) -> tuple[str, str]:
        """Its class and its name, as attributes; empty where there is nothing to say."""
        what = cell[2:]
        if what not in self._known:
            self._known[what] = self._attributes(cell)
        return self._known[what]

    @staticmethod
    def _attributes(cell: Cell) -> tuple[str, str]:
        found, text = [], _("over") if cell.free is None else _("%(count)s free", count=cell.free)
        if cell.mine:
            found, text = ["mine"], _("%(text)s, yours", text=text)
        if cell.kept:
            found, text = [*found, "kept"], _("%(text)s, maintenance", text=text)
        if cell.waited:
            found, text = [*found, "awaited"], _("%(text)s, you wait", text=text)
        kind = f' class="{" ".join(found)}"' if len(found) > 1 else f" class={found[0]}" if found else ""
        return kind, f' aria-label="{escape(text)}"' if found else ""


class Gaps:
    """What writes a GPU's free places, for one page: each leads to the form, filled in."""

    def __init__(self, moments: Moments, form: str) -> None:
        self._moments = moments
        self._now = clock.now()
        self._form = form
        self._text = str(escape(_("Book from %(start)s", start="{start}")))

    def one(self, gap: Gap, gpu_id: int) -> str:
        """One of a GPU's. When it ends is not said: the form ends a booking before the next one begins."""
        name = self._text.format(start=escape(self._moments.text(gap.starts_at)))
        address = f"{self._form}?gpu={gpu_id}"
        if gap.starts_at > self._now:
            address += f"&start={compact(gap.starts_at)}"
        return f'<li class="s{gap.start} w{gap.width} gap"><a href="{address}" aria-label="{name}"></a>'


def period_text(period: Period) -> str:
    """`2–8 Nov 2026 (week 45)`, `Wed 4 Nov 2026`, `November 2026`."""
    first, last = period.days[0], period.days[-1]
    if period.kind == Kind.DAY:
        return format_date(first, _("EEE d MMM y"))
    if period.kind == Kind.MONTH:
        return format_date(first, _("MMMM y"))
    same = first.month == last.month
    start = format_date(first, pgettext("start of a week", "d") if same else pgettext("start of a week", "d MMM"))
    end = format_date(last, pgettext("end of a week", "d MMM y"))  # apart: pybabel overlooks a call within a call
    return _("%(first)s–%(last)s (week %(number)s)", first=start, last=end, number=first.isocalendar().week)


def hours(period: Period) -> list[str]:
    """The cells' hours by the wall clock: `04`, and `04:30` where a clock change makes it so."""
    local = [moment.astimezone(period.zone) for moment in period.edges[:-1]]
    return [f"{one:%H:%M}" if one.minute else f"{one.hour:02}" for one in local]
