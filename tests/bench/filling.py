"""Bookings by the million, written as SQL: those of the week in view and the four days after it, and all the others.

Each of them lies in the database as a booking that was made lies there, with one allocation, each under the overlap
constraint. Ledger entries and audit events are left out: no page of the calendar reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from app.extensions import db, transaction
from app.services.ahead import LOOK_AHEAD

PLACES = 1536  # of a week: 24 of seven hours on each of 64 GPUs; the days after it have 13 in all
PEOPLE = 16

# A row of `wanted` for each booking: its GPU's number, and its window.
_IN_VIEW = """
SELECT k % 64 AS gpu, :start + (k / 64) * interval '7 hours' + (k % 4) * interval '30 minutes' AS starts_at,
       interval '3 hours' + (k % 6) * interval '30 minutes' AS length
FROM generate_series(0, :places - 1) AS k
WHERE (k * :share / 1536 <> (k + 1) * :share / 1536) = :chosen
"""
# Nine in ten in the past, back to back with an hour between; the rest after what the calendar looks at.
_ELSEWHERE = """
SELECT k % 64 AS gpu,
       CASE WHEN k < :past THEN :start - (k / 64 + 1) * interval '3 hours'
            ELSE :after + ((k - :past) / 64) * interval '3 hours' END AS starts_at,
       interval '2 hours' AS length
FROM generate_series(0, :number - 1) AS k
"""
_INSERT = """
WITH gpus AS (SELECT id, host_id, row_number() OVER (ORDER BY id) - 1 AS number FROM gpus),
people AS (SELECT id, account_id, row_number() OVER (ORDER BY id) - 1 AS number FROM users),
wanted AS MATERIALIZED (
  SELECT nextval(pg_get_serial_sequence('bookings', 'id')) AS id, w.gpu, w.starts_at, w.starts_at + w.length AS ends_at
  FROM ({wanted}) AS w
),
made AS (
  INSERT INTO bookings (id, user_id, account_id, host_id, starts_at, ends_at, booked_until, settled_at)
  SELECT wanted.id, people.id, account_id, host_id, starts_at, ends_at, ends_at,
         CASE WHEN ends_at <= :now THEN ends_at END
  FROM wanted JOIN gpus ON gpus.number = gpu JOIN people ON people.number = wanted.id % :people
)
INSERT INTO allocations (booking_id, gpu_id, starts_at, ends_at)
SELECT wanted.id, gpus.id, starts_at, ends_at FROM wanted JOIN gpus ON gpus.number = gpu
"""

_MADE = """
made AS (
  INSERT INTO bookings (id, user_id, account_id, host_id, starts_at, ends_at, booked_until)
  SELECT wanted.id, person, account_id, host_id, starts_at, starts_at + length, starts_at + length
  FROM wanted JOIN users ON users.id = person
)
INSERT INTO allocations (booking_id, gpu_id, starts_at, ends_at, attached_at)
SELECT id, gpu_id, starts_at, starts_at + length, CASE WHEN :attached THEN starts_at END FROM wanted
"""
# Two neighbouring GPUs are free at once, one place in 97.
_TO_COME = f"""
WITH numbered AS (SELECT id, host_id, row_number() OVER (ORDER BY id) - 1 AS number FROM gpus),
wanted AS MATERIALIZED (
  SELECT nextval(pg_get_serial_sequence('bookings', 'id')) AS id, numbered.id AS gpu_id, host_id,
         (CAST(:people AS bigint[]))[1 + k % cardinality(CAST(:people AS bigint[]))] AS person,
         CAST(:start AS timestamptz) + k * interval '8 hours' + (number + k) % 3 * interval '15 minutes' AS starts_at,
         interval '7 hours' + (number + k) % 2 * interval '15 minutes' AS length
  FROM numbered CROSS JOIN generate_series(0, :number / 64 * 98 / 97) AS k
  WHERE (k + 7 * (number / 2)) % 97 <> 0
  LIMIT :number
),{_MADE}"""
_PACKED = f"""
WITH wanted AS MATERIALIZED (
  SELECT nextval(pg_get_serial_sequence('bookings', 'id')) AS id, gpus.id AS gpu_id, host_id,
         (CAST(:people AS bigint[]))[1 + (gpus.id * 5 + k) % cardinality(CAST(:people AS bigint[]))] AS person,
         CAST(:start AS timestamptz) + k * interval '7 hours' + (gpus.id * k) % 6 * interval '30 minutes' AS starts_at,
         interval '2 hours' + (gpus.id + k) % 5 * interval '30 minutes' AS length
  FROM gpus CROSS JOIN generate_series(0, 23) AS k
  WHERE gpus.id <> ALL(CAST(:without AS bigint[]))
),{_MADE}"""


@dataclass(frozen=True)
class Filling:
    """What lies in the database: `in_view` bookings in the week that begins at `monday`, `stored` in all."""

    monday: datetime
    now: datetime
    in_view: int
    stored: int

    @property
    def after(self) -> datetime:
        """Where the calendar's look ahead ends."""
        return self.monday + timedelta(days=7) + LOOK_AHEAD


def fill(filling: Filling) -> None:
    """Write it. The database must have 64 GPUs, and PEOPLE people or more."""
    _insert(filling, _IN_VIEW, start=filling.monday, share=filling.in_view, chosen=True, places=_places())
    others = filling.stored - _count()
    past = others * 9 // 10
    _insert(filling, _ELSEWHERE, start=filling.monday, after=filling.after, past=past, number=others)
    _settle_down()


def crowd(filling: Filling) -> None:
    """Book every place of the week that is left, and of the days after it."""
    _insert(filling, _IN_VIEW, start=filling.monday, share=filling.in_view, chosen=False, places=_places())
    _settle_down()


def to_come(now: datetime, number: int, people: Sequence[int]) -> None:
    """So many bookings from now on, one in each eight hours of each GPU but for a few places: in the caller's
    transaction; `people`: whose they are, by their ids, in turn."""
    db.session.execute(sa.text(_TO_COME), {"start": now, "people": list(people), "number": number, "attached": False})


def pack(monday: datetime, people: Sequence[int], without: Sequence[int] = ()) -> None:
    """On each GPU, in every seven hours of the week, a booking of about three: 24 of them. In the caller's
    transaction; `people`: whose they are, by their ids, in turn; `without`: GPUs that stay free."""
    values = {"start": monday, "people": list(people), "without": list(without), "attached": True}
    db.session.execute(sa.text(_PACKED), values)


def _places() -> int:
    return PLACES + 64 * (24 * LOOK_AHEAD.days // 7)


def _insert(filling: Filling, wanted: str, **values: object) -> None:
    with transaction() as session:
        session.execute(sa.text("SET LOCAL synchronous_commit = off"))
        statement = sa.text(_INSERT.format(wanted=wanted))
        session.execute(statement, {"now": filling.now, "people": PEOPLE, **values})


def _count() -> int:
    return int(db.session.scalar(sa.text("SELECT count(*) FROM bookings")) or 0)


def _settle_down() -> None:
    """Statistics, and no work left for autovacuum to do while the clock runs."""
    db.session.remove()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
