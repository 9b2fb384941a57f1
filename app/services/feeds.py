"""Secret addresses of calendars: whoever knows one may read it and nothing else. Shown once, stored as a SHA-256."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Feed, Host, User, UserState
from app.services import audit
from app.services.accounts import one_line

MOST = 10  # of one person
NAME_LENGTH = 64
_FORM = re.compile(r"[A-Za-z0-9_-]{43}")
_TOUCH_EVERY = timedelta(minutes=5)


def create(user: User, name: str, host: Host | None, locale: str) -> tuple[Feed, str]:
    """Make an address of one's own bookings, or of a host's; returns its secret part, which nobody can see again."""
    count = db.session.scalar(select(func.count()).where(Feed.user_id == user.id)) or 0
    if count >= MOST:
        raise RuleRefused(_("You have %(max)s addresses already.", max=MOST), _("Withdraw one first."), rule="feeds")
    secret = secrets.token_urlsafe(32)
    feed = Feed(
        user_id=user.id,
        host_id=host.id if host else None,
        name=one_line(name, "name", NAME_LENGTH) or (host.name if host else user.username),
        token_hash=digest(secret),
        locale=locale,
    )
    db.session.add(feed)
    db.session.flush()
    audit.record(user.username, "feed.created", f"feed:{feed.id}", name=feed.name, host=host.name if host else "")
    return feed, secret


def list_of(user: User) -> list[Feed]:
    """A person's addresses, newest first."""
    return list(db.session.scalars(select(Feed).where(Feed.user_id == user.id).order_by(Feed.id.desc())))


def get(user: User, feed_id: int) -> Feed:
    """One of the person's addresses. Raises NotFound."""
    feed = db.session.scalar(select(Feed).where(Feed.id == feed_id, Feed.user_id == user.id))
    if feed is None:
        raise NotFound(_("There is no address %(id)s of yours.", id=feed_id))
    return feed


def withdraw(user: User, feed_id: int) -> Feed:
    """Make an address worthless, at once."""
    feed = get(user, feed_id)
    db.session.delete(feed)
    db.session.flush()
    audit.record(user.username, "feed.withdrawn", f"feed:{feed.id}", name=feed.name)
    return feed


def find(secret: str) -> Feed:
    """What a secret opens, with its person. Raises NotFound, the same for whatever is wrong with it."""
    query = select(Feed).where(Feed.token_hash == digest(secret)).options(joinedload(Feed.user))
    feed = db.session.scalar(query) if _FORM.fullmatch(secret) else None
    if feed is None or feed.user.state != UserState.ACTIVE:
        raise NotFound(_("There is no such calendar."), _("Make a new address under Settings."))
    return feed


def touch(feed: Feed) -> None:
    """Write down that it was read; not more often than every five minutes."""
    now = clock.now()
    if feed.last_used_at is None or now - feed.last_used_at >= _TOUCH_EVERY:
        db.session.execute(update(Feed).where(Feed.id == feed.id).values(last_used_at=now))


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
