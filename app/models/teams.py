"""Who may book on a team's account, and how much of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base


class TeamMember(Base):
    """One person in one team. `cap_hours`: how many GPU-hours they may book a month on its account; none: no limit."""

    __tablename__ = "team_members"
    __table_args__ = (
        UniqueConstraint("account_id", "user_id"),
        CheckConstraint("cap_hours >= 0", name="cap"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    is_owner: Mapped[bool] = mapped_column(server_default=text("false"))  # sees and limits the members
    cap_hours: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    user: Mapped[User] = relationship(lazy="raise")
