"""An account's statement: where it stands in a few numbers, and the ledger's lines with what they were for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db
from app.models import Account, Booking, EntryKind, LedgerEntry
from app.services import quota

_SAYS_SOMETHING = (LedgerEntry.amount != 0) | (LedgerEntry.note != "")  # also why nothing was charged


@dataclass(frozen=True)
class Standing:
    """GPU-seconds. `used` was settled since `since` (None: ever); `left` includes what is `reserved`."""

    used: int
    reserved: int
    left: int
    since: datetime | None
    resets_at: datetime | None

    @property
    def total(self) -> int:
        """What `used` is measured against."""
        return self.used + self.left

    @property
    def free(self) -> int:
        """What can still be booked: the sum of all lines of the ledger."""
        return self.left - self.reserved


@dataclass(frozen=True)
class Line:
    """One ledger entry and the booking it belongs to. `word` is a code; the pages have the words."""

    entry: LedgerEntry
    booking: Booking | None
    word: str


def standing(account: Account, zone: ZoneInfo) -> Standing:
    """Where an account stands: this month if it gets hours monthly, else since its first day."""
    since = quota.month_start(clock.now(), zone) if account.monthly else None
    ever = quota.balance(account.id)
    used = ever.used if since is None else quota.balance(account.id, since).used
    return Standing(used, ever.held, ever.held + ever.free, since, account.renews_at)


def used_since(account_ids: Iterable[int], since: datetime) -> dict[int, int]:
    """What each account has used since then, in GPU-seconds."""
    query = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount))
        .where(
            LedgerEntry.account_id.in_(list(account_ids)),
            LedgerEntry.kind == EntryKind.SETTLE,
            LedgerEntry.created_at >= since,
        )
        .group_by(LedgerEntry.account_id)
    )
    return {account_id: -int(total) for account_id, total in db.session.execute(query)}


def lines(account_id: int, limit: int = 50, before_id: int | None = None) -> list[Line]:
    """The newest lines of an account, newest first; those that change nothing are left out."""
    query = select(LedgerEntry).where(LedgerEntry.account_id == account_id, _SAYS_SOMETHING)
    if before_id is not None:
        query = query.where(LedgerEntry.id < before_id)
    entries = list(db.session.scalars(query.order_by(LedgerEntry.id.desc()).limit(limit)))
    bookings = _bookings({entry.booking_id for entry in entries if entry.booking_id is not None})
    return [_line(entry, bookings.get(entry.booking_id or 0)) for entry in entries]


def _bookings(ids: set[int]) -> dict[int, Booking]:
    query = (
        select(Booking)
        .where(Booking.id.in_(ids))
        .options(joinedload(Booking.host), selectinload(Booking.allocations))
        .execution_options(populate_existing=True)
    )
    return {booking.id: booking for booking in db.session.scalars(query)} if ids else {}


def _line(entry: LedgerEntry, booking: Booking | None) -> Line:
    words = {
        EntryKind.GRANT: "granted",
        EntryKind.HOLD: "reserved",
        EntryKind.RELEASE: "given_back",
        EntryKind.SETTLE: "used",
        EntryKind.ADJUST: "taken_back",
    }
    word = words[EntryKind(entry.kind)]
    if entry.key.startswith(("fee:", "unused:")):
        word = entry.key.partition(":")[0]
    if entry.kind == EntryKind.ADJUST and entry.key.startswith("lapse:"):
        word = "expired"
    # At its end a booking's whole reservation is lifted and what it used is charged: two lines.
    if entry.key == f"release:{entry.booking_id}" and booking is not None and booking.cancelled_at is None:
        word = "lifted"
    return Line(entry, booking, word)


def of_booking(booking: Booking) -> list[Line]:
    """All lines of one booking, oldest first."""
    query = select(LedgerEntry).where(LedgerEntry.booking_id == booking.id, _SAYS_SOMETHING)
    return [_line(entry, booking) for entry in db.session.scalars(query.order_by(LedgerEntry.id))]
