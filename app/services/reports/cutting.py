"""How bookings and what GPUs did are cut into pieces, as SQL: a booking's part of one GPU on one of the lab's days.

What was measured counts up to the time that the piece was attached within its window: samples taken while a GPU was
being given or taken away, or on a host whose clock is wrong, are no more of it. So no part of a piece is larger than
the whole, and sums of pieces agree however grouped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text

from app.extensions import db
from app.services.reports.spans import Source, Span, Table
from app.services.rules import fees

BEFORE = -1  # the bucket of the time before
GAP = -2  # of what lies between the two
_FROM = {
    Table.DAYS: """
      SELECT day - CAST(:start{n} AS date) + {day} AS day, gpu_id, consumer_id,
             sampled_ms, busy_ms, energy_j, memory_mib
      FROM usage_days
      WHERE day >= CAST(:start{n} AS date) + greatest(0, (SELECT first FROM oldest) - {day}) AND day < :end{n}""",
    Table.HOURS: """
      SELECT {day} AS day, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib
      FROM usage_hours WHERE hour >= :start{n} AND hour < :end{n}""",
    # By each GPU's own part of the primary key.
    Table.MINUTES: """
      SELECT {day} AS day, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib
      FROM gpus JOIN usage_minutes ON gpu_id = gpus.id WHERE minute >= :start{n} AND minute < :end{n}""",
}
# Of a set of allocations; `{which}`: as many SELECTs of them, with the days of theirs that are meant.
# `tstzrange_subdiff` gives the seconds between two moments in a tenth of the time of date_part('epoch', …). Most
# allocations lie within a day or reach into the next; a series is made only for those that do not.
_CUT = """
untaken AS (
  SELECT id FROM bookings AS b
  WHERE rest_of_id IS NOT NULL AND extended_at IS NULL
    AND NOT EXISTS (SELECT FROM allocations WHERE booking_id = b.id AND attached_at IS NOT NULL)
),
mine AS (
  SELECT *, width_bucket(s, edge) AS first, width_bucket(t - interval '1 microsecond', edge) AS last
  FROM ({which}) AS al
),
oldest AS (SELECT coalesce(min(first), cardinality(CAST(:buckets AS int[])) + 1) AS first FROM mine WHERE days IS NULL),
cut AS (
  SELECT booking_id, gpu_id, first AS day, s, least(t, edge[first + 1]) AS t, has, had, given FROM mine
  WHERE days IS NULL OR first = ANY(days)
  UNION ALL
  SELECT booking_id, gpu_id, day, edge[day], least(t, edge[day + 1]), greatest(has, edge[day]), had, given
  FROM (SELECT *, generate_series(first + 1, last) AS day FROM mine WHERE last > first) AS further
  WHERE days IS NULL OR day = ANY(days)
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
  FROM ({sources}) AS u JOIN consumers AS c ON c.id = u.consumer_id
  WHERE c.booking_id IN (SELECT booking_id FROM mine)
),
whole AS (
  SELECT booking_id, gpu_id, day, sum(reserved) AS reserved, sum(attached) AS attached, sum(late) AS late,
         coalesce(sum(sampled_ms), 0) / 1000.0::float8 AS sampled,
         coalesce(sum(busy_ms), 0) / 1000.0::float8 AS busy, sum(energy_j) AS energy, max(memory_mib) AS memory
  FROM parts GROUP BY booking_id, gpu_id, day
  HAVING count(reserved) > 0
),
pieces AS (
  SELECT w.day, w.gpu_id, w.booking_id, b.user_id, b.account_id, b.host_id, reserved, attached,
         coalesce(late, 0) AS late, least(sampled, attached) AS sampled, least(busy, sampled, attached) AS busy,
         CAST(coalesce(energy, 0) AS float8) AS energy, coalesce(memory, 0) AS memory_mib
  FROM whole AS w JOIN bookings AS b ON b.id = w.booking_id
)"""
_ALLOCATIONS = """
    SELECT al.booking_id, al.gpu_id, CAST(:edges AS timestamptz[]) AS edge, CAST({days} AS int[]) AS days,
           greatest(al.starts_at, :start) AS s, least(al.ends_at, :until) AS t,
           greatest(coalesce(al.attached_at, 'infinity'), al.starts_at, :start) AS has,
           least(al.detached_at, al.ends_at, :until) AS had,
           CASE WHEN al.attached_at IS NULL AND (
                     al.trouble <> ALL (:theirs) OR al.booking_id IN (SELECT id FROM untaken))
                THEN al.ends_at
                WHEN least(al.attached_at, al.ready_at, al.ends_at) - al.starts_at > :prompt
                THEN date_trunc('second', least(al.attached_at, al.ready_at, al.ends_at)) END AS given
    FROM allocations AS al JOIN bookings AS b ON b.id = al.booking_id
    WHERE al.released_at IS NULL AND {condition}"""
# What one had lost of its window before it was pointed at the GPU that it has now, on the GPU that was booked.
_LOST = """
    SELECT al.booking_id, al.gpu_id, CAST(:edges AS timestamptz[]), CAST({days} AS int[]),
           greatest(al.starts_at, :start), least(al.ends_at, :until), CAST('infinity' AS timestamptz),
           least(al.ends_at, :until), al.ends_at
    FROM (SELECT booking_id, coalesce(instead_of_id, gpu_id) AS gpu_id, booked_from AS starts_at, starts_at AS ends_at,
                 released_at, counted FROM allocations WHERE booked_from IS NOT NULL) AS al
    JOIN bookings AS b ON b.id = al.booking_id
    WHERE al.released_at IS NULL AND {condition}"""
# A year's pieces are hashed, not sorted on disk. Each span has a plan of its own: one for any span would expect few
# rows. Nothing is compiled: that takes longer than the query.
_ROOM = text("""SELECT set_config('work_mem', '32MB', true), set_config('plan_cache_mode', 'force_custom_plan', true),
                       set_config('jit', 'off', true)""")


@dataclass(frozen=True)
class Days:
    """The days of spans, earlier ones first, numbered through from 1; time between two has a number, too.

    `sources`: where what GPUs did on them is. `buckets`: of each of them, `edges`: where each begins and the last one
    ends."""

    spans: tuple[Span, ...]
    edges: tuple[datetime, ...]
    buckets: tuple[int, ...]
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, spans: Sequence[Span], buckets: Sequence[Sequence[int]]) -> Days:
        """Each of these has its days' buckets."""
        edges: list[datetime] = []
        found: list[int] = []
        sources: list[Source] = []
        for span, of_span in zip(spans, buckets, strict=True):
            if edges and edges[-1] == span.start:
                edges.pop()
            elif edges:
                found.append(GAP)
            sources += [replace(source, day=source.day + len(found) + 1) for source in span.sources()]
            edges += span.edges
            found += of_span
        return cls(tuple(spans), tuple(edges), tuple(found), tuple(sources))

    @property
    def whole(self) -> list[tuple[int, Source]]:
        """The sources that are days, with their numbers among all."""
        return [(number, one) for number, one in enumerate(self.sources) if one.table == Table.DAYS]

    @property
    def cut(self) -> list[int]:
        """The days of which a span has only a part."""
        return sorted({one.day for one in self.sources if one.table != Table.DAYS})

    @property
    def when(self) -> str:
        """All of their time as SQL."""
        return _ranges("from", "to", len(self.spans))

    @property
    def when_cut(self) -> str:
        """The same of those that are cut."""
        return _ranges("since", "till", len(self.cut))

    @property
    def values(self) -> dict[str, Any]:
        """All that the SQL needs to know of them."""
        spans = self.spans
        values = {"start": spans[0].start, "until": spans[-1].until, "edges": list(self.edges)}
        values |= {"cut": self.cut, "buckets": list(self.buckets)}
        values |= {"theirs": ["", *sorted(fees.OWN_TROUBLE)], "prompt": fees.PROMPT}
        for number, one in enumerate(spans):
            values |= {f"from{number}": one.start, f"to{number}": one.until}
        for number, day in enumerate(self.cut):
            values |= {f"since{number}": self.edges[day - 1], f"till{number}": self.edges[day]}
        for number, source in enumerate(self.sources):
            values |= {f"start{number}": source.start, f"end{number}": source.end}
        return values


def pieces(days: Days, which: Sequence[str]) -> str:
    """As SQL, the CTEs of which the last are `pieces` of these allocations: see `allocations`."""
    selects = (_FROM[one.table].format(n=number, day=one.day) for number, one in enumerate(days.sources))
    return _CUT.format(which=" UNION ALL ".join(which), sources=" UNION ALL ".join(selects))


def allocations(condition: str, *, only_cut: bool = False) -> str:
    """As SQL, those for which this holds of `allocations AS al` and `bookings AS b`; `only_cut`: no whole days."""
    days = ":cut" if only_cut else "NULL"
    return " UNION ALL ".join(one.format(condition=condition, days=days) for one in (_ALLOCATIONS, _LOST))


def make_room() -> None:
    """Of the transaction, for such a query."""
    db.session.execute(_ROOM)


def _ranges(start: str, end: str, number: int) -> str:
    return f"tstzmultirange({', '.join(f'tstzrange(:{start}{one}, :{end}{one})' for one in range(number))})"
