"""Backups to download: a machine's disk as a file on its host, and the tickets that fetch it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base
from app.models.inventory import Instance

KEPT = timedelta(hours=24)  # how long one can be fetched


class Backup(Base):
    """One file, from when it is asked for until it is removed: by hand, or some hours after it was `ready_at`.

    Of a `snapshot`, or of the machine as it is ("")."""

    __tablename__ = "backups"
    __table_args__ = (
        Index("uq_backups_instance", "instance_id", unique=True, postgresql_where=text("removed_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), index=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)  # where the file is
    snapshot: Mapped[str] = mapped_column(String(63), server_default="")
    size: Mapped[int] = mapped_column(server_default="0")  # bytes
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]

    instance: Mapped[Instance] = relationship(lazy="raise")


class Download(Base):
    """A ticket until it is used, once; from then on a download, until it ends.

    It belongs to a sign-in and goes with it; to none where the command line asked."""

    __tablename__ = "downloads"

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_hash: Mapped[str] = mapped_column(String(64), unique=True)
    backup_id: Mapped[int] = mapped_column(ForeignKey("backups.id"), index=True)
    sign_in_id: Mapped[int | None] = mapped_column(ForeignKey("sign_ins.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    opened_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
