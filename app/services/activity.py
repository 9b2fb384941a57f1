"""What the last minutes of GPUs were: a curve of the last hour, and for how long one has done nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    ARRAY,
    DateTime,
    Float,
    Integer,
    Interval,
    any_,
    bindparam,
    cast,
    func,
    literal,
    select,
    true,
    update,
)

from app.extensions import db
from app.models import GpuNow, UsageMinute
from app.services.idle.busy import IS_BOOKED, is_busy

MINUTES = 60  # of a curve
LOOK_BACK = timedelta(hours=6)  # for the last minute with work: who has been idle for longer is so "for over 6 h"

Curve = tuple[int | None, ...]
"""Percent busy by the minute, the oldest first; None where nothing was measured, which is not 0."""

# Put together once: that takes longer than to answer them.
GPUS = bindparam("gpu_ids", type_=ARRAY(Integer))
_FIRST, _LAST = bindparam("first", type_=DateTime(True)), bindparam("last", type_=DateTime(True))
_at = cast(func.date_part("epoch", UsageMinute.minute - _FIRST) / 60, Integer).label("at")
_share = func.round(cast(100 * func.sum(UsageMinute.busy_ms), Float) / func.sum(UsageMinute.sampled_ms))
_shares = (
    select(UsageMinute.gpu_id, _at, cast(func.least(_share, 100), Integer).label("share"))
    .where(UsageMinute.gpu_id == any_(GPUS), UsageMinute.minute >= _FIRST, UsageMinute.minute < _LAST)
    .group_by(UsageMinute.gpu_id, UsageMinute.minute)
    .having(func.sum(UsageMinute.sampled_ms) > 0)
    .subquery()
)
# By GPU, of those that GPUS names; `window` has its other values, and `curve` makes one of a row.
CURVES = (
    select(_shares.c.gpu_id, func.array_agg(_shares.c.at).label("at"), func.array_agg(_shares.c.share).label("share"))
    .group_by(_shares.c.gpu_id)
    .subquery("curves")
)

_asked = (
    func.unnest(GPUS, bindparam("since", type_=ARRAY(DateTime(True))))
    .table_valued("gpu_id", "since", name="asked")
    .render_derived()
)
_here = (UsageMinute.gpu_id == _asked.c.gpu_id, UsageMinute.minute >= _asked.c.since)
_worked = (
    select(UsageMinute.minute)
    .where(*_here, is_busy(UsageMinute.busy_ms, UsageMinute.sampled_ms), IS_BOOKED)
    .order_by(UsageMinute.minute.desc())
    .limit(1)
    .lateral("worked")
)
_after = (
    select(func.sum(UsageMinute.sampled_ms).label("ms"))
    .where(*_here, UsageMinute.minute > func.coalesce(_worked.c.minute, _asked.c.since - timedelta(minutes=1)))
    .lateral("after")
)
_IDLE = select(_asked.c.gpu_id, _after.c.ms).select_from(_asked).outerjoin(_worked, true()).join(_after, true())
_still = (
    select(
        _asked.c.gpu_id,
        func.coalesce(_worked.c.minute + literal(timedelta(minutes=1), Interval), _asked.c.since).label("since"),
        func.coalesce(_after.c.ms, 0).label("ms"),
    )
    .select_from(_asked)
    .outerjoin(_worked, true())
    .join(_after, true())
    .subquery("still")
)
_NOTE = (
    update(GpuNow)
    .where(GpuNow.gpu_id == _still.c.gpu_id)
    .values(still_since=_still.c.since, still_ms=_still.c.ms)
    .execution_options(synchronize_session=False)
)


def window(now: datetime) -> dict[str, datetime]:
    """The last whole minutes, for CURVES."""
    last = now.replace(second=0, microsecond=0)
    return {"first": last - timedelta(minutes=MINUTES), "last": last}


def curve(minutes: Sequence[int] | None, shares: Sequence[int] | None) -> Curve:
    """One of a row of CURVES; all None where there is nothing."""
    found: list[int | None] = [None] * MINUTES
    for minute, share in zip(minutes or (), shares or (), strict=True):
        found[minute] = share
    return tuple(found)


def note_still(gpu_ids: Collection[int], now: datetime) -> None:
    """Write down since when these GPUs have done nothing: when minutes of theirs have come, so that whoever looks need
    not read them."""
    values = {"gpu_ids": list(gpu_ids), "since": [now - LOOK_BACK] * len(gpu_ids)}
    db.session.execute(_NOTE, values)


def idle_since(
    attached: Mapping[int, datetime], still: Mapping[int, tuple[datetime, int]], now: datetime
) -> dict[int, timedelta]:
    """For how long each GPU has done nothing since it was attached: measured time only, no guess for the rest.

    By GPU, LOOK_BACK at most. `still`: what was written down of them, which holds for those that were attached before
    it begins. Of the others their newest minutes are read, back to the first one with work."""
    known = {gpu_id for gpu_id, moment in attached.items() if gpu_id in still and moment <= still[gpu_id][0]}
    found = {gpu_id: timedelta(milliseconds=still[gpu_id][1]) for gpu_id in known}
    rest = {gpu_id: max(moment, now - LOOK_BACK) for gpu_id, moment in attached.items() if gpu_id not in known}
    if rest:
        values = {"gpu_ids": list(rest), "since": list(rest.values())}
        counted = db.session.connection().execute(_IDLE, values)
        found |= {gpu_id: timedelta(milliseconds=int(ms or 0)) for gpu_id, ms in counted}
    return found
