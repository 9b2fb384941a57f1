"""What the calendar asks the database: GPUs, what is held on them and by whom, and a mark that any change moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    DateTime,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    false,
    func,
    literal,
    null,
    or_,
    select,
    true,
    type_coerce,
    union_all,
    values,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.extensions import db
from app.models import Allocation, AuditEvent, Block, Booking, Gpu, Host, Maintenance, User, Wait, WaitState
from app.models.base import UtcDateTime
from app.services import maintenance
from app.services.timeline_parts import NOBODY, SOMEBODY, ShownGpu, ShownHost, Span, Spans, Waiting

A_MOMENT = timedelta(microseconds=1)
REMEMBERED = 32  # events that make up the mark: one that is committed late still moves it

_newest = select(AuditEvent.id).order_by(AuditEvent.id.desc()).limit(REMEMBERED).subquery()
MARK = select(func.md5(func.string_agg(cast(_newest.c.id, Text), aggregate_order_by(literal(","), _newest.c.id))))


Owner = tuple[int, str, str, bool]
"""Whose a booking is, by id; the name that others see; what for; whether it is only offered to the viewer."""
_UNNAMED: Owner = (SOMEBODY, "", "", False)

# What every page of the calendar asks is put together once: that takes longer than to answer it. Rows are plain ones,
# with the driver's own moments: there are thousands, and nothing to keep track of.
_viewer, _gpu_of = bindparam("viewer", type_=BigInteger), (Host.id, Host.name, Gpu.id, Gpu.model, Gpu.minor, Gpu.state)
_start, _end, _now = (bindparam(name, type_=UtcDateTime()) for name in ("start", "end", "now"))
_GPUS = (
    select(*_gpu_of, MARK.scalar_subquery(), null())
    .join(Host, Host.id == Gpu.host_id)
    .where(Host.enabled)
    .order_by(Host.name, Gpu.model, Gpu.minor)
)
_wait = func.jsonb_build_array(Wait.id, Wait.starts_at, Wait.ends_at, Wait.count, Wait.model, Wait.host, Wait.gpu_ids)
_waits = select(func.jsonb_agg(aggregate_order_by(_wait, Wait.starts_at, Wait.id))).where(
    Wait.user_id == _viewer,
    Wait.state == WaitState.WAITING,
    Wait.ends_at > _start,
    Wait.starts_at < _end,
    Wait.starts_at + func.make_interval(0, 0, 0, 0, 0, 0, Wait.seconds) == Wait.ends_at,  # an exact time
)
_GPUS_AND_WAITS = _GPUS.with_only_columns(*_gpu_of, MARK.scalar_subquery(), _waits.scalar_subquery())

# The range operators are what the overlap constraint's index answers, at any number of stored bookings. Whose they are
# is a query of its own: in a join, PostgreSQL expects far more rows of this one and reads all bookings there are.
_held = func.tstzrange(Allocation.starts_at, Allocation.ends_at)
_moment = partial(type_coerce, type_=DateTime(timezone=True))
_ALLOCATED = select(
    Allocation.gpu_id,
    Allocation.booking_id,
    _moment(Allocation.starts_at).label("starts_at"),
    _moment(Allocation.ends_at),
    Allocation.attached_at.is_not(None),
    literal(""),
).where(
    or_(_held.op("&&")(func.tstzrange(_start, _end)), _held.op("@>")(_now)),
    Allocation.released_at.is_(None),
)
_KEPT = maintenance.BETWEEN.with_only_columns(
    Block.gpu_id, -Block.maintenance_id, _moment(Block.starts_at), _moment(Block.ends_at), false(), Maintenance.reason
)
_HELD = union_all(_ALLOCATED, _KEPT).order_by("starts_at").execution_options(binary=True)
_OWNERS = (
    select(
        Booking.id,
        User.id,
        User.full_name,
        User.username,
        case((or_(bindparam("all_notes", type_=Boolean), Booking.user_id == _viewer), Booking.note), else_=""),
        Booking.id.in_(select(Wait.booking_id).where(Wait.user_id == _viewer, Wait.state == WaitState.OFFERED)),
    )
    .join(User, User.id == Booking.user_id)
    .where(
        or_(
            Booking.id == any_(cast(bindparam("ids", type_=Text), ARRAY(BigInteger))),
            and_(Booking.user_id == _viewer, Booking.ends_at.between(bindparam("first_end"), bindparam("last_end"))),
        )
    )
)


def mark() -> str:
    """Another one after each booking, change of one, or GPU taken out of service; "" while there was none."""
    return db.session.scalar(MARK) or ""


def gpus_and_mark() -> tuple[list[tuple[ShownGpu, ShownHost]], str]:
    """Every enabled host's GPUs, by host, model and number; and the mark, read with them."""
    every, mark, _nothing = _gpus_with(_GPUS, {})
    return every, mark


def gpus_mark_and_waits(
    viewer: User, start: datetime, end: datetime
) -> tuple[list[tuple[ShownGpu, ShownHost]], str, list[Waiting]]:
    """The same, and what the viewer waits for in a span; in the one query."""
    every, mark, waits = _gpus_with(_GPUS_AND_WAITS, {"viewer": viewer.id, "start": start, "end": end})
    return every, mark, [_waiting(*one) for one in waits or ()]


