"""Bookings that were asked for together: the same hours on certain weekdays."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base


class Series(Base):
    """What was asked for; what became of it are the bookings that name it, each one as good as any other.

    `opens`, `closes`: seconds by the wall clock of `zone` since the midnight with which its day begins; an end on the
    next morning is beyond 24 h. `weekdays`: 0 for Monday. Who named no GPUs has `count` of any that fit.
    """

    __tablename__ = "series"
    __table_args__ = (
        CheckConstraint("opens >= 0 AND opens < 86400 AND closes > opens", name="hours"),
        CheckConstraint("until >= first_day", name="days"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    zone: Mapped[str] = mapped_column(String(64))
    weekdays: Mapped[list[int]] = mapped_column(JSONB)
    opens: Mapped[int]
    closes: Mapped[int]
    first_day: Mapped[date]
    until: Mapped[date]  # the last day on which one may begin
    gpu_ids: Mapped[list[int]] = mapped_column(JSONB, server_default="[]")
    count: Mapped[int]
    model: Mapped[str] = mapped_column(String(120), server_default="")
    host: Mapped[str] = mapped_column(String(63), server_default="")
    note: Mapped[str] = mapped_column(String(200), server_default="")
    request_key: Mapped[str | None] = mapped_column(String(96), unique=True)  # one form, sent twice, books once
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    user: Mapped[User] = relationship(lazy="raise")
