"""What people are told, and by which ways: their choices, and the notices that wait to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from app import clock
from app.extensions import db
from app.models import Channel, Event, Notice, NoticeChoice, User, UserState

MAIL = "mail"
PERSONAL = (
    Event.ENDS_SOON, Event.IDLE, Event.MOVED, Event.OFFERED, Event.QUOTA_LOW, Event.DISK_FULL, Event.SUMMARY,
    Event.MADE, Event.STARTS, Event.ENDED,
)  # fmt: skip
FOR_ADMINS = (Event.WAITING, Event.QUARANTINE, Event.ALARM)
DEFAULT = frozenset(
    {
        Event.ENDS_SOON,
        Event.IDLE,
        Event.MOVED,
        Event.OFFERED,
        Event.QUOTA_LOW,
        Event.DISK_FULL,
        Event.SUMMARY,
        *FOR_ADMINS,
    }
)
# Not a matter of choice: whoever waits for an answer cannot sign in to choose, and a test is asked for.
ALWAYS = frozenset({Event.APPROVED, Event.TEST})
URGENT = frozenset({Event.ENDS_SOON, Event.IDLE, Event.OFFERED, Event.APPROVED, Event.TEST})  # waits for nothing
GATHER = timedelta(minutes=5)  # what is not urgent comes at most so often; what happens meanwhile comes along


@dataclass(frozen=True)
class Telling:
    """One thing that somebody may want to know. `key`: what makes it one, the person apart."""

    event: Event
    key: str
    details: Mapping[str, Any]
    expires_at: datetime | None = None


def offered(user: User) -> tuple[Event, ...]:
    """What this person can choose to be told."""
    return (*PERSONAL, *FOR_ADMINS) if user.is_admin else PERSONAL


def channels_of(user: User) -> list[Channel]:
    """A person's services, oldest first."""
    return list(db.session.scalars(select(Channel).where(Channel.user_id == user.id).order_by(Channel.id)))


def chosen(user: User) -> dict[Event, list[str]]:
    """By which ways the person is told of what: `mail`, and the ids of channels as text."""
    known = [MAIL, *(str(channel.id) for channel in channels_of(user))]
    stored = db.session.get(NoticeChoice, user.id)
    ways = {} if stored is None else stored.ways
    usual = {event: known if event in DEFAULT else [] for event in offered(user)}
    return {event: [way for way in ways.get(event, usual[event]) if way in known] for event in offered(user)}


def choose(user: User, ways: Mapping[Event, Iterable[str]]) -> None:
    """Set by which ways the person is told of what; ways that are not theirs are left out."""
    known = [MAIL, *(str(channel.id) for channel in channels_of(user))]
    wanted = {event.value: [way for way in known if way in set(ways.get(event, ()))] for event in offered(user)}
    _store(user.id, wanted)


def add_way(user: User, channel: Channel) -> None:
    """Take a new channel into what the person chose, where others would have it by default."""
    stored = db.session.get(NoticeChoice, user.id)
    if stored is not None:
        new = str(channel.id)
        _store(user.id, {event: [*ways, new] if event in DEFAULT else ways for event, ways in stored.ways.items()})


def tell(user: User, telling: Telling, *, mail: bool) -> int:
    """Let the person be told by the ways they chose, each once; how many are new. `mail`: the lab has a server."""
    return sum(post(user, telling, way) for way in _reached(user, telling, mail=mail))


def is_told(user: User, telling: Telling, *, mail: bool) -> bool:
    """Whether all that would be told waits or is sent already."""
    keys = [_key(user, telling, way) for way in _reached(user, telling, mail=mail)]
    return len(keys) == (db.session.scalar(select(func.count()).where(Notice.key.in_(keys))) if keys else 0)


def post(user: User, telling: Telling, channel_id: int | None) -> bool:
    """Let one notice wait to be sent; whether it is new."""
    values = {
        "key": _key(user, telling, channel_id),
        "user_id": user.id,
        "channel_id": channel_id,
        "event": telling.event,
        "details": dict(telling.details),
        "due_at": clock.now(),
        "created_at": clock.now(),
        "expires_at": telling.expires_at,
    }
    statement = insert(Notice).values(values).on_conflict_do_nothing(index_elements=["key"]).returning(Notice.id)
    return db.session.scalar(statement) is not None


def latest(user: User, limit: int = 10) -> list[Notice]:
    """The newest of a person's notices, newest first."""
    query = select(Notice).where(Notice.user_id == user.id).order_by(Notice.id.desc()).limit(limit)
    return list(db.session.scalars(query))


def _key(user: User, telling: Telling, channel_id: int | None) -> str:
    return f"{telling.key}:{user.id}:{channel_id or MAIL}"


def _reached(user: User, telling: Telling, *, mail: bool) -> list[int | None]:
    """The channels by which the person hears it; None: by mail."""
    ways = _ways(user, telling.event)
    return [None if way == MAIL else int(way) for way in ways if way != MAIL or (mail and user.email)]


def _ways(user: User, event: Event) -> list[str]:
    if event in ALWAYS:
        return [MAIL, *(str(channel.id) for channel in channels_of(user))] if event != Event.TEST else []
    return chosen(user).get(event, []) if user.state == UserState.ACTIVE else []


def _store(user_id: int, ways: dict[str, list[str]]) -> None:
    statement = insert(NoticeChoice).values(user_id=user_id, ways=ways)
    db.session.execute(
        statement.on_conflict_do_update(index_elements=["user_id"], set_={"ways": statement.excluded.ways})
    )
    stored = db.session.get(NoticeChoice, user_id, populate_existing=True)
    assert stored is not None, "it was written just now"
