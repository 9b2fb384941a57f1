"""From bookings and what GPUs did to numbers: the one query behind every report.

It cuts each GPU of each booking into the lab's days: a piece. What was measured counts up to the time that the piece
was attached within its window: samples taken while a GPU was being given or taken away, or on a host whose clock is
wrong, are no more of it. So no part of a piece is larger than the whole, and sums of pieces agree however grouped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text

from app.extensions import db
from app.services.reports.numbers import Numbers
from app.services.reports.spans import Source, Span, Table
from app.services.rules import fees


class Key(StrEnum):
    """What numbers may be grouped by. All but the last: ids, or a text."""

    PERSON = "person"
    TEAM = "team"
    HOST = "host"
    GPU = "gpu"
    MODEL = "model"
    BOOKING = "booking"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Scope:
    """Whose bookings: everybody's, one person's, one account's, or one booking. `reader_id`: of somebody who sees of
    others' machines no names, nor what ran in them."""

    user_id: int | None = None
    account_id: int | None = None
    booking_id: int | None = None
    reader_id: int | None = None

    @property
    def condition(self) -> str:
        """As SQL, of `bookings AS b`."""
        names = {"user_id": "b.user_id", "account_id": "b.account_id", "booking_id": "b.id"}
        return "".join(f" AND {column} = :{name}" for name, column in names.items() if getattr(self, name) is not None)

    @property
    def values(self) -> dict[str, int]:
        """The condition's values."""
        found = {"user_id": self.user_id, "account_id": self.account_id, "booking_id": self.booking_id}
        return {name: value for name, value in found.items() if value is not None}


_KEYS = {
    Key.PERSON: "b.user_id",
    Key.TEAM: "CASE WHEN a.name LIKE 'team:%' THEN b.account_id ELSE 0 END",
    Key.HOST: "b.host_id",
    Key.GPU: "p.gpu_id",
    Key.MODEL: "g.model",
    Key.BOOKING: "p.booking_id",
    Key.NOTHING: "0",
}
# What a key is read from, and no more: a year's bookings take as long to be joined as its days.
_BOOKINGS = "JOIN bookings AS b ON b.id = p.booking_id"
_JOINS = {
    Key.PERSON: _BOOKINGS,
    Key.TEAM: f"{_BOOKINGS} JOIN accounts AS a ON a.id = b.account_id",
    Key.HOST: _BOOKINGS,
    Key.MODEL: "JOIN gpus AS g ON g.id = p.gpu_id",
}
_FROM = {
    Table.DAYS: """
      SELECT day - CAST(:start{n} AS date) + {day} AS day, gpu_id, consumer_id,
             sampled_ms, busy_ms, energy_j, memory_mib
      FROM usage_days WHERE day >= :start{n} AND day < :end{n}""",
    Table.HOURS: """
      SELECT {day} AS day, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib
      FROM usage_hours WHERE hour >= :start{n} AND hour < :end{n}""",
    # By each GPU's own part of the primary key.
    Table.MINUTES: """
      SELECT {day} AS day, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib
      FROM gpus JOIN usage_minutes ON gpu_id = gpus.id WHERE minute >= :start{n} AND minute < :end{n}""",
}
# A year's pieces are hashed, not sorted on disk. Each span has a plan of its own: one for any span would expect few
# rows. Nothing is compiled: that takes longer than the query.
_ROOM = text("""SELECT set_config('work_mem', '32MB', true), set_config('plan_cache_mode', 'force_custom_plan', true),
                       set_config('jit', 'off', true)""")
