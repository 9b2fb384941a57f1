"""Where GPUs are free: said by the database, which leaves out what is too short, and put together on the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, BigInteger, DateTime, Interval, any_, bindparam, func, select, union_all

from app.extensions import db
from app.models import Allocation, Block, Gpu
from app.services.windows import Window, ceil_to_grid, floor_to_grid

Room = Mapping[int, Sequence[Window]]
"""By GPU id, the windows in which nobody has it and it is not worked on, in order."""


def rooms(gpus: Sequence[Gpu], window: Window, least: timedelta) -> dict[int, list[Window]]:
    """Where in the window each of the GPUs is free for so long or longer."""
    found: dict[int, list[Window]] = {gpu.id: [] for gpu in gpus}
    values = {"gpu_ids": list(found), "start": window.starts_at, "end": window.ends_at, "least": least}
    booked = set()
    for gpu_id, free_from, starts_at, ends_at, is_last in db.session.execute(_ROOM, values):
        booked.add(gpu_id)
        if starts_at - free_from >= least:
            found[gpu_id].append(Window(free_from, starts_at))
        if is_last and window.ends_at - ends_at >= least:
            found[gpu_id].append(Window(max(ends_at, window.starts_at), window.ends_at))
    for gpu_id in found.keys() - booked:
        found[gpu_id].append(window)
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


_START, _END = bindparam("start", type_=DateTime(True)), bindparam("end", type_=DateTime(True))
_LEAST = bindparam("least", type_=Interval)
_IDS = bindparam("gpu_ids", type_=ARRAY(BigInteger))
# What keeps a GPU: bookings and times of maintenance. As the overlap constraint's index answers it: see services.spans.
_KEPT = union_all(
    *(
        select(kind.id, kind.gpu_id, kind.starts_at, kind.ends_at).where(
            func.tstzrange(kind.starts_at, kind.ends_at).op("&&")(func.tstzrange(_START, _END)),
            given_up.is_(None),
            kind.gpu_id == any_(_IDS),
        )
        for kind, given_up in ((Allocation, Allocation.released_at), (Block, Block.lifted_at))
    )
).subquery()
_GPU_HELD = select(
    _KEPT.c.gpu_id,
    _KEPT.c.starts_at,
    _KEPT.c.ends_at,
    func.lag(_KEPT.c.ends_at).over(partition_by=_KEPT.c.gpu_id, order_by=_KEPT.c.starts_at).label("before"),
    func.lead(_KEPT.c.id).over(partition_by=_KEPT.c.gpu_id, order_by=_KEPT.c.starts_at).label("next_id"),
).subquery()
_FREE_FROM = func.greatest(func.coalesce(_GPU_HELD.c.before, _START), _START)
# Only bookings with room enough before them come back, and each GPU's last one.
_ROOM = (
    select(_GPU_HELD.c.gpu_id, _FREE_FROM, _GPU_HELD.c.starts_at, _GPU_HELD.c.ends_at, _GPU_HELD.c.next_id.is_(None))
    .where((_GPU_HELD.c.starts_at - _FREE_FROM >= _LEAST) | _GPU_HELD.c.next_id.is_(None))
    .order_by(_GPU_HELD.c.gpu_id, _GPU_HELD.c.starts_at)
)
