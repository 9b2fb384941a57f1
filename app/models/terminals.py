"""Terminals in the browser: the ticket that opens one, and then the terminal itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import SignIn
from app.models.base import Base
from app.models.inventory import Instance


class Terminal(Base):
    """A ticket until it is used, once; from then on an open terminal, until it is closed.

    It belongs to a sign-in and goes with it. `origin`: of the page that asked for it, the only one that may use it.
    """

    __tablename__ = "terminals"

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_hash: Mapped[str] = mapped_column(String(64), unique=True)
    sign_in_id: Mapped[int] = mapped_column(ForeignKey("sign_ins.id", ondelete="CASCADE"), index=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), index=True)
    origin: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    opened_at: Mapped[datetime | None]
    seen_at: Mapped[datetime | None]  # when its right to be open was last confirmed
    closed_at: Mapped[datetime | None]

    sign_in: Mapped[SignIn] = relationship(lazy="raise")
    instance: Mapped[Instance] = relationship(lazy="raise")
