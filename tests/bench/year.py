"""A year of what 64 GPUs did, by the minute, written as SQL and loaded by COPY: 33.6 million rows.

On each GPU a booking of nine hours in every eleven, attached twenty seconds late, idle for six in ten of its minutes;
in between, minutes of the host's own. Hours and days are the sums of those minutes, as services.folding makes them.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from app.extensions import db, transaction
from app.models import Account, TeamMember, User
from app.models.accounts import TEAM
from app.services import zones
from app.services.reports import counted
from tests.factories import make_user

PEOPLE, TEAMS = 40, 6
_BOOKINGS = """
WITH gpu AS (SELECT id, host_id, row_number() OVER (ORDER BY id) - 1 AS number FROM gpus),
person AS (SELECT id, account_id, row_number() OVER (ORDER BY id) - 1 AS number FROM users),
team AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number FROM accounts WHERE name LIKE 'team:%'),
wanted AS MATERIALIZED (
  SELECT nextval(pg_get_serial_sequence('bookings', 'id')) AS id, gpu.id AS gpu_id, host_id,
         (gpu.number * 7 + k * 13) % :people AS who,
         CAST(:start AS timestamptz) + k * interval '11 hours' + gpu.number * interval '10 minutes' AS starts_at
  FROM gpu CROSS JOIN generate_series(0, :days * 24 / 11 - 2) AS k
),
made AS (
  INSERT INTO bookings (id, user_id, account_id, host_id, starts_at, ends_at, booked_until, settled_at)
  SELECT wanted.id, person.id, coalesce(team.id, person.account_id), host_id, starts_at, starts_at + interval '9 hours',
         starts_at + interval '9 hours', starts_at + interval '9 hours'
  FROM wanted JOIN person ON person.number = who LEFT JOIN team ON team.number = who % 10 AND who % 3 > 0
),
used AS (
  INSERT INTO consumers (host_id, booking_id, instance) SELECT host_id, id, 'm' || who FROM wanted
)
INSERT INTO allocations (booking_id, gpu_id, starts_at, ends_at, attached_at, detached_at)
SELECT id, gpu_id, starts_at, starts_at + interval '9 hours', starts_at + interval '20 seconds',
       starts_at + interval '9 hours 3 seconds' FROM wanted
