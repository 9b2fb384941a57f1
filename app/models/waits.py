"""Who waits for GPUs that others have: the waiting list, in the order in which people joined it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base, one_of
from app.models.bookings import Booking


class WaitState(StrEnum):
    """Where somebody who waits stands."""

    WAITING = "waiting"
    OFFERED = "offered"  # a booking is held for them until they take it or `decide_by` has come
    GRANTED = "granted"
    EXPIRED = "expired"  # its time is over, or an offer was not taken
    WITHDRAWN = "withdrawn"


class Wait(Base):
    """One wish that waits: `seconds` of `count` GPUs of one host (the named ones, else any of a model or host) within
    `[starts_at, ends_at)`; an exact time where that is as long. Its id is its place in line.

    `by_itself`: it is booked as soon as it can be, and can be given back for free until `decide_by`; else it is
    offered until then. `booking_id`: what it was given; `granted_at`: when.
    """

    __tablename__ = "waits"
    __table_args__ = (
        one_of("state", WaitState),
        CheckConstraint("seconds > 0 AND ends_at >= starts_at + seconds * interval '1 second'", name="window"),
        CheckConstraint("count > 0", name="count"),
        Index("ix_waits_open", "id", postgresql_where=text("state IN ('waiting', 'offered')")),
        Index("ix_waits_user_id_id", "user_id", "id"),
        # By when they were answered or closed: reports look for it (services.reports.waiting).
        Index("ix_waits_over", text("coalesce(least(granted_at, closed_at), 'infinity'::timestamptz)")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    account: Mapped[str] = mapped_column(String(64), server_default="")  # the team's that pays; "": their own
    state: Mapped[WaitState] = mapped_column(String(16), server_default=WaitState.WAITING.value)
    gpu_ids: Mapped[list[int]] = mapped_column(JSONB, server_default="[]")
    count: Mapped[int] = mapped_column(server_default="1")
    model: Mapped[str] = mapped_column(String(120), server_default="")
    host: Mapped[str] = mapped_column(String(63), server_default="")
    seconds: Mapped[int]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    by_itself: Mapped[bool]
    note: Mapped[str] = mapped_column(String(200), server_default="")
    request_key: Mapped[str | None] = mapped_column(String(96), unique=True)  # one form, sent twice, waits once
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"), unique=True)
    decide_by: Mapped[datetime | None]
    granted_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="raise")
    booking: Mapped[Booking | None] = relationship(lazy="raise")

    @property
    def is_exact(self) -> bool:
        """Whether it is one window and no other."""
        return int((self.ends_at - self.starts_at).total_seconds()) == self.seconds
