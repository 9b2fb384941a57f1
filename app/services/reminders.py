"""What people are told because its time has come, not since somebody did something: starts, ends, low quotas, silence.

Whoever looks, and however often: each is told once, since a notice's key says what it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Select, case, func, or_, select, true
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db
from app.models import Account, Allocation, Booking, EntryKind, Event, Host, LedgerEntry, TeamMember, User
from app.services import endings, further, inventory, notices, people
from app.services.news import facts
from app.services.notice_words import language
from app.services.notices import Telling

LATE = timedelta(minutes=10)  # a start or an end that was longer ago is no news any more
BEFORE_END = (60, 15)  # minutes
LOW = 10  # a quota is low below a tenth of what comes each month


def of_bookings(*, mail: bool) -> int:
    """Tell of bookings that start, end soon or have ended; how many notices are new."""
    now = clock.now()
    found = _around(now)
    ends = endings.ends_of(found) if found else {}
    return sum(
        notices.tell(booking.user, _with_room(booking, telling), mail=mail)
        for booking in found
        for telling in _of(booking, now, goes=bool(ends[booking.id].goes))
        if not notices.is_told(booking.user, telling, mail=mail)
    )


def of_accounts(*, mail: bool) -> int:
    """Tell whose hours are nearly used up, those of a month or those granted last, once each; how many notices are
    new. Of a team those who run it hear."""
    given = select(LedgerEntry.id, LedgerEntry.amount).where(
        LedgerEntry.account_id == Account.id, LedgerEntry.kind == EntryKind.GRANT, LedgerEntry.amount > 0
    )
    last = given.order_by(LedgerEntry.id.desc()).limit(1).lateral()
    people_of = or_(User.account_id == Account.id, User.id.in_(_owners()))
    query = (
        select(User, Account, last.c.id)
        .select_from(Account)
        .join(User, people_of)
        .join(last, true())
        .where(Account.balance * LOW < case((Account.monthly > 0, Account.monthly), else_=last.c.amount))
        .order_by(Account.id, User.id)
    )
    return sum(
        notices.tell(user, _low(account, grant), mail=mail) for user, account, grant in db.session.execute(query)
    )


def of_hosts(*, mail: bool) -> int:
    """Tell the admins which hosts say nothing; how many notices are new."""
    query = select(Host).where(Host.enabled, Host.seen_at < clock.now() - inventory.SILENCE).order_by(Host.name)
    silent = list(db.session.scalars(query))
    admins = people.admins() if silent else []
    return sum(
        notices.tell(admin, _silence(host, host.seen_at), mail=mail)
        for host in silent
        for admin in admins
        if host.seen_at is not None
    )


def _around(now: datetime) -> list[Booking]:
    """Bookings that run, or ended a moment ago. By the allocations' index by time: few touch this moment."""
    ids = select(Allocation.booking_id).where(
        Allocation.released_at.is_(None),
        func.tstzrange(Allocation.starts_at, Allocation.ends_at).op("&&")(func.tstzrange(now - LATE, now, "[]")),
    )
    query = (
        select(Booking)
        .where(Booking.id.in_(list(db.session.scalars(ids.distinct()))))
        .options(joinedload(Booking.user), joinedload(Booking.host), selectinload(Booking.allocations))
        .order_by(Booking.id)
    )
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def _of(booking: Booking, now: datetime, *, goes: bool) -> Iterator[Telling]:
    details = facts(booking)
    if now - LATE < booking.starts_at <= now < booking.ends_at:
        key = f"starts:{booking.id}:{_stamp(booking.starts_at)}"
        yield Telling(Event.STARTS, key, details, booking.ends_at)
    if not goes:  # it goes on in the next booking of the same person
        return
    if booking.starts_at <= now < booking.ends_at and (minutes := _minutes(booking, now)):
        key = f"ends_soon:{booking.id}:{_stamp(booking.ends_at)}:{minutes}"
        yield Telling(Event.ENDS_SOON, key, details, booking.ends_at)
    if now - LATE < booking.ends_at <= now:
        yield Telling(Event.ENDED, f"ended:{booking.id}:{_stamp(booking.ends_at)}", details)


def _with_room(booking: Booking, telling: Telling) -> Telling:
    """What ends soon also says whether it can go on."""
    if telling.event != Event.ENDS_SOON:
        return telling
    found = further.of(booking, [language(booking.user.locale)])
    return replace(telling, details={**telling.details, "further": found.as_json()}) if found else telling


def _minutes(booking: Booking, now: datetime) -> int:
    """Which of the moments before the end was the last; 0 for none. None lies before the start."""
    reached = [m for m in BEFORE_END if booking.starts_at < booking.ends_at - timedelta(minutes=m) <= now]
    return min(reached, default=0)


def _owners() -> Select[int]:
    return select(TeamMember.user_id).where(TeamMember.account_id == Account.id, TeamMember.is_owner)


def _low(account: Account, grant: int) -> Telling:
    """`grant`: the ledger's entry by which hours came last."""
    since = f"{account.renews_at:%Y-%m}" if account.renews_at else f"grant-{grant}"
    details = {
        "left": max(account.balance, 0),
        "monthly": account.monthly,
        "team": account.title if account.is_team else "",
        "renews_at": account.renews_at.isoformat() if account.renews_at else "",
    }
    return Telling(Event.QUOTA_LOW, f"quota_low:{account.id}:{since}", details, account.renews_at)


def _silence(host: Host, since: datetime) -> Telling:
    details = {"action": "host.silent", "host": host.name, "since": since.isoformat()}
    return Telling(Event.ALARM, f"silent:{host.id}:{_stamp(since)}", details)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%SZ}"
