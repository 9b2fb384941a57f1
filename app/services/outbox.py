"""Notices on their way out: what goes next, what became of it, and what could not be sent.

One postman sends at a time (see workers.postman), so what was claimed and neither sent nor failed was under way when it
was killed, and is claimed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, not_, or_, select, update
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Channel, Event, Notice
from app.services import audit
from app.services.notices import GATHER, URGENT

# Waits after the first, second … attempt that failed; after the last one it is given up.
WAITS = tuple(timedelta(seconds=s) for s in (30, 120, 480, 1800, 7200, 21600))
KEEP = timedelta(days=70)  # longer than anything is found due again: a month's quota
MOST = 1000  # notices in one message; the words name the first of them
EXPIRED, NO_WAY = "expired", "no_way"

Way = tuple[int, int | None]
"""A person and one of their channels, None for e-mail."""


@dataclass(frozen=True)
class Batch:
    """What goes to one person by one way as one message."""

    way: Way
    notices: Sequence[Notice]


def claim(limit: int = 8) -> list[Batch]:
    """The next messages, an attempt counted for each: a notice that kills the sender does so a few times only."""
    now = clock.now()
    _expire(now)
    batches = [Batch(way, _of_way(way, now)) for way in _ready(now, limit)]
    for notice in (notice for batch in batches for notice in batch.notices):
        notice.attempts += 1
    db.session.flush()
    return batches


def sent(batch: Batch) -> None:
    """It was taken; its way works."""
    now = clock.now()
    _update(batch, sent_at=now, trouble="")
    _note_trouble(batch, "")


def failed(batch: Batch, trouble: str, *, final: bool) -> None:
    """It was not taken, for `trouble` (a code). It is tried again, unless that is `final` or it was the last time."""
    now = clock.now()
    for notice in batch.notices:
        over = final or notice.attempts > len(WAITS)
        wait = WAITS[min(notice.attempts, len(WAITS)) - 1]
        values = {"given_up_at": now} if over else {"due_at": now + wait}
        db.session.execute(update(Notice).where(Notice.id == notice.id).values(trouble=trouble[:200], **values))
    _note_trouble(batch, trouble[:200])


def given_up(limit: int = 100) -> list[Notice]:
    """What could not be sent, the newest first, with its person and channel."""
    query = (
        select(Notice)
        .where(Notice.given_up_at.is_not(None), Notice.trouble != EXPIRED)
        .options(joinedload(Notice.user), joinedload(Notice.channel))
        .order_by(Notice.given_up_at.desc(), Notice.id.desc())
        .limit(limit)
    )
    return list(db.session.scalars(query))


def count_given_up(since: datetime | None = None) -> int:
    """How many could not be sent, or were given up since then."""
    query = select(func.count()).where(Notice.given_up_at.is_not(None), Notice.trouble != EXPIRED)
    return db.session.scalar(query if since is None else query.where(Notice.given_up_at > since)) or 0


def again(actor: str, notice_id: int) -> Notice:
    """Try once more to send one that was given up. Raises NotFound."""
    notice = _given_up(notice_id)
    notice.given_up_at, notice.attempts, notice.due_at, notice.expires_at = None, 0, clock.now(), None
    db.session.flush()
    audit.record(actor, "notice.tried_again", f"notice:{notice.id}")
    return notice


def drop(actor: str, notice_id: int) -> None:
    """Forget one that was given up. Raises NotFound."""
    notice = _given_up(notice_id)
    audit.record(actor, "notice.dropped", f"notice:{notice.id}", event=notice.event)
    notice.trouble = EXPIRED  # its key stays: it is not made again
    db.session.flush()


def tidy() -> int:
    """Delete what was sent or given up long ago; how many."""
    old = clock.now() - KEEP
    for_good = (Notice.event == Event.QUOTA_LOW) & Notice.expires_at.is_(None)  # low until new hours come, whenever
    over = or_(Notice.sent_at < old, Notice.given_up_at < old)
    statement = delete(Notice).where(over, not_(for_good)).returning(Notice.id)
    return len(db.session.scalars(statement).all())


def _given_up(notice_id: int) -> Notice:
    query = select(Notice).where(Notice.id == notice_id, Notice.given_up_at.is_not(None)).with_for_update()
    found = db.session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound(_("There is no message %(id)s that could not be sent.", id=notice_id))
    return found


def _expire(now: datetime) -> None:
    open_ones = (Notice.sent_at.is_(None), Notice.given_up_at.is_(None))
    late = update(Notice).where(*open_ones, Notice.expires_at <= now)
    db.session.execute(late.values(given_up_at=now, trouble=EXPIRED))
    # Claimed again and again, and never heard of: it is what the sender dies of.
    deadly = update(Notice).where(*open_ones, Notice.attempts > len(WAITS) + 1)
    db.session.execute(deadly.values(given_up_at=now, trouble="died"))


def _ready(now: datetime, limit: int) -> list[Way]:
    """The ways on which something goes now. One that had a message lately waits, unless something is urgent."""
    lately = (
        select(Notice.user_id, Notice.channel_id, func.max(Notice.sent_at).label("at"))
        .where(Notice.sent_at > now - GATHER)
        .group_by(Notice.user_id, Notice.channel_id)
        .subquery()
    )
    same = (lately.c.user_id == Notice.user_id) & lately.c.channel_id.is_not_distinct_from(Notice.channel_id)
    query = (
        select(Notice.user_id, Notice.channel_id)
        .outerjoin(lately, same)
        .where(*_due(now))
        .group_by(Notice.user_id, Notice.channel_id)
        .having(or_(func.max(lately.c.at).is_(None), func.bool_or(Notice.event.in_(URGENT))))
        .order_by(func.min(Notice.due_at), Notice.user_id, Notice.channel_id)
        .limit(limit)
    )
    return [(person, channel) for person, channel in db.session.execute(query)]


def _of_way(way: Way, now: datetime) -> Sequence[Notice]:
    query = (
        select(Notice)
        .where(Notice.user_id == way[0], Notice.channel_id.is_not_distinct_from(way[1]), *_due(now))
        .options(joinedload(Notice.user, innerjoin=True), joinedload(Notice.channel))
        .order_by(Notice.id)
        .limit(MOST)
        .with_for_update(of=Notice)
    )
    return db.session.scalars(query.execution_options(populate_existing=True)).all()


def _due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Notice.sent_at.is_(None), Notice.given_up_at.is_(None), Notice.due_at <= now


def _update(batch: Batch, **values: object) -> None:
    ids = [notice.id for notice in batch.notices]
    db.session.execute(update(Notice).where(Notice.id.in_(ids)).values(values))


def _note_trouble(batch: Batch, trouble: str) -> None:
    if batch.way[1] is not None:
        db.session.execute(update(Channel).where(Channel.id == batch.way[1]).values(trouble=trouble))