# `tstzrange_subdiff` gives the seconds between two moments in a tenth of the time of date_part('epoch', …). Most
# allocations lie within a day or reach into the next; a series is made only for those that do not.
_QUERY = """
SELECT * FROM (
WITH untaken AS (
  SELECT id FROM bookings AS b
  WHERE rest_of_id IS NOT NULL AND extended_at IS NULL
    AND NOT EXISTS (SELECT FROM allocations WHERE booking_id = b.id AND attached_at IS NOT NULL)
),
mine AS NOT MATERIALIZED (
  SELECT *, width_bucket(s, edge) AS first, width_bucket(t - interval '1 microsecond', edge) AS last
  FROM (
    SELECT al.booking_id, al.gpu_id, CAST(:edges AS timestamptz[]) AS edge,
           greatest(al.starts_at, :start) AS s, least(al.ends_at, :until) AS t,
           greatest(coalesce(al.attached_at, 'infinity'), al.starts_at, :start) AS has,
           least(al.detached_at, al.ends_at, :until) AS had,
           CASE WHEN al.attached_at IS NULL AND (
                     al.trouble <> ALL (:theirs) OR al.booking_id IN (SELECT id FROM untaken))
                THEN al.ends_at
                WHEN least(al.attached_at, al.ready_at, al.ends_at) - al.starts_at > :prompt
                THEN date_trunc('second', least(al.attached_at, al.ready_at, al.ends_at)) END AS given
    FROM allocations AS al {own}
    WHERE al.released_at IS NULL AND tstzrange(al.starts_at, al.ends_at) && {when}{scope}
  ) AS al
),
cut AS (
  SELECT booking_id, gpu_id, first AS day, s, least(t, edge[first + 1]) AS t, has, had, given FROM mine
  UNION ALL
  SELECT booking_id, gpu_id, day, edge[day], least(t, edge[day + 1]), greatest(has, edge[day]), had, given
  FROM (SELECT *, generate_series(first + 1, last) AS day FROM mine WHERE last > first) AS further
),
parts AS (
  SELECT booking_id, gpu_id, day, tstzrange_subdiff(t, s) AS reserved,
         CASE WHEN has < least(had, t) THEN tstzrange_subdiff(least(had, t), has) ELSE 0 END AS attached,
         CASE WHEN given > s THEN tstzrange_subdiff(least(given, t), s) END AS late,
         CAST(NULL AS int) AS sampled_ms, CAST(NULL AS int) AS busy_ms, CAST(NULL AS int) AS energy_j,
         CAST(NULL AS int) AS memory_mib
  FROM cut
  UNION ALL
  SELECT c.booking_id, u.gpu_id, u.day, NULL, NULL, NULL, sampled_ms, busy_ms, energy_j, memory_mib
  FROM ({sources}) AS u JOIN consumers AS c ON c.id = u.consumer_id{used_by}
  WHERE c.booking_id IS NOT NULL
),
pieces AS (
  SELECT booking_id, gpu_id, day, sum(reserved) AS reserved, sum(attached) AS attached, sum(late) AS late,
         coalesce(sum(sampled_ms), 0) / 1000.0::float8 AS sampled,
         coalesce(sum(busy_ms), 0) / 1000.0::float8 AS busy, sum(energy_j) AS energy, max(memory_mib) AS memory
  FROM parts GROUP BY booking_id, gpu_id, day
  HAVING count(reserved) > 0
)
SELECT {key} AS key, (CAST(:buckets AS int[]))[p.day] AS bucket,
       sum(p.reserved), sum(p.attached), sum(least(p.sampled, p.attached)),
       sum(least(p.busy, p.sampled, p.attached)), sum(p.energy), max(p.memory), sum(p.late)
FROM pieces AS p
{join}
GROUP BY 1, 2
) AS found
"""
BEFORE = -1  # the bucket of the time before
_GAP = -2  # of what lies between the two


def numbers(
    span: Span, key: Key, scope: Scope, buckets: tuple[int, ...] | None = None, before: Span | None = None
) -> dict[tuple[Any, int], Numbers]:
    """The numbers of each group and bucket; `buckets`: the bucket of each of the span's days (default: all in 0).

    `before`: an earlier span, not reaching into this one, of which all is in the bucket BEFORE."""
    spans = [one for one in (before, span) if one is not None and one.days]
    if not spans:
        return {}
    sources, values = parts(*spans)
    own = "JOIN bookings AS b ON b.id = al.booking_id" if scope.condition else ""
    used_by = f" JOIN bookings AS b ON b.id = c.booking_id{scope.condition}" if scope.condition else ""
    when = ", ".join(f"tstzrange(:from{number}, :to{number})" for number in range(len(spans)))
    # All of it is text of this file; what people choose comes as values.
    statement = _QUERY.format(
        own=own,
        scope=scope.condition,
        used_by=used_by,
        sources=sources,
        when=f"tstzmultirange({when})",
        key=_KEYS[key],
        join=_JOINS.get(key, ""),
    )
    for number, one in enumerate(spans):
        values |= {f"from{number}": one.start, f"to{number}": one.until}
    values |= _days(spans, span, buckets or (0,) * len(span.days))
    values |= {"theirs": ["", *sorted(fees.OWN_TROUBLE)], "prompt": fees.PROMPT}
    db.session.execute(_ROOM)
    rows = db.session.execute(text(statement), values | scope.values)
    return {
        (group, bucket): Numbers(reserved, attached, sampled, busy, int(energy or 0), memory or 0, not_given or 0.0)
        for group, bucket, reserved, attached, sampled, busy, energy, memory, not_given in rows
        if bucket != _GAP
    }


def _days(spans: Sequence[Span], span: Span, buckets: tuple[int, ...]) -> dict[str, Any]:
    """Where the days of all of them begin, one after the other, and each one's bucket."""
    edges: list[datetime] = []
    found: list[int] = []
    for one in spans:
        if edges and edges[-1] == one.start:
            edges.pop()
        elif edges:
            found.append(_GAP)
        edges += one.edges
        found += buckets if one is span else (BEFORE,) * len(one.days)
    return {"start": spans[0].start, "until": spans[-1].until, "edges": edges, "buckets": found}


def parts(*spans: Span) -> tuple[str, dict[str, Any]]:
    """What GPUs did in spans as one query's text, and its values. Days are numbered from 1 through all of them, and
    time between two has a number, too."""
    found: list[Source] = []
    ahead, until = 1, None
    for span in spans:
        ahead += until is not None and until != span.start
        found += [replace(source, day=source.day + ahead) for source in span.sources()]
        ahead, until = ahead + len(span.days), span.until
    values: dict[str, Any] = {}
    for number, source in enumerate(found):
        values |= {f"start{number}": source.start, f"end{number}": source.end}
    return " UNION ALL ".join(map(_select, range(len(found)), found)), values


def _select(number: int, source: Source) -> str:
    return _FROM[source.table].format(n=number, day=source.day)
