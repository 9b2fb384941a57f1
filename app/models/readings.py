"""What an admin had read out of an instance by its host's agent: kept for minutes, as pages have no way to a host."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, one_of


class Readable(StrEnum):
    """What can be read out."""

    LOG = "log"  # LXD's own log of the instance
    CONSOLE = "console"  # what it wrote to its console: its start, mostly


class Reading(Base):
    """One text asked for; answered once `answered_at` is set, with `text` or with an `error`. The instance may be one
    that is not Berth's, so it goes by its name."""

    __tablename__ = "readings"
    __table_args__ = (UniqueConstraint("host_id", "instance", "what"), one_of("what", Readable))

    id: Mapped[int] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"))
    instance: Mapped[str] = mapped_column(String(63))
    what: Mapped[Readable] = mapped_column(String(8))
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    answered_at: Mapped[datetime | None]
    text: Mapped[str] = mapped_column(Text, server_default="")
    error: Mapped[str] = mapped_column(Text, server_default="")
