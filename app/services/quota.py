"""Quota in GPU-seconds: the only writer of the ledger. An account's balance is the sum of its entries.

Granted = grants and adjustments; held = holds less releases; used = what was settled; free = the balance.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import bindparam, func, insert, select

from app import clock
from app.errors import InvalidInput, NotFound, QuotaExceeded
from app.extensions import db
from app.language import gettext as _
from app.models import Account, Base, Booking, EntryKind, LedgerEntry
from app.services import audit
from app.services.windows import hours_text

MOST_HOURS = 1_000_000
_LOCK = select(Account.balance).where(Account.id == bindparam("account_id")).with_for_update(key_share=True)
# The bare table, and no row asked back: nothing needs the entry as an object.
_INSERT = insert(Base.metadata.tables["ledger_entries"]).inline()


@dataclass(frozen=True)
class Balance:
    """An account's quota in GPU-seconds; `free` = granted - held - used."""

    granted: int
    held: int
    used: int
    free: int


def account(name: str) -> Account:
    """The account of that name; a person's has the person's name. Raises NotFound."""
    found = db.session.scalar(select(Account).where(Account.name == name))
    if found is None:
        raise NotFound(_("There is no account %(name)s.", name=name[:64]))
    return found


def balance(account_id: int, since: datetime | None = None) -> Balance:
    """Where the account stands, computed from its ledger (from `since` on, if given; `free` is always of now)."""
    query = select(LedgerEntry.kind, func.sum(LedgerEntry.amount)).where(LedgerEntry.account_id == account_id)
    if since is not None:
        query = query.where(LedgerEntry.created_at >= since)
    sums = {EntryKind(kind): int(total) for kind, total in db.session.execute(query.group_by(LedgerEntry.kind))}
    return Balance(
        granted=sums.get(EntryKind.GRANT, 0) + sums.get(EntryKind.ADJUST, 0),
        held=-sums.get(EntryKind.HOLD, 0) - sums.get(EntryKind.RELEASE, 0),
        used=-sums.get(EntryKind.SETTLE, 0),
        free=free(account_id),
    )


def entries(account_id: int, limit: int = 200, before_id: int | None = None) -> list[LedgerEntry]:
    """The newest ledger entries of an account, newest first."""
    query = select(LedgerEntry).where(LedgerEntry.account_id == account_id)
    if before_id is not None:
        query = query.where(LedgerEntry.id < before_id)
    return list(db.session.scalars(query.order_by(LedgerEntry.id.desc()).limit(limit)))


def post(
    account_id: int,
    kind: EntryKind,
    amount: int,
    *,
    key: str,
    actor: str,
    booking_id: int | None = None,
    note: str = "",
) -> None:
    """Write one entry, of GPU-seconds. Where its key is there already, nothing happens (the trigger sees to both)."""
    values: dict[str, Any] = {
        "account_id": account_id,
        "kind": kind,
        "amount": amount,
        "key": key,
        "actor": actor,
        "booking_id": booking_id,
        "note": note,
    }
    db.session.execute(_INSERT, values)


def lock(account_id: int) -> int:
    """Take the account's row lock for this transaction and return its balance. Always before any GPU's lock."""
    free = db.session.scalar(_LOCK, {"account_id": account_id})
    if free is None:
        raise NotFound(_("There is no such account."))
    return free


def free(account_id: int) -> int:
    """What the account may still hold, in GPU-seconds, without a lock: good for showing, not for spending."""
    return db.session.scalar(select(Account.balance).where(Account.id == account_id)) or 0


def require(needed: int, free: int) -> None:
    """Refuse what the balance cannot pay; `free` is what `lock` returned."""
    if needed > free:
        raise QuotaExceeded(
            _(
                "This costs %(needed)s GPU-hours and you have %(free)s left.",
                needed=hours_text(needed),
                free=hours_text(max(free, 0)),
            ),
            _("Book less, give back hours you do not need, or ask an admin for more."),
            needed=needed,
            free=max(free, 0),
        )


def hold(booking: Booking, amount: int, *, key: str, actor: str) -> None:
    """Set GPU-seconds aside for a booking."""
    post(booking.account_id, EntryKind.HOLD, -amount, key=key, actor=actor, booking_id=booking.id)


def release(booking: Booking, amount: int, *, key: str, actor: str) -> None:
    """Give back GPU-seconds that were held for a booking."""
    post(booking.account_id, EntryKind.RELEASE, amount, key=key, actor=actor, booking_id=booking.id)


def charge(booking: Booking, amount: int, *, key: str, actor: str) -> None:
    """Charge GPU-seconds for a booking beside what it used: what the rules ask for giving back late."""
    post(booking.account_id, EntryKind.SETTLE, -amount, key=key, actor=actor, booking_id=booking.id)


