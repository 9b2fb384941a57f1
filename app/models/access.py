"""The ways into a machine: the host's ports that lead there, and its owner's SSH keys."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base, one_of
from app.models.inventory import Instance


class Purpose(StrEnum):
    """What answers behind a port."""

    SSH = "ssh"
    RDP = "rdp"


class Port(Base):
    """A port of the host that leads into one machine, for as long as the machine lives.

    A released one rests for a day before anybody gets it: who still knows it must not land in another's machine."""

    __tablename__ = "ports"
    __table_args__ = (
        one_of("purpose", Purpose),
        CheckConstraint("number BETWEEN 1024 AND 65535", name="number"),
        Index("uq_ports_number", "host_id", "number", unique=True, postgresql_where=text("released_at IS NULL")),
        Index("uq_ports_purpose", "instance_id", "purpose", unique=True, postgresql_where=text("released_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"))
    number: Mapped[int]
    purpose: Mapped[Purpose] = mapped_column(String(8))
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"))
    trouble: Mapped[str] = mapped_column(Text, server_default="")  # why it does not lead there now; "" when it does
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    released_at: Mapped[datetime | None]

    instance: Mapped[Instance] = relationship(lazy="raise")


class SshKey(Base):
    """A person's public key. `text`: type and key as OpenSSH writes them, without the comment."""

    __tablename__ = "ssh_keys"
    __table_args__ = (UniqueConstraint("user_id", "fingerprint"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))  # SHA256:… as ssh-keygen -l prints it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    user: Mapped[User] = relationship(lazy="raise")
