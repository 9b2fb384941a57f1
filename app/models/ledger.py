"""The ledger: signed amounts of GPU-seconds that never change."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, one_of


class EntryKind(StrEnum):
    """Why an amount was added to or taken from an account."""

    GRANT = "grant"
    HOLD = "hold"
    RELEASE = "release"
    SETTLE = "settle"
    ADJUST = "adjust"


class LedgerEntry(Base):
    """One signed amount. Insert-only; `key` makes each entry once, however often a job runs.

    A trigger locks the account, writes its balance and `balance_after`, and refuses a hold that overspends
    (constraint name `quota_exceeded`).
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (one_of("kind", EntryKind), Index("ix_ledger_entries_account_id_id", "account_id", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"), index=True)
    kind: Mapped[EntryKind] = mapped_column(String(16))
    amount: Mapped[int]
    balance_after: Mapped[int] = mapped_column(server_default="0")
    key: Mapped[str] = mapped_column(String(64), unique=True)
    actor: Mapped[str] = mapped_column(String(64), server_default="")
    note: Mapped[str] = mapped_column(String(200), server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