def held_for(booking_id: int) -> int:
    """What a booking holds at the moment, in GPU-seconds."""
    return _cost(booking_id, EntryKind.HOLD, EntryKind.RELEASE)


def charged_for(booking_id: int) -> int:
    """What a booking was charged for good, in GPU-seconds: until it is settled, fees alone."""
    return _cost(booking_id, EntryKind.SETTLE)


def _cost(booking_id: int, *kinds: EntryKind) -> int:
    query = select(func.coalesce(func.sum(LedgerEntry.amount), 0)).where(
        LedgerEntry.booking_id == booking_id, LedgerEntry.kind.in_(kinds)
    )
    return -int(db.session.scalar(query) or 0)


def settle(booking: Booking, used: int, *, actor: str, note: str = "") -> None:
    """Close a booking's books, once: what it held goes back, what it used is charged. `note`: see services.charges."""
    lock(booking.account_id)
    release(booking, held_for(booking.id), key=f"release:{booking.id}", actor=actor)
    post(
        booking.account_id,
        EntryKind.SETTLE,
        -used,
        key=f"settle:{booking.id}",
        actor=actor,
        booking_id=booking.id,
        note=note,
    )


def grant(account: Account, hours: float, *, actor: str, note: str = "", key: str | None = None) -> None:
    """Add hours to an account (take away with a negative number, as an adjustment)."""
    if not -MOST_HOURS <= hours <= MOST_HOURS or hours == 0:
        raise InvalidInput(_("The hours must be a number other than 0, up to %(max)s.", max=MOST_HOURS), field="hours")
    seconds = round(hours * 3600)
    kind = EntryKind.GRANT if seconds > 0 else EntryKind.ADJUST
    moment = clock.now().isoformat()
    post(account.id, kind, seconds, key=key or f"{kind}:{account.id}:{moment}", actor=actor, note=note)
    audit.record(actor, "quota.granted", f"account:{account.name}", hours=hours, note=note)


def set_monthly(account: Account, hours: float, zone: ZoneInfo, *, actor: str) -> None:
    """Give an account so many hours for this month, and anew each month after that.

    Set again in the same month, only the difference is granted or taken back."""
    if not 0 <= hours <= MOST_HOURS:
        raise InvalidInput(_("Write a number of hours from 0 to %(max)s.", max=MOST_HOURS), field="hours")
    now = clock.now()
    account.monthly = round(hours * 3600)
    account.renews_at = next_month(now, zone) if account.monthly else None
    db.session.flush()
    month = now.astimezone(zone).strftime("%Y-%m")
    given, times = _given_for(account.id, key := f"month:{account.id}:{month}")
    if difference := account.monthly - given:
        kind = EntryKind.GRANT if difference > 0 else EntryKind.ADJUST
        post(account.id, kind, difference, key=f"{key}:{times}" if times else key, actor=actor, note=month)
    audit.record(actor, "quota.monthly", f"account:{account.name}", hours=hours)


def _given_for(account_id: int, key: str) -> tuple[int, int]:
    """What a month's grant and its corrections add up to, and how many entries that was. Takes the account's lock."""
    lock(account_id)
    query = select(func.coalesce(func.sum(LedgerEntry.amount), 0), func.count()).where(
        LedgerEntry.account_id == account_id, LedgerEntry.key.startswith(key, autoescape=True)
    )
    total, times = db.session.execute(query).one()
    return int(total), int(times)


def renew_due(zone: ZoneInfo) -> int:
    """Start the new month for each account whose old one is over: what is left lapses, the monthly hours come.

    Once per account and month, however many workers ask. Returns how many were renewed."""
    now = clock.now()
    due = select(Account).where(Account.renews_at <= now).with_for_update(key_share=True, skip_locked=True)
    accounts = list(db.session.scalars(due))
    for account in accounts:
        month = now.astimezone(zone).strftime("%Y-%m")
        if (left := free(account.id)) > 0:
            post(account.id, EntryKind.ADJUST, -left, key=f"lapse:{account.id}:{month}", actor=audit.SYSTEM, note=month)
        post(
            account.id,
            EntryKind.GRANT,
            account.monthly,
            key=f"month:{account.id}:{month}",
            actor=audit.SYSTEM,
            note=month,
        )
        account.renews_at = next_month(now, zone)
    db.session.flush()
    return len(accounts)


def next_month(now: datetime, zone: ZoneInfo) -> datetime:
    """The first moment of the next month in the lab's zone."""
    local = now.astimezone(zone)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return datetime(year, month, 1, tzinfo=zone)


def month_start(now: datetime, zone: ZoneInfo) -> datetime:
    """The first moment of this month in the lab's zone."""
    local = now.astimezone(zone)
    return datetime(local.year, local.month, 1, tzinfo=zone)
