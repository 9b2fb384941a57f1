"""Whose booking is about to be given back for doing nothing, and whether they were told.

Every page asks for the first, and the answer is no nearly always."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute, joinedload, selectinload

from app import clock
from app.extensions import db
from app.models import Booking, Event, Host, Idling, Notice, Outcome, User
from app.models.base import UtcDateTime


@dataclass(frozen=True)
class ForMachine:
    """What a machine is told of its booking's GPUs. `locale`, `timezone`: its owner's, "" for the lab's."""

    id: int
    booking_id: int
    gpus: int
    since: datetime
    due_at: datetime
    absent: bool
    locale: str
    timezone: str


def first_due(user_id: InstrumentedAttribute[int]) -> ScalarSelect[datetime]:
    """When the first of a person's running bookings is given back, if they were told of one; a part of a query that has
    the person's id, and is given `now`."""
    found = select(func.min(Idling.due_at)).join(Booking, Booking.id == Idling.booking_id)
    return found.where(Booking.user_id == user_id, *_open(bindparam("now", type_=UtcDateTime()))).scalar_subquery()


def of(user: User) -> list[Idling]:
    """What the person was told of and can still answer, what is due first before the rest; with its booking."""
    query = _told(Booking.user_id == user.id, Booking.host).order_by(Idling.due_at, Idling.id)
    return list(db.session.scalars(query))


def on(host: Host) -> list[ForMachine]:
    """All of the host's, for who has no page open."""
    query = _told(Booking.host_id == host.id, Booking.user).order_by(Idling.id)
    return [
        ForMachine(
            one.id, one.booking_id, len(one.booking.allocations), one.since, one.due_at, one.absent,
            one.booking.user.locale, one.booking.user.timezone,
        )
        for one in db.session.scalars(query)
    ]  # fmt: skip


def unheard(user: User, found: Idling) -> bool:
    """Whether none of the messages about this one has gone out: mail is down, say. Where that was so once before for
    the same booking it counts as heard: a way that never works keeps no GPU, and every page of theirs says it."""
    due_at = Notice.details["due_at"].astext
    query = (
        select(due_at, func.count(Notice.sent_at))
        .where(Notice.user_id == user.id, Notice.event == Event.IDLE)
        .where(Notice.details["action"].astext == "booking.idle_warned")
        .where(Notice.details["booking"].as_integer() == found.booking_id)
        .group_by(due_at)
    )
    silent = [due for due, sent in db.session.execute(query) if not sent]
    return silent == [found.due_at.isoformat()]


def _told(whose: ColumnElement[bool], shown: InstrumentedAttribute[Any]) -> Select[Idling]:
    """Those of which somebody was told, with their bookings' GPUs and what else is `shown` of these."""
    loaded = joinedload(Idling.booking).options(joinedload(shown), selectinload(Booking.allocations))
    return select(Idling).join(Idling.booking).where(whose, *_open(clock.now())).options(loaded)


def _open(now: datetime | ColumnElement[datetime]) -> tuple[ColumnElement[bool], ...]:
    return Idling.outcome == Outcome.OPEN, ~Idling.trial, Booking.released_at.is_(None), Booking.ends_at > now
