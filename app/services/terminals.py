"""Who may open a terminal in which machine, and whether it may stay open."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.orm import aliased

from app import clock
from app.errors import RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, Role, SignIn, Terminal, User, UserState
from app.services import audit, signins

TICKET_LIFE = timedelta(seconds=30)
KEPT = timedelta(days=1)  # how long a terminal may be open, and how long a ticket that was never used is kept
AT_ONCE = 5  # terminals of one person
LOST = timedelta(minutes=1)  # so long unconfirmed, a terminal is not open any more, whatever its row says


@dataclass(frozen=True)
class Opening:
    """A terminal that may be opened. `owner`: the machine's, `person`: who opens it."""

    id: int
    instance: str
    owner: str
    person: str


def ticket(sign_in: SignIn, instance: Instance, origin: str) -> str:
    """A ticket for one terminal, good once and for half a minute. Raises RuleRefused for one too many."""
    now = clock.now()
    mine = Terminal.sign_in_id.in_(select(SignIn.id).where(SignIn.user_id == sign_in.user_id))
    db.session.execute(delete(Terminal).where(mine, Terminal.created_at < now - KEPT))
    is_open = (Terminal.closed_at.is_(None), Terminal.seen_at > now - LOST)
    waiting = (Terminal.opened_at.is_(None), Terminal.created_at > now - TICKET_LIFE)
    count = db.session.scalar(select(func.count()).where(mine, or_(_all(*is_open), _all(*waiting)))) or 0
    if count >= AT_ONCE:
        raise RuleRefused(
            _("You have %(count)s terminals open.", count=count), _("Close one of them, or wait half a minute.")
        )
    key = secrets.token_urlsafe(32)
    made = Terminal(ticket_hash=_hash(key), sign_in_id=sign_in.id, instance_id=instance.id, origin=origin)
    made.created_at = now
    db.session.add(made)
    db.session.flush()
    return key


def is_awaited(host: Host, origin: str) -> bool:
    """Whether a page of that origin holds a ticket for a machine of the host: no other may even connect."""
    query = select(Terminal.id).join(Instance).where(
        Instance.host_id == host.id, Terminal.origin == origin, *_unused(), *_instance_is_there()
    )  # fmt: skip
    return db.session.scalar(query.limit(1)) is not None


def redeem(host: Host, key: str, origin: str) -> Opening | None:
    """Use a ticket; None for one that is used, too old, of another origin or host, or whose person lost the right."""
    now = clock.now()
    statement = (
        update(Terminal)
        .where(Terminal.ticket_hash == _hash(key), Terminal.origin == origin, *_unused())
        .values(opened_at=now, seen_at=now)
        .returning(Terminal.id)
    )
    number = db.session.scalar(statement)
    if number is None:
        return None
    row = db.session.execute(_rightful(number).where(Instance.host_id == host.id)).one_or_none()
    if row is None:
        return None
    found = Opening(number, *row)
    audit.record(found.person, "terminal.opened", f"instance:{found.instance}", terminal=number)
    return found


def may_stay(number: int) -> bool:
    """Whether an open terminal may stay open: signed in still, the machine still theirs (or they an admin)."""
    if db.session.execute(_rightful(number)).one_or_none() is None:
        return False
    db.session.execute(update(Terminal).where(Terminal.id == number).values(seen_at=clock.now()))
    return True


def close(opening: Opening, why: str, seconds: float) -> None:
    """Note that a terminal was closed."""
    statement = update(Terminal).where(Terminal.id == opening.id).values(closed_at=clock.now())
    db.session.execute(statement)
    target = f"instance:{opening.instance}"
    audit.record(opening.person, "terminal.closed", target, terminal=opening.id, why=why, seconds=round(seconds))


def serve_at(host: Host, url: str) -> None:
    """Keep where the host's agent serves terminals."""
    host.terminal_url = url
    db.session.flush()


def _rightful(number: int) -> Select[str, str, str]:
    now, owner = clock.now(), aliased(User)
    return (
        select(Instance.name, owner.username, User.username)
        .select_from(Terminal)
        .join(SignIn, Terminal.sign_in_id == SignIn.id)
        .join(User, SignIn.user_id == User.id)
        .join(Instance, Terminal.instance_id == Instance.id)
        .join(owner, Instance.owner_id == owner.id)
        .where(
            Terminal.id == number,
            Terminal.closed_at.is_(None),
            Terminal.created_at > now - KEPT,
            SignIn.seen_at > now - signins.IDLE,
            SignIn.created_at > now - signins.ABSOLUTE,
            User.state == UserState.ACTIVE,
            or_(Instance.owner_id == User.id, User.role == Role.ADMIN),
            *_instance_is_there(),
        )
    )


def _unused() -> tuple[ColumnElement[bool], ...]:
    return Terminal.opened_at.is_(None), Terminal.created_at > clock.now() - TICKET_LIFE


def _instance_is_there() -> tuple[ColumnElement[bool], ...]:
    return (Instance.deleted_at.is_(None),)


def _all(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    found = conditions[0]
    for condition in conditions[1:]:
        found = found & condition
    return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
