"""Classes of accounts (student, PhD, project …), each with a set of rules of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class AccountClass(Base):
    """A kind of account. `rules` holds only what is set (see services.rules.terms); what is not named is the lab's.

    Exactly one is the default, made by the migration: it holds for every account that has no class of its own.
    """

    __tablename__ = "account_classes"
    __table_args__ = (
        Index("uq_account_classes_default", "is_default", unique=True, postgresql_where=text("is_default")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))
    rules: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
