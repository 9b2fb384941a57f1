"""Bookings whose GPUs did nothing: what was said of it, and what became of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, one_of
from app.models.bookings import Booking


class Outcome(StrEnum):
    """What became of it."""

    OPEN = "open"  # the rest is given back at `due_at`
    KEPT = "kept"  # its owner said so; it is left alone until `kept_until`
    OVER = "over"  # used again, extended, ended by itself, or not looked at in time
    RECLAIMED = "reclaimed"
    WOULD = "would"  # a trial: it would have been given back


class Idling(Base):
    """One time that a booking's GPUs did nothing since `since` for so long that its rest is given back at `due_at`.

    `trial`: nobody is told and nothing is done. `held`: memory was held meanwhile; `absent`: they were never used.
    `seconds`: the GPU-seconds that came back, or would have.
    """

    __tablename__ = "idlings"
    __table_args__ = (
        one_of("outcome", Outcome),
        CheckConstraint("due_at > since", name="due"),
        Index("uq_idlings_open", "booking_id", unique=True, postgresql_where=text("outcome = 'open'")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id"), index=True)
    trial: Mapped[bool]
    since: Mapped[datetime]
    held: Mapped[bool]
    absent: Mapped[bool] = mapped_column(server_default=text("false"))
    told_at: Mapped[datetime]
    due_at: Mapped[datetime]
    outcome: Mapped[Outcome] = mapped_column(String(16), server_default=Outcome.OPEN.value)
    closed_at: Mapped[datetime | None]
    kept_until: Mapped[datetime | None]
    seconds: Mapped[int] = mapped_column(server_default="0")

    booking: Mapped[Booking] = relationship(lazy="raise")