"""
_HOSTS = "INSERT INTO consumers (host_id) SELECT id FROM hosts"
_MINUTES = """
COPY (
  WITH own AS MATERIALIZED (
    SELECT a.gpu_id, c.id, a.starts_at, a.ends_at FROM allocations AS a JOIN consumers AS c USING (booking_id)
    WHERE a.ends_at > '{start}' AND a.starts_at < '{end}'
  ),
  host AS (
    SELECT g.id AS gpu_id, c.id FROM gpus AS g JOIN consumers AS c ON c.host_id = g.host_id AND c.booking_id IS NULL
  ),
  minutes AS (
    SELECT gpu_id, id, minute, abs(hashint4(id) + extract(epoch FROM minute)::bigint / 60) % 10 > 5 AS busy
    FROM own CROSS JOIN LATERAL
      generate_series(greatest(starts_at, '{start}'), least(ends_at, '{end}') - interval '1 minute', '1 minute')
      AS minute
    UNION ALL
    SELECT h.gpu_id, h.id, minute, false
    FROM host AS h CROSS JOIN
      generate_series(timestamptz '{start}', timestamptz '{end}' - interval '1 minute', '1 minute') AS minute
    WHERE NOT EXISTS (
      SELECT FROM own WHERE own.gpu_id = h.gpu_id AND own.starts_at <= minute AND minute < own.ends_at)
  )
  SELECT gpu_id::int, minute, id::int, 60000, CASE WHEN busy THEN 54321 ELSE 0 END,
         CASE WHEN busy THEN 18000 ELSE 3000 END, CASE WHEN busy THEN 40000 ELSE 4 END,
         CASE WHEN busy THEN 71 ELSE 34 END::smallint
  FROM minutes ORDER BY minute, gpu_id
) TO STDOUT (FORMAT binary)
"""
_TO = """COPY usage_minutes (gpu_id, minute, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib, temperature)
FROM STDIN (FORMAT binary)"""
_ALTER = "ALTER TABLE usage_minutes"
_KEYS = {
    "fk_usage_minutes_gpu_id": "FOREIGN KEY (gpu_id) REFERENCES gpus (id)",
    "fk_usage_minutes_consumer_id": "FOREIGN KEY (consumer_id) REFERENCES consumers (id)",
}
_SUMS = "sum(sampled_ms), sum(busy_ms), sum(energy_j), max(memory_mib), max(temperature)"
_HOURS = f"""INSERT INTO usage_hours (hour, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib, temperature)
SELECT date_trunc('hour', minute, 'UTC'), gpu_id, consumer_id, {_SUMS} FROM usage_minutes
WHERE minute >= :start AND minute < :end GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_DAYS = f"""INSERT INTO usage_days (day, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib, temperature)
SELECT (hour AT TIME ZONE :zone)::date, gpu_id, consumer_id, {_SUMS} FROM usage_hours
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_HOST_HOURS = """INSERT INTO usage_host_hours (hour, host_id, sampled_ms, busy_ms)
SELECT hour, c.host_id, sum(sampled_ms), sum(busy_ms) FROM usage_hours JOIN consumers AS c ON c.id = consumer_id
GROUP BY 1, 2 ORDER BY 1, 2"""


def people() -> None:
    """PEOPLE in TEAMS and without one. The database must have its GPUs."""
    with transaction():
        users = [make_user(f"person-{number:02}", hours=0) for number in range(PEOPLE)]
        for number in range(TEAMS):
            team = Account(name=f"{TEAM}group {number}")
            db.session.add(team)
            db.session.flush()
            for user in users[number::10]:
                db.session.add(TeamMember(account_id=team.id, user_id=user.id))


def load(start: datetime, days: int, zone: str) -> None:
    """So many days of bookings and of what GPUs did, from a moment on."""
    with transaction() as session:
        session.execute(sa.text("UPDATE hosts SET created_at = :start"), {"start": start})
        everybody = session.scalar(sa.select(sa.func.count()).select_from(User))
        session.execute(sa.text(_BOOKINGS), {"start": start, "days": days, "people": everybody})
        session.execute(sa.text(_HOSTS))
    _vacuum("allocations", "bookings", "consumers")
    # As a backup is restored: the rows first, then what is true of all of them.
    _run(*(f"{_ALTER} DROP CONSTRAINT {name}" for name in ("pk_usage_minutes", *_KEYS)))
    for first in range(0, days, 7):
        _week(start + timedelta(days=first), start + timedelta(days=min(days, first + 7)))
    with transaction() as session:
        session.execute(sa.text(_DAYS), {"zone": zone})
        session.execute(sa.text(_HOST_HOURS))
    primary = "ADD CONSTRAINT pk_usage_minutes PRIMARY KEY (gpu_id, minute, consumer_id)"
    _run(
        "SET maintenance_work_mem = '512MB'",
        f"{_ALTER} {primary}",
        *(f"{_ALTER} ADD CONSTRAINT {name} {what} NOT VALID" for name, what in _KEYS.items()),
        "RESET maintenance_work_mem",
    )
    _vacuum("usage_minutes", "usage_hours", "usage_days", "usage_host_hours")
    _count(zone)


def _count(zone: str) -> None:
    """What is long over, as the postman does it minute by minute."""
    with transaction():
        zones.write(zone)
    while _step():
        pass
    _vacuum("usage_pieces", "allocations")


def _step() -> int:
    with transaction():
        return counted.count()


def _week(start: datetime, end: datetime) -> None:
    """Out of one connection and into another, byte by byte as PostgreSQL writes them."""
    with db.engine.connect() as reading, db.engine.connect() as writing:
        source, sink = (one.connection.driver_connection.cursor() for one in (reading, writing))  # type: ignore[union-attr]
        sink.execute("SET LOCAL synchronous_commit = off")
        with source.copy(_MINUTES.format(start=start.isoformat(), end=end.isoformat())) as rows, sink.copy(_TO) as into:
            for data in rows:
                into.write(data)
        writing.execute(sa.text(_HOURS), {"start": start, "end": end})
        writing.commit()


def _vacuum(*tables: str) -> None:
    _run(f"VACUUM ANALYZE {', '.join(tables)}")


def _run(*statements: str) -> None:
    db.session.remove()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
