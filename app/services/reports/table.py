"""A report's tables as rows of cells, for files and programs: the same on the page's files and on the command line."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from app.errors import InvalidInput
from app.language import gettext as _
from app.services.reports import absences, comparison, evictions, heat
from app.services.reports.absences import Absence
from app.services.reports.evictions import Eviction
from app.services.reports.heat import Hour
from app.services.reports.numbers import percent, total
from app.services.reports.pieces import Key, Scope, numbers
from app.services.reports.report import RANKED, Row, WaitRow
from app.services.reports.spans import Span

MOST = 100_000  # rows of what happened in one file: it is made in memory


class Table(StrEnum):
    """The tables that there are."""

    USAGE = "usage"
    WAITS = "waits"
    NO_SHOWS = "no-shows"
    EVICTIONS = "evictions"
    HEAT = "heat"
    COMPARED = "compared"

    @property
    def grouped(self) -> bool:
        """Whether it has rows by a report's group, rather than by moments."""
        return self in {Table.USAGE, Table.WAITS}


AMOUNTS: dict[str, type] = {  # in GPU-hours where nothing else is said
    "reserved_hours": float,
    "attached_hours": float,
    "busy_hours": float,
    "not_given_hours": float,
    "not_attached_hours": float,
    "idle_hours": float,
    "no_data_hours": float,
    "wasted_hours": float,
    "wasted_percent": int,  # none: too little was booked to say
    "energy_kwh": float,
    "peak_memory_mib": int,
}


def amounts(row: Row, digits: int = 4) -> dict[str, Any]:
    """A row's numbers by their names, with so many decimals."""
    one = row.numbers
    parts = (one.reserved, one.attached, one.busy, one.not_given, one.not_attached, one.idle, one.no_data, one.wasted)
    share = percent(one.wasted, one.reserved) if one.reserved >= RANKED else None
    values = [*(round(part / 3600, digits) for part in parts), share, round(one.kwh, digits), one.memory]
    return dict(zip(AMOUNTS, values, strict=True))


WAITS: dict[str, type] = {  # places on the waiting list
    "places": int,
    "booked": int,
    "offered": int,
    "not_taken": int,
    "in_vain": int,
    "left": int,
    "waiting": int,
    "median_wait_hours": float,
    "longest_wait_hours": float,
}


def waited(row: WaitRow, digits: int = 4) -> dict[str, Any]:
    """Of one who waited, the same."""
    *counts, median, longest = astuple(row.waits)
    return dict(zip(WAITS, [*counts, round(median / 3600, digits), round(longest / 3600, digits)], strict=True))


NO_SHOWS: dict[str, type] = {  # times are UTC's; `team`: "" for one's own hours
    "at": str,
    "user": str,
    "name": str,
    "team": str,
    "host": str,
    "gpus": int,
    "booking": int,
    "booked_from": str,
    "booked_to": str,
    "given_back_hours": float,
    "why": str,
}
EVICTIONS: dict[str, type] = {  # none or "": not known, or there is none
    "at": str,
    "step": str,
    "host": str,
    "gpu": str,
    "machine": str,
    "program": str,
    "more": int,
    "booking": int,
    "user": str,
    "name": str,
}
HEAT: dict[str, type] = {  # weekday 1 is Monday
    "weekday": int,
    "hour": int,
    "busy_percent": int,  # none: no samples
    "busy_hours": float,
    "sampled_hours": float,
}
COMPARED: dict[str, type] = {  # times are UTC's, the last one not included; of what is not over, as much as is past
    "what": str,
    "from": str,
    "to": str,
    "hours": float,
    "before_from": str,
    "before_to": str,
    "before_hours": float,
    "changed_percent": int,  # none: there was nothing before
}
COLUMNS: dict[Table, dict[str, type]] = {
    Table.USAGE: AMOUNTS,
    Table.WAITS: WAITS,
    Table.NO_SHOWS: NO_SHOWS,
    Table.EVICTIONS: EVICTIONS,
    Table.HEAT: HEAT,
    Table.COMPARED: COMPARED,
}


def listed(table: Table, span: Span, scope: Scope) -> list[dict[str, Any]]:
    """All rows of a table of what happened, or of the week, as the page has them. Raises InvalidInput where they are
    too many."""
    if table == Table.HEAT:
        return [_hour(one) for one in heat.hours(span, scope)]
    if table == Table.NO_SHOWS:
        found = [_absence(one) for one in absences.newest(span, scope, MOST + 1)]
    else:
        found = [_eviction(one) for one in evictions.newest(span, scope, MOST + 1)]
    if len(found) > MOST:
        raise InvalidInput(
            _("That would be more than %(most)s rows.", most=MOST), _("Ask for fewer days."), field="from"
        )
    return found


def compared(span: Span, before: Span, scope: Scope) -> list[dict[str, Any]]:
    """The rows of Table.COMPARED."""
    found = [total(numbers(one, Key.NOTHING, scope).values()) for one in (span, before)]
    return [
        dict(
            zip(
                COMPARED,
                (one.what, *_part(span, one.now), *_part(before, one.before), one.changed),
                strict=True,
            )
        )
        for one in comparison.of(*found)
    ]


def _part(span: Span, seconds: float) -> tuple[str, str, float]:
    return _moment(span.start), _moment(span.until), round(seconds / 3600, 4)


def _absence(one: Absence) -> dict[str, Any]:
    team = one.account.title if one.account.is_team else ""
    times = _moment(one.booking.starts_at), _moment(one.booking.booked_until)
    who = one.user.username, one.user.display_name, team
    what = one.host, one.gpus, one.booking.id, *times, round(one.given_back / 3600, 4), one.why
    return dict(zip(NO_SHOWS, (_moment(one.at), *who, *what), strict=True))


def _eviction(one: Eviction) -> dict[str, Any]:
    who = (one.user.username, one.user.display_name) if one.user else ("", "")
    what = one.step, one.host, one.gpu, one.machine, one.program, one.more, one.booking
    return dict(zip(EVICTIONS, (_moment(one.at), *what, *who), strict=True))


def _hour(one: Hour) -> dict[str, Any]:
    share = percent(min(one.busy, one.sampled), one.sampled)
    amounts_ = (round(one.busy / 3_600_000, 4), round(one.sampled / 3_600_000, 4))
    return dict(zip(HEAT, (one.weekday + 1, one.hour, share, *amounts_), strict=True))


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
