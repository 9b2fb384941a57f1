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
    SmallInteger,
    bindparam,
    cast,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.extensions import db
from app.models import GpuNow, UsageMinute
from app.services.idle.busy import IS_BOOKED, is_busy

MINUTES = 60  # of a curve
LOOK_BACK = timedelta(hours=6)  # for the last minute with work: who has been idle for longer is so "for over 6 h"
_MINUTE = timedelta(minutes=1)

Curve = tuple[int | None, ...]
"""Percent busy by the minute, the oldest first; None where nothing was measured, which is not 0."""

# Put together once: that takes longer than to answer them.
_FIRST, _LAST = bindparam("first", type_=DateTime(True)), bindparam("last", type_=DateTime(True))
_asked = (
    func.unnest(bindparam("gpu_ids", type_=ARRAY(Integer)), bindparam("since", type_=ARRAY(DateTime(True))))
    .table_valued("gpu_id", "since", name="asked")
    .render_derived()
)
_here = (
    UsageMinute.gpu_id == _asked.c.gpu_id,
    UsageMinute.minute >= _asked.c.since,
    UsageMinute.minute <= bindparam("now", type_=DateTime(True)),  # a host's clock may have been ahead
)
_worked = (
    select(UsageMinute.minute)
    .where(*_here, is_busy(UsageMinute.busy_ms, UsageMinute.sampled_ms), IS_BOOKED)
    .order_by(UsageMinute.minute.desc())
    .limit(1)
    .lateral("worked")
)
_after = (
    select(func.sum(UsageMinute.sampled_ms).label("ms"))
    .where(*_here, UsageMinute.minute > func.coalesce(_worked.c.minute, _asked.c.since - _MINUTE))
    .lateral("after")
)
_IDLE = select(_asked.c.gpu_id, _after.c.ms).select_from(_asked).outerjoin(_worked, true()).join(_after, true())
_minutes = (
    func.generate_series(_FIRST, _LAST, literal(_MINUTE, Interval))
    .table_valued("minute", name="minutes")
    .render_derived()
)
_percent = func.round(cast(100 * func.sum(UsageMinute.busy_ms), Float) / func.sum(UsageMinute.sampled_ms))
_share = (
    select(cast(func.least(_percent, 100), SmallInteger))
    .where(UsageMinute.gpu_id == _asked.c.gpu_id, UsageMinute.minute == _minutes.c.minute)
    .having(func.sum(UsageMinute.sampled_ms) > 0)
    .correlate(_asked, _minutes)
    .scalar_subquery()
)
_hour = (
    select(func.array_agg(aggregate_order_by(_share, _minutes.c.minute)).label("curve"))
    .select_from(_minutes)
    .lateral("hour")
)
_noted = (
    select(
        _asked.c.gpu_id,
        func.coalesce(_worked.c.minute + literal(_MINUTE, Interval), _asked.c.since).label("since"),
        func.coalesce(_after.c.ms, 0).label("ms"),
        _hour.c.curve,
    )
    .select_from(_asked)
    .outerjoin(_worked, true())
    .join(_after, true())
    .join(_hour, true())
    .subquery("noted")
)
_NOTE = (
    update(GpuNow)
    .where(GpuNow.gpu_id == _noted.c.gpu_id)
    .values(still_since=_noted.c.since, still_ms=_noted.c.ms, curve_from=_FIRST, curve=_noted.c.curve)
    .execution_options(synchronize_session=False)
)


def curve(first: datetime | None, shares: Sequence[int | None] | None, now: datetime) -> Curve:
    """The last whole minutes of what was written down, with its `first` minute; what came since then is not known."""
    if first is None or shares is None:
        return (None,) * MINUTES
    gone = (_begin(now) - first) // _MINUTE
    return tuple(shares[at] if 0 <= at < len(shares) else None for at in range(gone, gone + MINUTES))


def _begin(now: datetime) -> datetime:
    """The first minute of a curve that is seen now."""
    return now.replace(second=0, microsecond=0) - MINUTES * _MINUTE


def note(gpu_ids: Collection[int], now: datetime) -> None:
    """Write down the last hour of these GPUs, and since when they have done nothing: when minutes of theirs have come,
    so that whoever looks need not read them. The minute that has not ended is there too: a part of it may have come."""
    first = _begin(now)
    values = {"gpu_ids": sorted(gpu_ids), "since": [now - LOOK_BACK] * len(gpu_ids), "now": now}
    db.session.execute(_NOTE, values | {"first": first, "last": first + MINUTES * _MINUTE})


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
        values = {"gpu_ids": list(rest), "since": list(rest.values()), "now": now}
        counted = db.session.connection().execute(_IDLE, values)
        found |= {gpu_id: timedelta(milliseconds=int(ms or 0)) for gpu_id, ms in counted}
    return found
