"""Sign-ins: one row for each browser that is signed in. The cookie holds a random key, the row its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import bindparam, delete, exists, select, update
from sqlalchemy.orm import contains_eager, with_expression

from app import clock
from app.extensions import db
from app.models import SignIn, TeamMember, User, UserState
from app.services import endings

IDLE = timedelta(hours=8)
ABSOLUTE = timedelta(days=7)
TOUCH_AFTER = timedelta(minutes=5)  # a write for every click would be too many


# Put together once: every page asks it, and that takes longer than to answer it.
_FIND = (
    select(SignIn)
    .join(SignIn.user)
    .where(
        SignIn.key_hash == bindparam("key"),
        SignIn.seen_at > bindparam("seen_after"),
        SignIn.created_at > bindparam("begun_after"),
        User.state == UserState.ACTIVE,
    )
    .options(
        contains_eager(SignIn.user),
        with_expression(SignIn.ends_soon, endings.next_end(SignIn.user_id)),
        with_expression(SignIn.in_a_team, exists().where(TeamMember.user_id == SignIn.user_id)),
    )
    .execution_options(populate_existing=True)
)


def begin(user: User) -> str:
    """Sign a person in; returns the key for the cookie. Sign-ins that have run out are swept on the way."""
    now = clock.now()
    stale = (SignIn.seen_at < now - IDLE) | (SignIn.created_at < now - ABSOLUTE)
    db.session.execute(delete(SignIn).where(SignIn.user_id == user.id, stale))
    key = secrets.token_urlsafe(32)
    db.session.add(SignIn(key_hash=_hash(key), user_id=user.id, created_at=now, seen_at=now))
    user.last_login_at = now
    db.session.flush()
    return key


def find(key: str) -> SignIn | None:
    """The sign-in of a key with its person, in one query; None if it ran out or the person is not active.

    Whether a booking of theirs ends soon and whether they are in a team comes along: pages ask, and the answer is no
    nearly always."""
    now = clock.now()
    values = {"seen_after": now - IDLE, "begun_after": now - ABSOLUTE, "now": now, "soon": now + endings.SOON}
    return db.session.scalar(_FIND, values | {"key": _hash(key)})


def needs_touch(sign_in: SignIn) -> bool:
    """Whether the last sign of life is old enough to be written anew."""
    return clock.now() - sign_in.seen_at > TOUCH_AFTER


def touch(sign_in: SignIn) -> None:
    """Note that the person is still there."""
    db.session.execute(update(SignIn).where(SignIn.id == sign_in.id).values(seen_at=clock.now()))


def end(sign_in: SignIn) -> None:
    """Sign one browser out."""
    db.session.execute(delete(SignIn).where(SignIn.id == sign_in.id))


def end_all(user: User, *, but: SignIn | None = None) -> None:
    """Sign a person out everywhere (but in one browser, if given)."""
    statement = delete(SignIn).where(SignIn.user_id == user.id)
    if but is not None:
        statement = statement.where(SignIn.id != but.id)
    db.session.execute(statement)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
