"""Everybody, as admins see them: who waits, and a list to search."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import joinedload

from app import clock
from app.extensions import db
from app.models import Instance, Role, User, UserState
from app.services import quota, statement

PAGE = 50


@dataclass(frozen=True)
class Row:
    """One person in the list; `used` of this month, in GPU-seconds."""

    user: User
    used: int
    machines: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """One page of the list, and how many people match in all."""

    rows: list[Row]
    total: int


def waiting() -> list[User]:
    """Who waits for approval, the longest first."""
    query = select(User).where(User.state == UserState.PENDING).order_by(User.created_at, User.id)
    return list(db.session.scalars(query))


def search(zone: ZoneInfo, text: str = "", state: UserState | None = None, page: int = 1) -> Listing:
    """People whose username, name or e-mail holds the text, by username."""
    where: list[ColumnElement[bool]] = [] if state is None else [User.state == state]
    if text.strip():
        where.append(
            func.concat_ws(" ", User.username, User.full_name, User.email).icontains(text.strip(), autoescape=True)
        )
    total = db.session.scalar(select(func.count()).select_from(User).where(*where)) or 0
    query = select(User).where(*where).options(joinedload(User.account)).order_by(User.username)
    users = list(db.session.scalars(query.offset((page - 1) * PAGE).limit(PAGE)))
    since = quota.month_start(clock.now(), zone)
    used = statement.used_since([user.account_id for user in users if user.account_id], since)
    machines = _machines([user.id for user in users])
    return Listing([Row(user, used.get(user.account_id or 0, 0), machines.get(user.id, ())) for user in users], total)


def admins() -> list[User]:
    """Who looks after the lab, for people who need to ask."""
    query = select(User).where(User.role == Role.ADMIN, User.state == UserState.ACTIVE).order_by(User.username)
    return list(db.session.scalars(query))


def usernames(user_ids: Iterable[int]) -> dict[int, str]:
    """These people's usernames."""
    return {user.id: user.username for user in db.session.scalars(select(User).where(User.id.in_(list(user_ids))))}


def _machines(user_ids: list[int]) -> dict[int, tuple[str, ...]]:
    query = (
        select(Instance.owner_id, func.array_agg(Instance.name))
        .where(Instance.owner_id.in_(user_ids), Instance.deleted_at.is_(None))
        .group_by(Instance.owner_id)
    )
    return {owner_id: tuple(sorted(names)) for owner_id, names in db.session.execute(query)}
