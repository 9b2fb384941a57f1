"""What bookings of the past had is counted once: their pieces are kept, and an allocation says that its are.

Late samples, and whoever changes what was counted, take the mark and the pieces away; they are then counted anew. For
bookings and their allocations the database sees to that itself (`forget_pieces`), for samples `forget` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import text

from app import clock
from app.extensions import db
from app.services import policy
from app.services.periods import A_DAY, midnight
from app.services.reports import cutting
from app.services.reports.cutting import Days
from app.services.reports.spans import Span

SETTLED = timedelta(days=2)  # after the end: until then most of what is late has come, and each day has its length
AT_ONCE = 500  # bookings
# Of advisory locks: held by who adds samples until they are committed, and alone by who counts.
_ADDING = 0x62657275
# What is not gone yet, or not settled, may still change.
_OPEN = "al.ends_at >= :before OR (al.attached_at IS NOT NULL AND al.detached_at IS NULL)"
_DUE = text(f"""
SELECT array_agg(booking_id) FROM (
  SELECT al.booking_id FROM allocations AS al JOIN bookings AS b ON b.id = al.booking_id
  WHERE NOT al.counted AND al.released_at IS NULL AND NOT ({_OPEN}) AND b.settled_at IS NOT NULL
  ORDER BY al.starts_at LIMIT :most
) AS found""")  # noqa: S608 - text of this file
_LOCK = text("""
SELECT array_agg(id) FROM (
  SELECT id FROM allocations WHERE booking_id = ANY (:due) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
) AS found""")
# All of a booking's allocations or none. Looked at anew, now that nobody can change them.
_MINE = text(f"""
SELECT array_agg(id) FROM (
  SELECT id FROM bookings AS b WHERE id = ANY (:due) AND settled_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM allocations AS al
    WHERE al.booking_id = b.id AND (al.id <> ALL (:locked) OR (al.released_at IS NULL AND ({_OPEN}))))
  ORDER BY id FOR SHARE SKIP LOCKED
) AS found""")  # noqa: S608 - likewise
_TIME = text("""
SELECT min(coalesce(booked_from, starts_at)), max(ends_at)
FROM allocations WHERE booking_id = ANY (:mine) AND released_at IS NULL""")
_MARK = text("UPDATE allocations SET counted = true WHERE booking_id = ANY (:mine)")
_STALE = text("DELETE FROM usage_pieces WHERE booking_id = ANY (:mine)")  # an allocation was added to what was counted
_KEEP = """
INSERT INTO usage_pieces (day, gpu_id, booking_id, user_id, account_id, host_id,
                          reserved, attached, late, sampled, busy, energy, memory_mib)
WITH {pieces}
SELECT CAST(:first AS date) + day - 1, gpu_id, booking_id, user_id, account_id, host_id,
       reserved, attached, late, sampled, busy, energy, memory_mib
FROM pieces"""


def count(most: int = AT_ONCE) -> int:
    """Count so many bookings that are long over; how many that were, 0 while samples are being added. Waits for nobody
    but an admin who is changing the rules; who adds samples waits for it."""
    if not db.session.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _ADDING}):
        return 0
    rules = policy.current()
    db.session.refresh(rules, with_for_update={"read": True})  # the zone stays
    values = {"before": clock.now() - SETTLED, "most": most}
    values["due"] = due = db.session.scalar(_DUE, values)
    values["locked"] = locked = due and db.session.scalar(_LOCK, values)
    values["mine"] = mine = locked and db.session.scalar(_MINE, values)
    if not mine or rules.zone is None:
        return 0
    db.session.execute(_STALE, values)
    start, end = db.session.execute(_TIME, values).one()
    days = _days(start, end, ZoneInfo(rules.zone))
    statement = _KEEP.format(pieces=cutting.pieces(days, [cutting.allocations("al.booking_id = ANY (:mine)")]))
    cutting.make_room()
    db.session.execute(text(statement), days.values | {"mine": mine, "first": days.spans[0].days[0]})
    db.session.execute(_MARK, values)
    return len(mine)


def forget(consumer_ids: Iterable[int]) -> None:
    """The bookings of these, of which there are new samples, are to be counted anew."""
    db.session.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _ADDING})
    statement = text("""
        UPDATE allocations SET counted = false WHERE counted AND booking_id IN (
          SELECT booking_id FROM consumers WHERE id = ANY (:consumers))""")
    db.session.execute(statement, {"consumers": list(consumer_ids)})


def forget_all() -> None:
    """Everything is to be counted anew, since the lab's days are others now."""
    db.session.execute(text("UPDATE allocations SET counted = false WHERE counted"))


def _days(start: datetime, end: datetime, zone: ZoneInfo) -> Days:
    """The lab's days from one moment to another, all of each."""
    first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    span = Span.of(midnight(first, zone), midnight(last + A_DAY, zone), zone, clock.now())
    return Days.of([span], [(0,) * len(span.days)])
