"""From bookings and what GPUs did to numbers: the one query behind every report.

It cuts each GPU of each booking into the lab's days: a piece. What was measured counts up to the time that the piece
was attached within its window: samples taken while a GPU was being given or taken away, or on a host whose clock is
wrong, are no more of it. So no part of a piece is larger than the whole, and sums of pieces agree however grouped.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_ROOM = text("SET LOCAL work_mem = '32MB'")  # a year's pieces are hashed, not sorted on disk
_QUERY = """
WITH untaken AS (
  SELECT id FROM bookings AS b
  WHERE rest_of_id IS NOT NULL AND extended_at IS NULL
    AND NOT EXISTS (SELECT FROM allocations WHERE booking_id = b.id AND attached_at IS NOT NULL)
),
mine AS (
  SELECT al.booking_id, al.gpu_id,
         greatest(al.starts_at, :start) AS s, least(al.ends_at, :until) AS t,
         greatest(al.attached_at, al.starts_at, :start) AS has,
         least(coalesce(al.detached_at, al.ends_at), al.ends_at, :until) AS had, al.attached_at,
         CASE WHEN al.attached_at IS NULL AND (al.trouble <> ALL (:theirs) OR al.booking_id IN (SELECT id FROM untaken))
              THEN al.ends_at
              WHEN least(al.attached_at, al.ready_at, al.ends_at) - al.starts_at > :prompt
              THEN date_trunc('second', least(al.attached_at, al.ready_at, al.ends_at))
              ELSE al.starts_at END AS given
  FROM allocations AS al {own}
  WHERE al.released_at IS NULL AND tstzrange(al.starts_at, al.ends_at) && tstzrange(:start, :until){scope}
),
held AS (
  SELECT booking_id, gpu_id, day,
         sum(date_part('epoch', least(t, edge[day + 2]) - greatest(s, edge[day + 1]))) AS reserved,
         sum(CASE WHEN attached_at IS NULL THEN 0 ELSE
           greatest(0, date_part('epoch', least(had, edge[day + 2]) - greatest(has, edge[day + 1]))) END) AS attached,
         sum(CASE WHEN given <= s THEN 0 ELSE
           greatest(0, date_part('epoch', least(given, t, edge[day + 2]) - greatest(s, edge[day + 1]))) END) AS late
  FROM mine CROSS JOIN (SELECT CAST(:edges AS timestamptz[]) AS edge) AS e
  CROSS JOIN LATERAL generate_series(
    width_bucket(s, edge) - 1, width_bucket(t - interval '1 microsecond', edge) - 1
  ) AS day
  GROUP BY booking_id, gpu_id, day
),
used AS (
  SELECT c.booking_id, u.gpu_id, u.day, sum(sampled_ms) / 1000.0::float8 AS sampled,
         sum(busy_ms) / 1000.0::float8 AS busy, sum(energy_j) AS energy, max(memory_mib) AS memory
  FROM ({sources}) AS u JOIN consumers AS c ON c.id = u.consumer_id{used_by}
  WHERE c.booking_id IS NOT NULL
  GROUP BY c.booking_id, u.gpu_id, u.day
)
SELECT {key} AS key, (CAST(:buckets AS int[]))[p.day + 1] AS bucket,
       sum(p.reserved), sum(p.attached), sum(CASE WHEN u.day IS NULL THEN 0 ELSE least(u.sampled, p.attached) END),
       sum(CASE WHEN u.day IS NULL THEN 0 ELSE least(u.busy, u.sampled, p.attached) END), sum(u.energy), max(u.memory),
       sum(p.late)
FROM held AS p
LEFT JOIN used AS u ON u.booking_id = p.booking_id AND u.gpu_id = p.gpu_id AND u.day = p.day
{join}
GROUP BY 1, 2
"""


def numbers(
    span: Span, key: Key, scope: Scope, buckets: tuple[int, ...] | None = None
) -> dict[tuple[Any, int], Numbers]:
    """The numbers of each group and bucket; `buckets`: the bucket of each of the span's days (default: all in 0)."""
    if not span.days:
        return {}
    sources, values = parts(span)
    own = "JOIN bookings AS b ON b.id = al.booking_id" if scope.condition else ""
    used_by = f" JOIN bookings AS b ON b.id = c.booking_id{scope.condition}" if scope.condition else ""
    # All of it is text of this file; what people choose comes as values.
    statement = _QUERY.format(
        own=own, scope=scope.condition, used_by=used_by, sources=sources, key=_KEYS[key], join=_JOINS.get(key, "")
    )
    values |= {"start": span.start, "until": span.until, "edges": list(span.edges)}
    values |= {"theirs": ["", *sorted(fees.OWN_TROUBLE)], "prompt": fees.PROMPT}
    values |= {"buckets": list(buckets or (0,) * len(span.days))}
    db.session.execute(_ROOM)
    rows = db.session.execute(text(statement), values | scope.values)
    return {
        (group, bucket): Numbers(reserved, attached, sampled, busy, int(energy or 0), memory or 0, not_given)
        for group, bucket, reserved, attached, sampled, busy, energy, memory, not_given in rows
    }


def parts(span: Span) -> tuple[str, dict[str, Any]]:
    """What GPUs did in the span as one query's text, and its values."""
    found = list(span.sources())
    values: dict[str, Any] = {}
    for number, source in enumerate(found):
        values |= {f"start{number}": source.start, f"end{number}": source.end}
    return " UNION ALL ".join(map(_select, range(len(found)), found)), values


def _select(number: int, source: Source) -> str:
    return _FROM[source.table].format(n=number, day=source.day)
