"""From pieces to numbers: the one query behind every report.

A piece is what a booking had of a GPU on one of the lab's days. Those of bookings long past were counted once (see
`counted`); the others, and days of which a span has only a part, are counted anew (see `cutting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import select, text

from app.extensions import db
from app.models import Policy
from app.services.reports import cutting
from app.services.reports.cutting import BEFORE, GAP, Days
from app.services.reports.numbers import Numbers
from app.services.reports.spans import Span

__all__ = ["BEFORE", "Key", "Scope", "numbers", "totals"]


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
        return self._where({"user_id": "b.user_id", "account_id": "b.account_id", "booking_id": "b.id"})

    @property
    def of_pieces(self) -> str:
        """The same of usage_pieces."""
        return self._where({name: name for name in ("user_id", "account_id", "booking_id")})

    def _where(self, columns: Mapping[str, str]) -> str:
        return "".join(f" AND {columns[name]} = :{name}" for name in self.values)

    @property
    def values(self) -> dict[str, int]:
        """The condition's values."""
        found = {"user_id": self.user_id, "account_id": self.account_id, "booking_id": self.booking_id}
        return {name: value for name, value in found.items() if value is not None}


# What pieces are summed up by, and what that is then called: joined when they are few.
_RAW = {
    Key.PERSON: "user_id",
    Key.TEAM: "account_id",
    Key.HOST: "host_id",
    Key.GPU: "gpu_id",
    Key.MODEL: "gpu_id",
    Key.BOOKING: "booking_id",
    Key.NOTHING: "0",
}
_KEYS = {Key.TEAM: "CASE WHEN a.name LIKE 'team:%' THEN raw ELSE 0 END", Key.MODEL: "g.model"}
_JOINS = {Key.TEAM: "JOIN accounts AS a ON a.id = raw", Key.MODEL: "JOIN gpus AS g ON g.id = raw"}
_QUERY = """
SELECT * FROM (
WITH {pieces},
sums AS (
  SELECT {raw} AS raw, (CAST(:buckets AS int[]))[day] AS bucket, sum(reserved) AS reserved, sum(attached) AS attached,
         sum(sampled) AS sampled, sum(busy) AS busy, sum(energy) AS energy, max(memory_mib) AS memory, sum(late) AS late
  FROM (SELECT * FROM pieces{counted}) AS p GROUP BY 1, 2
)
SELECT {by}, sum(reserved), sum(attached), sum(sampled), sum(busy), sum(energy), max(memory), sum(late)
FROM (SELECT *, {key} AS key, bucket < 0 AS earlier FROM sums {join}) AS p
WHERE bucket <> :gap
GROUP BY {sets}
) AS found
"""
_ZONE = select(Policy.zone)
_COUNTED = """
      UNION ALL SELECT day - CAST(:start{n} AS date) + {day}, gpu_id, booking_id, user_id, account_id, host_id,
             reserved, attached, late, sampled, busy, energy, memory_mib
      FROM usage_pieces WHERE day >= :start{n} AND day < :end{n}{scope}"""


def numbers(
    span: Span, key: Key, scope: Scope, buckets: tuple[int, ...] | None = None, before: Span | None = None
) -> dict[tuple[Any, int], Numbers]:
    """The numbers of each group and bucket; `buckets`: the bucket of each of the span's days (default: all in 0).

    `before`: an earlier span, not reaching into this one, of which all is in the bucket BEFORE."""
    rows = _rows(span, key, scope, buckets, before, by="key, bucket", sets="1, 2")
    return {(group, bucket): _numbers(amounts) for group, bucket, *amounts in rows}


def totals(
    span: Span, key: Key, scope: Scope, buckets: tuple[int, ...], before: Span | None = None
) -> tuple[dict[Any, Numbers], dict[int, Numbers]]:
    """The same of each group of the span, and of each bucket: of one query, so that they agree."""
    by, sets = "grouping(bucket), earlier, key, bucket", "GROUPING SETS ((key, earlier), (bucket))"
    groups: dict[Any, Numbers] = {}
    found: dict[int, Numbers] = {}
    for of_group, earlier, group, bucket, *amounts in _rows(span, key, scope, buckets, before, by=by, sets=sets):
        if not of_group:
            found[bucket] = _numbers(amounts)
        elif not earlier:
            groups[group] = _numbers(amounts)
    return groups, found


def _numbers(amounts: Sequence[Any]) -> Numbers:
    reserved, attached, sampled, busy, energy, memory, late = amounts
    return Numbers(reserved, attached, sampled, busy, int(energy), memory, late)


def _rows(
    span: Span, key: Key, scope: Scope, buckets: tuple[int, ...] | None, before: Span | None, *, by: str, sets: str
) -> Sequence[Any]:
    spans = [one for one in (before, span) if one is not None and one.days]
    if not spans:
        return ()
    of_span = buckets or (0,) * len(span.days)
    days = Days.of(spans, [of_span if one is span else (BEFORE,) * len(one.days) for one in spans])
    usable = db.session.scalar(_ZONE) == span.zone.key  # they were counted by the zone that is written down
    counted = [_COUNTED.format(n=n, day=one.day, scope=scope.of_pieces) for n, one in days.whole if usable]
    # All of it is text of these files; what people choose comes as values.
    statement = _QUERY.format(
        pieces=cutting.pieces(days, _anew(days, scope, usable=usable)),
        counted="".join(counted),
        raw=_RAW[key],
        key=_KEYS.get(key, "raw"),
        join=_JOINS.get(key, ""),
        by=by,
        sets=sets,
    )
    cutting.make_room()
    return db.session.execute(text(statement), days.values | scope.values | {"gap": GAP}).all()


def _anew(days: Days, scope: Scope, *, usable: bool) -> list[str]:
    """What is to be counted now: what is not yet, and what is, on days of which a span has only a part."""
    if not usable:
        return [cutting.allocations(f"tstzrange(al.starts_at, al.ends_at) && {days.when}{scope.condition}")]
    # PostgreSQL can tell how many these are, as it could not of those that overlap.
    uncounted = f"NOT al.counted AND al.starts_at < :until AND al.ends_at > :start{scope.condition}"
    found = [cutting.allocations(uncounted)]
    if days.cut:
        within = f"tstzrange(al.starts_at, al.ends_at) && {days.when_cut}{scope.condition}"
        found.append(cutting.allocations(f"al.counted AND {within}", only_cut=True))
    return found
