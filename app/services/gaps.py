"""Where GPUs are free: said by the database, which leaves out what is too short, and put together on the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, BigInteger, Interval, bindparam, column, text

from app.extensions import db
from app.models import Gpu
from app.models.base import UtcDateTime
from app.services.windows import Window, ceil_to_grid, floor_to_grid

Room = Mapping[int, Sequence[Window]]
"""By GPU id, the windows in which nobody has it and it is not worked on, in order."""


def rooms(gpus: Sequence[Gpu], window: Window, least: timedelta) -> dict[int, list[Window]]:
    """Where in the window each of the GPUs is free for so long or longer."""
    found: dict[int, list[Window]] = {gpu.id: [] for gpu in gpus}
    values = {"gpu_ids": list(found), "start": window.starts_at, "end": window.ends_at, "least": least}
    for gpu_id, starts_at, ends_at in db.session.execute(_ROOM, values):
        found[gpu_id].append(Window(starts_at, ends_at))
    return found


def starts(room: Room, count: int, length: timedelta, slot: int) -> list[tuple[datetime, datetime]]:
    """From when to when, on the grid, a window of that length can start in which `count` of the GPUs are free."""
    changes: list[tuple[datetime, int]] = []
    for windows in room.values():
        for one in windows:
            first, last = ceil_to_grid(one.starts_at, slot), floor_to_grid(one.ends_at - length, slot)
            if first <= last:
                changes += [(first, 0), (last, 1)]
    found: list[tuple[datetime, datetime]] = []
    free, since = 0, None
    for moment, ends in sorted(changes):  # at one moment, what begins before what ends: both may start there
        if not ends:
            free += 1
            since = moment if free == count else since
        else:
            if free == count and since is not None:
                found.append((since, moment))
            free -= 1
    return found


# From the end of what keeps a GPU to the start of what does so next: bookings and times of maintenance, found as the
# overlap constraint's index answers it (see services.spans), none of a GPU within another. What lies before the window
# ends where that starts. A multirange less all of them says the same, in half as long again.
_ROOM = (
    text("""
SELECT gpu_id, gap_starts_at, gap_ends_at FROM (
  SELECT gpu_id, ends_at AS gap_starts_at,
    coalesce(lead(starts_at) OVER (PARTITION BY gpu_id ORDER BY starts_at), :end) AS gap_ends_at
  FROM (
    SELECT id AS gpu_id, '-infinity' AS starts_at, CAST(:start AS timestamptz) AS ends_at
    FROM unnest(:gpu_ids) AS wanted (id)
    UNION ALL
    SELECT gpu_id, starts_at, ends_at FROM allocations
    WHERE tstzrange(starts_at, ends_at) && tstzrange(:start, :end) AND released_at IS NULL AND gpu_id = ANY (:gpu_ids)
    UNION ALL
    SELECT gpu_id, starts_at, ends_at FROM blocks
    WHERE tstzrange(starts_at, ends_at) && tstzrange(:start, :end) AND lifted_at IS NULL AND gpu_id = ANY (:gpu_ids)
  ) AS kept
) AS gaps
WHERE gap_ends_at - gap_starts_at >= :least ORDER BY 1, 2
""")
    .bindparams(
        bindparam("gpu_ids", type_=ARRAY(BigInteger)),
        *(bindparam(name, type_=UtcDateTime()) for name in ("start", "end")),
        bindparam("least", type_=Interval()),
    )
    .columns(column("gpu_id", BigInteger), column("gap_starts_at", UtcDateTime), column("gap_ends_at", UtcDateTime))
)
