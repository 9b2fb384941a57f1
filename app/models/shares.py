"""Directories of a host that people's machines get to see."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base
from app.models.inventory import Host

CURRENT = text("retired_at IS NULL")

share_users = Table(
    "share_users",
    Base.metadata,
    Column("share_id", ForeignKey("shared_directories.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True),
)


class SharedDirectory(Base):
    """`source` on the host, `path` inside: the same directory for everybody, or for each person one `own` in it.

    For everybody, or for `users` alone. `findings`: what the host's agent said of it at `checked_at`, codes that the
    pages have words for; it is switched on (`active`) only where nothing speaks against it. `trouble`: what LXD said
    when it could not be put into a machine, or taken out. One that is retired has a `checked_at` again once no machine
    has it.
    """

    __tablename__ = "shared_directories"
    __table_args__ = (
        CheckConstraint("NOT (own AND read_only)", name="own"),
        Index("uq_shared_directories_name", "host_id", "name", unique=True, postgresql_where=CURRENT),
        Index("uq_shared_directories_path", "host_id", "path", unique=True, postgresql_where=CURRENT),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"))
    name: Mapped[str] = mapped_column(String(63))
    source: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(String(255))
    read_only: Mapped[bool] = mapped_column(server_default=text("true"))
    own: Mapped[bool] = mapped_column(server_default=text("false"))
    for_everyone: Mapped[bool] = mapped_column(server_default=text("true"))
    active: Mapped[bool] = mapped_column(server_default=text("false"))
    findings: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default="[]")
    checked_at: Mapped[datetime | None]
    trouble: Mapped[str] = mapped_column(Text, server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]

    host: Mapped[Host] = relationship(lazy="raise")
    users: Mapped[list[User]] = relationship(secondary=share_users, lazy="raise")

    @property
    def fit(self) -> bool:
        """Whether the host's agent looked at it and found nothing that speaks against it."""
        return self.checked_at is not None and not any(found["level"] == "bad" for found in self.findings)
