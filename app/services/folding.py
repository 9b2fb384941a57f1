"""Minutes are folded to hours and days, and go when they are old enough.

They are folded where they arrive, in the same transaction: what is late is then in its hour and its day as well,
exactly once, and an hour is never half a truth. What is too old goes in small steps that readers do not wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Result, func, text
from sqlalchemy.dialects.postgresql import insert

from app import clock
from app.extensions import db, lab_zone
from app.models import UsageDay, UsageHostHour, UsageHour, UsageMinute
from app.services import policy
from app.services.reports import counted

SUMS = ("sampled_ms", "busy_ms", "energy_j")
PEAKS = ("memory_mib", "temperature")
NAMES = timedelta(days=15)  # that they are kept at least: an agent sends nothing that is older than two weeks
AT_ONCE = 300  # minutes of each GPU that one step removes, and rows of hours of each
# By each GPU's own end of the primary key: however much there is, a step reads only what it removes. Rows that another
# such step has already locked are left to it. They are chosen once: a plan that looked for them anew for each row
# would remove many times as many.
_OLD_MINUTES = text("""
WITH gone AS MATERIALIZED (
  SELECT old.* FROM gpus CROSS JOIN LATERAL (
    SELECT gpu_id, minute, consumer_id FROM usage_minutes WHERE gpu_id = gpus.id AND minute < :before
    ORDER BY minute LIMIT :most FOR UPDATE SKIP LOCKED
  ) AS old
)
DELETE FROM usage_minutes AS m USING gone
WHERE m.gpu_id = gone.gpu_id AND m.minute = gone.minute AND m.consumer_id = gone.consumer_id
""")
_OLD_HOURS = text("""
WITH gone AS MATERIALIZED (
  SELECT hour, gpu_id, consumer_id FROM usage_hours WHERE hour < :before ORDER BY hour
  LIMIT :most * (SELECT count(*) FROM gpus) FOR UPDATE SKIP LOCKED
)
DELETE FROM usage_hours AS h USING gone
WHERE h.hour = gone.hour AND h.gpu_id = gone.gpu_id AND h.consumer_id = gone.consumer_id
""")
_OLD_HOST_HOURS = text("""
WITH gone AS MATERIALIZED (
  SELECT hour, host_id FROM usage_host_hours WHERE hour < :before ORDER BY hour LIMIT :most FOR UPDATE SKIP LOCKED
)
DELETE FROM usage_host_hours AS h USING gone WHERE h.hour = gone.hour AND h.host_id = gone.host_id
""")
# A name that is so old can come from no agent's spool any more.
_OLD_BATCHES = text("""
DELETE FROM usage_batches WHERE (host_id, name) IN (
  SELECT host_id, name FROM usage_batches WHERE delivered_at < :before FOR UPDATE SKIP LOCKED
)
""")

Row = Mapping[str, Any]


def add(host_id: int, rows: Iterable[Row]) -> None:
    """Add what a host's GPUs did to their minutes, hours and days, and to the host's hours: rows of gpu_id, minute,
    consumer_id and the amounts."""
    found, zone = list(rows), lab_zone()
    _add(UsageMinute, "minute", found, lambda minute: minute)
    _add(UsageHour, "hour", found, lambda minute: minute.replace(minute=0))
    _add(UsageDay, "day", found, lambda minute: minute.astimezone(zone).date())
    _add_to_host(host_id, found)
    counted.forget({row["consumer_id"] for row in found})


def prune() -> int:
    """Remove a step of what is older than the rules keep it; how many rows that were. Days are kept for ever."""
    (minutes, hours), now = policy.kept_from(), clock.now()
    removed = 0
    for statement, before in ((_OLD_MINUTES, minutes), (_OLD_HOURS, hours), (_OLD_HOST_HOURS, hours)):
        removed += _rows(db.session.execute(statement, {"before": before, "most": AT_ONCE}))
    return removed + _rows(db.session.execute(_OLD_BATCHES, {"before": min(minutes, now - NAMES)}))


def _add(
    model: type[UsageMinute | UsageHour | UsageDay],
    period: str,
    rows: Iterable[Row],
    of: Callable[[datetime], datetime | date],
) -> None:
    folded: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = row["gpu_id"], of(row["minute"]), row["consumer_id"]
        into = folded.setdefault(key, dict(zip(("gpu_id", period, "consumer_id"), key, strict=True)))
        for name in SUMS:
            into[name] = into.get(name, 0) + row[name]
        for name in PEAKS:
            into[name] = max(into.get(name, 0), row[name])
    if not folded:
        return
    statement = insert(model).values([folded[key] for key in sorted(folded)])
    sums = {name: getattr(model, name) + statement.excluded[name] for name in SUMS}
    peaks = {name: func.greatest(getattr(model, name), statement.excluded[name]) for name in PEAKS}
    keys = ["gpu_id", period, "consumer_id"]
    db.session.execute(statement.on_conflict_do_update(index_elements=keys, set_=sums | peaks))


def _add_to_host(host_id: int, rows: Iterable[Row]) -> None:
    sums: dict[datetime, list[int]] = {}
    for row in rows:
        found = sums.setdefault(row["minute"].replace(minute=0), [0, 0])
        found[0] += row["sampled_ms"]
        found[1] += row["busy_ms"]
    if not sums:
        return
    statement = insert(UsageHostHour).values(
        [
            {"hour": hour, "host_id": host_id, "sampled_ms": sampled, "busy_ms": busy}
            for hour, (sampled, busy) in sorted(sums.items())
        ]
    )
    added = {name: getattr(UsageHostHour, name) + statement.excluded[name] for name in ("sampled_ms", "busy_ms")}
    db.session.execute(statement.on_conflict_do_update(index_elements=["hour", "host_id"], set_=added))


def _rows(result: Result[Any]) -> int:
    return int(getattr(result, "rowcount", 0))
