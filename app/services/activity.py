"""What the last minutes of GPUs were: a curve of the last hour, and for how long one has done nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, DateTime, Integer, any_, func, literal, select, true

from app.extensions import db
from app.models import UsageMinute
from app.services.idle.busy import IS_BOOKED, is_busy

MINUTES = 60  # of a curve
LOOK_BACK = timedelta(hours=6)  # for the last minute with work: who has been idle for longer is so "for over 6 h"

Curve = tuple[int | None, ...]
"""Percent busy by the minute, the oldest first; None where nothing was measured, which is not 0."""


def curves(gpu_ids: Collection[int], now: datetime) -> dict[int, Curve]:
    """The last whole minutes of each of these GPUs; all None where there is nothing."""
    last = now.replace(second=0, microsecond=0)
    first = last - timedelta(minutes=MINUTES)
    ids = literal(list(gpu_ids), ARRAY(Integer))
    query = (
        select(
            UsageMinute.gpu_id,
            UsageMinute.minute,
            func.sum(UsageMinute.sampled_ms),
            func.sum(UsageMinute.busy_ms),
        )
        .where(UsageMinute.gpu_id == any_(ids), UsageMinute.minute >= first, UsageMinute.minute < last)
        .group_by(UsageMinute.gpu_id, UsageMinute.minute)
    )
    found: dict[int, list[int | None]] = defaultdict(lambda: [None] * MINUTES)
    for gpu_id, minute, sampled, busy in db.session.execute(query) if gpu_ids else ():
        if sampled:
            found[gpu_id][(minute - first) // timedelta(minutes=1)] = min(100, round(100 * busy / sampled))
    return {gpu_id: tuple(found[gpu_id]) for gpu_id in gpu_ids}


def idle_since(attached: Mapping[int, datetime], now: datetime) -> dict[int, timedelta]:
    """For how long each GPU has done nothing since it was attached: measured time only, no guess for the rest.

    By GPU, LOOK_BACK at most. A scan of its newest minutes that ends at the first one with work."""
    floor = now - LOOK_BACK
    if not attached:
        return {}
    since = [max(moment, floor) for moment in attached.values()]
    arrays = literal(list(attached), ARRAY(Integer)), literal(since, ARRAY(DateTime(True)))
    asked = func.unnest(*arrays).table_valued("gpu_id", "since", name="asked").render_derived()
    here = (UsageMinute.gpu_id == asked.c.gpu_id, UsageMinute.minute >= asked.c.since)
    last = (
        select(UsageMinute.minute)
        .where(*here, is_busy(UsageMinute.busy_ms, UsageMinute.sampled_ms), IS_BOOKED)
        .order_by(UsageMinute.minute.desc())
        .limit(1)
        .lateral("last")
    )
    after = (
        select(func.sum(UsageMinute.sampled_ms).label("ms"))
        .where(*here, UsageMinute.minute > func.coalesce(last.c.minute, asked.c.since - timedelta(minutes=1)))
        .lateral("after")
    )
    query = select(asked.c.gpu_id, after.c.ms).select_from(asked).outerjoin(last, true()).join(after, true())
    return {gpu_id: timedelta(milliseconds=int(ms or 0)) for gpu_id, ms in db.session.execute(query)}
