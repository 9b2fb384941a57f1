"""A whole report: its sentence, its chart, its table, its week, and the period before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text

from app.extensions import db
from app.services import policy
from app.services.reports import heat, incidents, labels, periods, waiting
from app.services.reports.numbers import Numbers, total
from app.services.reports.periods import Choice, Range, Step
from app.services.reports.pieces import BEFORE, Key, Scope, totals
from app.services.reports.spans import Span, Table
from app.services.reports.waiting import Waits

RANKED = 10 * 3600  # GPU-seconds that one must have booked to be ranked by a share: of little, any share says nothing
LITTLE = 180  # GPU-seconds, by themselves said of nothing

_FROM = {
    Table.DAYS: "usage_days WHERE day >= :start AND day < :end",
    Table.HOURS: "usage_hours WHERE hour >= :start AND hour < :end",
    # By each GPU's own part of the primary key.
    Table.MINUTES: "gpus JOIN usage_minutes ON gpu_id = gpus.id WHERE minute >= :start AND minute < :end",
}
_UNBOOKED = {
    table: text(f"""
SELECT sum(busy_ms) / 1000.0 FROM (SELECT busy_ms, consumer_id FROM {rows}) AS u
JOIN consumers AS c ON c.id = consumer_id WHERE c.booking_id IS NULL""")  # noqa: S608 - text of this file
    for table, rows in _FROM.items()
}


class Group(StrEnum):
    """What a report has a row for."""

    PERSON = "person"
    TEAM = "team"
    HOST = "host"
    GPU = "gpu"
    MODEL = "model"
    BOOKING = "booking"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def step(self) -> Step | None:
        """Of a group by time."""
        return Step(self.value) if self in {Group.DAY, Group.WEEK, Group.MONTH} else None


@dataclass(frozen=True)
class Row:
    """One row of the table. `name` is "" for what belongs to no team; `day`: of a row of time, its first day."""

    key: Any
    name: str
    numbers: Numbers
    day: date | None = None

    @property
    def wasted_share(self) -> float:
        """For ranking: 0 where too little was booked to say."""
        return self.numbers.wasted / self.numbers.reserved if self.numbers.reserved >= RANKED else 0.0


@dataclass(frozen=True)
class WaitRow:
    """One row of who waited. `name` is "" for what named no team, host or model."""

    key: Any
    name: str
    waits: Waits


@dataclass(frozen=True)
class Waiting:
    """Who waited in a span: all together, and a row for each `by`, those who waited longest first."""

    by: Group
    total: Waits
    rows: tuple[WaitRow, ...]


@dataclass(frozen=True)
class Report:
    """What there is to show. `capacity`: seconds of all GPUs in the span, or None where only a part of them is looked
    at; `bars`: by each step's first day; `unbooked`: GPU-seconds that were busy without a booking."""

    span: Span
    shown: Range
    total: Numbers
    capacity: float | None
    rows: tuple[Row, ...]
    step: Step
    bars: Mapping[date, Numbers]
    week: list[list[heat.Cell]]
    before: Numbers
    before_range: Range
    before_span: Span
    since: date | None
    unbooked: float
    incidents: incidents.Incidents
    waiting: Waiting
    waits_before: Waits


def make(choice: Choice, shown: Range, group: Group, scope: Scope, span: Span, now: datetime) -> Report:
    """The report of the days `shown`, that is of `span`."""
    step = group.step or shown.step
    earlier, their_span = periods.before(span, choice, shown, now, policy.kept_from())
    found, bars, before = _by_group(span, group, scope, step, their_span)
    everything = scope == Scope()
    return Report(
        span=span,
        shown=shown,
        total=total(bars.values()),
        capacity=_capacity(span) if everything else None,
        rows=tuple(sorted(found, key=_order(group))),
        step=step,
        bars=bars,
        week=heat.week(span, scope),
        before=before,
        before_range=earlier,
        before_span=their_span,
        since=_since(),
        unbooked=unbooked(span) if everything else 0.0,
        incidents=incidents.of(span, scope),
        waiting=waits(span, group, scope),
        waits_before=waiting.of(their_span, Key.NOTHING, scope)[0],
    )


def rows(span: Span, group: Group, scope: Scope, step: Step = Step.DAY) -> list[Row]:
    """The table alone."""
    return sorted(_by_group(span, group, scope, group.step or step)[0], key=_order(group))


def waited_by(group: Group) -> Group:
    """What those who waited are grouped by in a report by this: by people where a wish names nothing of the kind."""
    return group if group in {Group.PERSON, Group.TEAM, Group.HOST, Group.MODEL} else Group.PERSON


def waits(span: Span, group: Group, scope: Scope) -> Waiting:
    """Who waited, alone."""
    by = waited_by(group)
    whole, found = waiting.of(span, Key(by.value), scope)
    names = labels.of(Key(by.value), [key for key in found if key])
    made = (WaitRow(key, names.get(key, ""), one) for key, one in found.items())
    return Waiting(by, whole, tuple(sorted(made, key=lambda row: (-row.waits.longest, row.name))))


def unbooked(span: Span) -> float:
    """GPU-seconds of everybody's that were busy without a booking."""
    found = 0.0
    for one in span.sources():
        values = {"start": one.start, "end": one.end}
        found += float(db.session.scalar(_UNBOOKED[one.table], values) or 0.0)
    return found


def _by_group(
    span: Span, group: Group, scope: Scope, step: Step, earlier: Span | None = None
) -> tuple[list[Row], dict[date, Numbers], Numbers]:
    """The table's rows, the chart's bars, and all of the time before, of one query: they cannot differ."""
    firsts = sorted({step.first(day) for day in span.days})
    places = {first: number for number, first in enumerate(firsts)}
    key = Key.NOTHING if group.step else Key(group.value)
    of_one, of_place = totals(span, key, scope, tuple(places[step.first(day)] for day in span.days), earlier)
    bars = {first: of_place.get(place, Numbers()) for first, place in places.items()}
    before = of_place.get(BEFORE, Numbers())
    if group.step:
        return (
            [Row(first.isoformat(), first.isoformat(), amount, first) for first, amount in bars.items()],
            bars,
            before,
        )
    names = labels.of(key, list(of_one))
    return [Row(one, names.get(one, str(one)), amount) for one, amount in of_one.items()], bars, before


def _order(group: Group) -> Any:
    if group.step:
        return lambda row: row.key
    return lambda row: (-row.numbers.wasted, row.name)


def _capacity(span: Span) -> float:
    """What all GPUs could have given, each from when it came, or its host with it, until it was gone."""
    query = text("""
        SELECT coalesce(sum(greatest(0, date_part('epoch',
          least(:until, coalesce(gone_at, :until)) - greatest(:start, coalesce(added_at, h.created_at))
        ))), 0)
        FROM gpus JOIN hosts AS h ON h.id = host_id""")
    return float(db.session.scalar(query, {"start": span.start, "until": span.until}) or 0.0)


def _since() -> date | None:
    """The first day of which anything was measured."""
    first: date | None = db.session.scalar(text("SELECT min(day) FROM usage_days"))
    return first
