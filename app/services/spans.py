"""What the calendar asks the database: GPUs, what is held on them and by whom, and a mark that any change moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Text,
    any_,
    case,
    cast,
    column,
    func,
    literal,
    null,
    or_,
    select,
    true,
    values,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import load_only

from app.extensions import db
from app.models import Allocation, AuditEvent, Block, Booking, Gpu, Host, User, Wait, WaitState
from app.services import maintenance
from app.services.timeline import NOBODY, SOMEBODY, Span, Spans, Waiting

A_MOMENT = timedelta(microseconds=1)
REMEMBERED = 32  # events that make up the mark: one that is committed late still moves it

_newest = select(AuditEvent.id).order_by(AuditEvent.id.desc()).limit(REMEMBERED).subquery()
MARK = select(func.md5(func.string_agg(cast(_newest.c.id, Text), aggregate_order_by(literal(","), _newest.c.id))))


def mark() -> str:
    """Another one after each booking, change of one, or GPU taken out of service; "" while there was none."""
    return db.session.scalar(MARK) or ""


def gpus_and_mark() -> tuple[list[tuple[Gpu, Host]], str]:
    """Every enabled host's GPUs, by host, model and number; and the mark, read with them."""
    every, mark, _nothing = _gpus_with(null())
    return every, mark


def gpus_mark_and_waits(
    viewer: User, start: datetime, end: datetime
) -> tuple[list[tuple[Gpu, Host]], str, list[Waiting]]:
    """The same, and what the viewer waits for in a span; in the one query."""
    wanted = func.jsonb_build_array(
        Wait.id, Wait.starts_at, Wait.ends_at, Wait.count, Wait.model, Wait.host, Wait.gpu_ids
    )
    exact = Wait.starts_at + func.make_interval(0, 0, 0, 0, 0, 0, Wait.seconds) == Wait.ends_at
    own = (Wait.user_id == viewer.id, Wait.state == WaitState.WAITING, Wait.ends_at > start, Wait.starts_at < end)
    query = select(func.jsonb_agg(aggregate_order_by(wanted, Wait.starts_at, Wait.id))).where(*own, exact)
    every, mark, waits = _gpus_with(query.scalar_subquery())
    return every, mark, [_waiting(*one) for one in waits or ()]


def _gpus_with(more: ColumnElement[Any]) -> tuple[list[tuple[Gpu, Host]], str, Any]:
    query = (
        select(Gpu, Host, MARK.scalar_subquery(), more)
        .join(Host)
        .options(load_only(Host.name))  # the rest is long, and in each row
        .where(Host.enabled)
        .order_by(Host.name, Gpu.model, Gpu.minor)
    )
    rows = db.session.execute(query).all()
    every = [(gpu, host) for gpu, host, _mark, _more in rows]
    return every, (rows[0][2] or "") if rows else "", rows[0][3] if rows else None


def _waiting(number: int, start: str, end: str, count: int, model: str, host: str, gpu_ids: list[int]) -> Waiting:
    starts_at, ends_at = (datetime.fromisoformat(moment).astimezone(UTC) for moment in (start, end))
    return Waiting(number, starts_at, ends_at, count, model, host, frozenset(gpu_ids))


def spans(start: datetime, end: datetime, now: datetime, viewer: User, named: Iterable[int] | None = None) -> Spans:
    """By GPU, the allocations that touch a span or run now (for "free now", whichever week is shown), and maintenance.
    `named`: the hosts, by id, whose bookings are shown with their people; on others only the viewer's own are known.

    The range operators are what the overlap constraint's index answers, at any number of stored bookings. Whose they
    are is a query of its own: in a join, PostgreSQL expects far more rows of this one and reads all bookings there are.
    """
    held = func.tstzrange(Allocation.starts_at, Allocation.ends_at)
    query = (
        select(
            Allocation.gpu_id,
            Allocation.booking_id,
            Allocation.starts_at,
            Allocation.ends_at,
            Allocation.attached_at.is_not(None),
        )
        .where(or_(held.op("&&")(func.tstzrange(start, end)), held.op("@>")(now)), Allocation.released_at.is_(None))
        .order_by(Allocation.starts_at)
    )
    rows = db.session.connection().execute(query).all()  # plain rows: thousands, and nothing to keep track of
    owners = _owners({row.booking_id for row in rows}, viewer, named)
    found: dict[int, list[Span]] = defaultdict(list)
    for gpu_id, booking_id, starts_at, ends_at, attached in rows:
        user_id, owner, note, offered = owners.get(booking_id, _UNNAMED)
        found[gpu_id].append(Span(gpu_id, booking_id, starts_at, ends_at, user_id, owner, attached, note, offered))
    for gpu_id, blocks in maintenance.between(min(start, now), max(end, now + A_MOMENT)).items():
        kept = [_kept(block) for block in blocks]
        found[gpu_id] = sorted([*found[gpu_id], *kept], key=lambda span: span.starts_at)
    return found


def _kept(block: Block) -> Span:
    """A time in which a GPU is worked on: nobody's, and without a booking."""
    number, reason = block.maintenance_id, block.maintenance.reason
    return Span(block.gpu_id, -number, block.starts_at, block.ends_at, NOBODY, "", note=reason)


_UNNAMED = (SOMEBODY, "", "", False)


def _owners(booking_ids: set[int], viewer: User, hosts: Iterable[int] | None) -> dict[int, tuple[int, str, str, bool]]:
    """By booking, its person's id, the name that others see, what for, where the viewer may read that, and whether it
    is only offered to the viewer."""
    ids = f"{{{','.join(map(str, booking_ids))}}}"  # as text: psycopg takes a while over a list of hundreds
    note = Booking.note if viewer.is_admin else case((Booking.user_id == viewer.id, Booking.note), else_="")
    offers = select(Wait.booking_id).where(Wait.user_id == viewer.id, Wait.state == WaitState.OFFERED)
    query = (
        select(Booking.id, User.id, User.full_name, User.username, note, Booking.id.in_(offers))
        .join(User, User.id == Booking.user_id)
        .where(Booking.id == any_(cast(literal(ids, Text), ARRAY(BigInteger))))
    )
    if hosts is not None:
        query = query.where(or_(Booking.host_id.in_(hosts), Booking.user_id == viewer.id))
    return {
        booking_id: (user_id, full_name or username, said, offered)
        for booking_id, user_id, full_name, username, said, offered in db.session.connection().execute(query)
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