def _gpus_with(query: Select[Any], values: dict[str, Any]) -> tuple[list[tuple[ShownGpu, ShownHost]], str, Any]:
    rows = db.session.connection().execute(query, values).all()
    hosts = {row[0]: ShownHost(*row[:2]) for row in rows}
    every = [(ShownGpu(*row[2:6]), hosts[row[0]]) for row in rows]
    return every, (rows[0][6] or "") if rows else "", rows[0][7] if rows else None


def _waiting(number: int, start: str, end: str, count: int, model: str, host: str, gpu_ids: list[int]) -> Waiting:
    starts_at, ends_at = (datetime.fromisoformat(moment).astimezone(UTC) for moment in (start, end))
    return Waiting(number, starts_at, ends_at, count, model, host, frozenset(gpu_ids))


def spans(start: datetime, end: datetime, now: datetime, viewer: User, named: Container[int]) -> Spans:
    """By GPU, the allocations that touch a span or run now (for "free now", whichever week is shown), and maintenance.
    `named`: the GPUs, by id, whose bookings are shown with their people; on others only the viewer's own are known.
    """
    rows = _held_rows(start, end, now)
    return _by_gpu(rows, _owners(rows, viewer, named))


def held(start: datetime, end: datetime) -> Spans:
    """By GPU, the same that touch a span, whosever they are: nobody is named."""
    return _by_gpu(_held_rows(start, end, start), {})


def _held_rows(start: datetime, end: datetime, now: datetime) -> Sequence[Any]:
    times = {"start": start, "end": end, "now": now, "since": min(start, now), "until": max(end, now + A_MOMENT)}
    rows = db.session.connection().execute(_HELD, times).all()
    if rows and rows[0][2].tzinfo is not UTC:  # a server that has another zone: two of one zone compare by its clock
        return [(*row[:2], row[2].astimezone(UTC), row[3].astimezone(UTC), *row[4:]) for row in rows]
    return rows


def _by_gpu(rows: Iterable[Any], owners: Mapping[int, Owner]) -> Spans:
    """Of times of maintenance, whose number is negative, the row says why."""
    found: dict[int, list[Span]] = defaultdict(list)
    for gpu_id, number, starts_at, ends_at, attached, reason in rows:
        user_id, owner, note, offered = owners.get(number, _UNNAMED) if number > 0 else (NOBODY, "", reason, False)
        found[gpu_id].append(_new_span((gpu_id, number, starts_at, ends_at, user_id, owner, note, offered, attached)))
    return found


_new_span = partial(tuple.__new__, Span)  # by the thousand: half the time of Span(…)


def _owners(rows: Sequence[Any], viewer: User, named: Container[int]) -> dict[int, Owner]:
    """By booking, its person's id, the name that others see, what for, where the viewer may read that, and whether it
    is only offered to the viewer."""
    if not rows:
        return {}
    ids = {number for gpu_id, number, _, _, _, _ in rows if gpu_id in named and number > 0}
    ends = [ends_at for _, _, _, ends_at, _, _ in rows]  # a booking ends as what it holds does, so its own lie in there
    values = {
        "viewer": viewer.id,
        "all_notes": viewer.is_admin,
        "ids": f"{{{','.join(map(str, ids))}}}",  # as text: psycopg takes a while over a list of hundreds
        "first_end": min(ends),
        "last_end": max(ends),
    }
    found = db.session.connection().execute(_OWNERS, values).all()
    return {
        booking_id: (user_id, full_name or username, said, offered)
        for booking_id, user_id, full_name, username, said, offered in found
    }


def start_of(booking_id: int) -> datetime | None:
    """When anybody's booking begins; None if there is none, or it was cancelled."""
    query = select(Booking.starts_at).where(Booking.id == booking_id, Booking.cancelled_at.is_(None))
    return db.session.scalar(query)


def own_bookings(viewer: User, start: datetime, end: datetime) -> list[int]:
    """Numbers of a person's bookings that share a moment with a span."""
    query = select(Booking.id).where(
        Booking.user_id == viewer.id, Booking.cancelled_at.is_(None), Booking.starts_at < end, Booking.ends_at > start
    )
    return list(db.session.scalars(query))


def held_by_day(
    edges: Sequence[datetime], own: Sequence[int], *, own_only: bool
) -> dict[tuple[int, int], tuple[int, bool]]:
    """By GPU and number of the day (between two edges): seconds booked of it, and whether by one of `own`.

    Added up by the database: a full month has more bookings than a page could read in time.
    """
    days = values(column("day", BigInteger), column("since", DateTime(True)), column("until", DateTime(True))).data(
        [(number, since, until) for number, (since, until) in enumerate(pairwise(edges))]
    )
    span = days.alias("days")
    mine = Allocation.booking_id == any_(literal(list(own), ARRAY(BigInteger)))
    query = (
        select(
            Allocation.gpu_id,
            span.c.day,
            cast(
                func.sum(
                    func.extract(
                        "epoch",
                        func.least(Allocation.ends_at, span.c.until)
                        - func.greatest(Allocation.starts_at, span.c.since),
                    )
                ),
                BigInteger,
            ),
            func.bool_or(mine),
        )
        .join(
            span,
            func.tstzrange(Allocation.starts_at, Allocation.ends_at).op("&&")(
                func.tstzrange(span.c.since, span.c.until)
            ),
        )
        .where(Allocation.released_at.is_(None), mine if own_only else true())
        .group_by(Allocation.gpu_id, span.c.day)
    )
    return {(gpu_id, day): (seconds, own_one) for gpu_id, day, seconds, own_one in db.session.execute(query)}
