"""What else a year leaves behind: 200,000 audit events, of which one in thirteen is told of in reports, and 20,000
places on the waiting list. For an installation with its bookings; written as SQL."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from app.extensions import db, transaction

EVENTS, WAITS = 200_000, 20_000
# In each thousand: programs ended after the end, other steps of evictions, no-shows, unused bookings that were given
# back, and 925 events that no report counts.
_EVENTS = """
WITH b AS (SELECT id, host_id, row_number() OVER (ORDER BY id) - 1 AS number FROM bookings),
many AS (SELECT count(*) AS all_of_them FROM b),
k AS (SELECT k, k % 1000 AS kind FROM generate_series(1, :events) AS k)
INSERT INTO audit_events (created_at, actor, action, target, details)
SELECT CAST(:start AS timestamptz) + k * (:days * interval '1 day' / :events),
       CASE WHEN kind < 40 THEN 'agent:' || h.name ELSE 'system' END,
       CASE WHEN kind < 30 THEN 'gpu.process_ended' WHEN kind < 32 THEN 'instance.force_stopped'
            WHEN kind < 34 THEN 'gpu.quarantined' WHEN kind < 37 THEN 'gpu.intruder'
            WHEN kind < 40 THEN 'gpu.used_unbooked' WHEN kind < 65 THEN 'booking.no_show'
            WHEN kind < 75 THEN 'booking.reclaimed' WHEN kind < 500 THEN 'booking.created'
            WHEN kind < 700 THEN 'booking.moved' ELSE 'user.signed_in' END,
       CASE WHEN kind BETWEEN 30 AND 31 THEN 'instance:m' || kind WHEN kind < 40 THEN 'gpu:' || g.id
            WHEN kind < 700 THEN 'booking:' || b.id ELSE 'user:person-07' END,
       CASE WHEN kind < 40 THEN jsonb_build_object('host', h.name, 'pci_address', g.pci_address, 'booking', b.id,
                                                   'gpu', g.id, 'instance', 'm7', 'process', k, 'name', 'python')
            WHEN kind BETWEEN 65 AND 74 THEN jsonb_build_object('absent', kind % 2 = 0)
            ELSE jsonb_build_object('before', now(), 'ends_at', now()) END
FROM k CROSS JOIN many JOIN b ON b.number = k * 7919 % all_of_them JOIN hosts AS h ON h.id = b.host_id
JOIN LATERAL (SELECT id, pci_address FROM gpus WHERE host_id = h.id AND minor = k % 8) AS g ON true
"""
_WAITS = """
WITH person AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number, count(*) OVER () AS people FROM users),
team AS (SELECT name, row_number() OVER (ORDER BY id) - 1 AS number FROM accounts WHERE name LIKE 'team:%'),
k AS (SELECT k, CAST(:start AS timestamptz) + k * (:days * interval '1 day' / :waits) AS joined,
             k * 7919 % 300 * interval '1 minute' AS waited, k % 10 AS kind
      FROM generate_series(1, :waits) AS k)
INSERT INTO waits (user_id, account, state, by_itself, count, seconds, starts_at, ends_at, created_at, granted_at,
                   closed_at)
SELECT person.id, CASE WHEN kind < 4 THEN team.name ELSE '' END,
       CASE WHEN kind < 7 THEN 'granted' WHEN kind < 8 THEN 'expired' ELSE 'withdrawn' END, true, 1, 3600, joined,
       joined + interval '1 day', joined, CASE WHEN kind < 7 THEN joined + waited END, joined + waited
FROM k JOIN person ON person.number = k * 31 % people LEFT JOIN team ON team.number = k % 6
"""


def load(start: datetime, days: int) -> None:
    """Over so many days from a moment on."""
    values = {"start": start, "days": days, "events": EVENTS * days // 365, "waits": WAITS * days // 365}
    with transaction() as session:
        session.execute(sa.text(_EVENTS), values)
        session.execute(sa.text(_WAITS), values)
    db.session.remove()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE audit_events, waits"))
