"""What people are told, by which ways, and what waits to be sent; and the secret addresses of their calendars."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base, one_of


class Event(StrEnum):
    """What somebody may be told of."""

    MADE = "made"
    STARTS = "starts"
    ENDS_SOON = "ends_soon"
    ENDED = "ended"
    MOVED = "moved"
    OFFERED = "offered"
    IDLE = "idle"
    APPROVED = "approved"
    QUOTA_LOW = "quota_low"
    DISK_FULL = "disk_full"
    WAITING = "waiting"
    QUARANTINE = "quarantine"
    ALARM = "alarm"
    SUMMARY = "summary"
    TEST = "test"


class Channel(Base):
    """A service through which a person wants to be told. `sealed`: its address, a secret, encrypted with the key that
    signs cookies. `trouble`: why the last message did not go; "" when it did."""

    __tablename__ = "channels"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    scheme: Mapped[str] = mapped_column(String(16))
    sealed: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    trouble: Mapped[str] = mapped_column(Text, server_default="")


class NoticeChoice(Base):
    """What a person chose to be told, and by which ways: by event, `mail` and the ids of channels. What is missing is
    as services.notices has it by default."""

    __tablename__ = "notice_choices"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    ways: Mapped[dict[str, list[str]]] = mapped_column(JSONB, server_default="{}")


class News(Base):
    """An audit event that people may want to be told of, written with it; gone when its notices are there."""

    __tablename__ = "news"

    event_id: Mapped[int] = mapped_column(ForeignKey("audit_events.id"), primary_key=True, autoincrement=False)


class Notice(Base):
    """One thing that one person is told by one way; `channel_id` none: by e-mail.

    `key` makes it once, whoever finds it due and however often. It waits until it is sent, or given up: after too many
    attempts, for good reason, or since it says nothing any more after `expires_at`.
    """

    __tablename__ = "notices"
    __table_args__ = (
        one_of("event", Event),
        Index("ix_notices_waiting", "due_at", postgresql_where=text("sent_at IS NULL AND given_up_at IS NULL")),
        Index("ix_notices_given_up", "given_up_at", postgresql_where=text("given_up_at IS NOT NULL")),
        Index("ix_notices_user_id_id", "user_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(160), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    channel_id: Mapped[int | None] = mapped_column(ForeignKey("channels.id", ondelete="CASCADE"), index=True)
    event: Mapped[Event] = mapped_column(String(16))
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    sent_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    trouble: Mapped[str] = mapped_column(Text, server_default="")  # a code for why the last attempt failed

    user: Mapped[User] = relationship(lazy="raise")
    channel: Mapped[Channel | None] = relationship(lazy="raise")


class Feed(Base):
    """A secret address of a calendar: of its owner's bookings, or with `host_id` of all bookings of a host. Only the
    SHA-256 of the secret is stored."""

    __tablename__ = "feeds"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    host_id: Mapped[int | None] = mapped_column(ForeignKey("hosts.id"))
    name: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    locale: Mapped[str] = mapped_column(String(16), server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="raise")
