"""Bookings to which nobody came: no machine took their GPUs, or nobody ever used them, and the rest was given back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TypeVarTuple

from sqlalchemy import Integer, Select, bindparam, func, or_, select
from sqlalchemy.orm import load_only

from app.extensions import db
from app.models import Account, Allocation, AuditEvent, Booking, Host, User
from app.services.idle.steps import RECLAIMED
from app.services.noshows import NO_SHOW
from app.services.reports import targets
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span

NO_MACHINE, UNUSED = "no-machine", "unused"


Ts = TypeVarTuple("Ts")


@dataclass(frozen=True)
class Absence:
    """One such booking. `why`: NO_MACHINE or UNUSED. `given_back`: GPU-seconds that others could have."""

    at: datetime
    user: User
    account: Account
    host: str
    booking: Booking
    gpus: int
    why: str

    @property
    def given_back(self) -> float:
        """From its end to the one that was booked."""
        return self.gpus * (self.booking.booked_until - self.booking.ends_at).total_seconds()


_BOOKING = targets.number("booking")
_GPUS = select(func.count()).where(Allocation.booking_id == Booking.id).correlate(Booking).scalar_subquery()
_WHO = load_only(User.username, User.full_name)


def counted(span: Span, scope: Scope) -> tuple[tuple[User, int], ...]:
    """Who did not come how often, most first."""
    rows = db.session.execute(_counting(tuple(scope.values)), targets.values(span, scope))
    return tuple((user, count) for user, count in rows)


def newest(span: Span, scope: Scope, limit: int) -> list[Absence]:
    """So many of them, the last first."""
    rows = db.session.execute(_listing(tuple(scope.values)), targets.values(span, scope) | {"most": limit})
    return [
        Absence(at, user, account, host, booking, gpus, NO_MACHINE if action == NO_SHOW else UNUSED)
        for at, action, user, account, host, booking, gpus in rows
    ]


@cache
def _counting(names: tuple[str, ...]) -> Select[User, int]:
    number = func.count()
    query = _among(select(User, number).options(_WHO), names)
    return query.group_by(User.id).order_by(number.desc(), User.username)


@cache
def _listing(names: tuple[str, ...]) -> Select[datetime, str, User, Account, str, Booking, int]:
    columns = select(AuditEvent.created_at, AuditEvent.action, User, Account, Host.name, Booking, _GPUS)
    return (
        _among(columns, names)
        .join(Account, Account.id == Booking.account_id)
        .join(Host, Host.id == Booking.host_id)
        .order_by(AuditEvent.created_at.desc(), AuditEvent.id)
        .options(_WHO, load_only(Account.name), load_only(Booking.starts_at, Booking.ends_at, Booking.booked_until))
        .limit(bindparam("most", type_=Integer))
    )


def _among(query: Select[*Ts], names: tuple[str, ...]) -> Select[*Ts]:
    """Those of a span and a scope; from the events on, of which there are few, to their bookings and people."""
    absent = or_(AuditEvent.action == NO_SHOW, AuditEvent.details["absent"].as_boolean())
    return (
        query.select_from(AuditEvent)
        .join(Booking, Booking.id == _BOOKING)
        .join(User, User.id == Booking.user_id)
        .where(AuditEvent.action.in_((NO_SHOW, RECLAIMED)), absent, ~Booking.unasked)  # to a rest nobody had to come
        .where(*targets.within(names))
    )
