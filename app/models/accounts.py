"""People, the accounts that own quota, and what lets a person in: sign-ins and API tokens."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column, query_expression, relationship

from app.models.base import Base, one_of


class Role(StrEnum):
    """What a person may do here."""

    USER = "user"
    ADMIN = "admin"


class UserState(StrEnum):
    """Whether a person may sign in."""

    PENDING = "pending"
    ACTIVE = "active"
    DISABLED = "disabled"
    REFUSED = "refused"


TEAM = "team:"


class Account(Base):
    """The person or team that owns quota. `balance`, in GPU-seconds, is kept by a trigger: the sum of its ledger."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    balance: Mapped[int] = mapped_column(server_default="0")
    monthly: Mapped[int] = mapped_column(server_default="0")  # GPU-seconds granted anew each month; 0: none
    renews_at: Mapped[datetime | None]
    class_id: Mapped[int | None] = mapped_column(ForeignKey("account_classes.id"), index=True)  # none: the default one
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def is_team(self) -> bool:
        """Whether several people share it. No username has a colon, so nobody's own account is taken for a team's."""
        return self.name.startswith(TEAM)

    @property
    def title(self) -> str:
        """The name that people read."""
        return self.name.removeprefix(TEAM)


class User(Base):
    """A person. The username is also their account's name and the login inside their machines."""

    __tablename__ = "users"
    __table_args__ = (one_of("role", Role), one_of("state", UserState))

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(32), unique=True)
    full_name: Mapped[str] = mapped_column(String(120), server_default="")
    email: Mapped[str] = mapped_column(String(254), server_default="")
    reason: Mapped[str] = mapped_column(String(500), server_default="")  # why they want in; for the admin
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[Role] = mapped_column(String(16), server_default=Role.USER)
    state: Mapped[UserState] = mapped_column(String(16), server_default=UserState.PENDING)
    locale: Mapped[str] = mapped_column(String(16), server_default="")  # "": by browser
    timezone: Mapped[str] = mapped_column(String(64), server_default="")  # "": the lab's
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    decided_at: Mapped[datetime | None]  # when approved or refused
    last_login_at: Mapped[datetime | None]
    keys_changed_at: Mapped[datetime | None]  # when an SSH key was last added or removed

    account: Mapped[Account | None] = relationship(lazy="raise")

    @property
    def display_name(self) -> str:
        """The name that other people see."""
        return self.full_name or self.username

    @property
    def is_admin(self) -> bool:
        """Whether this person looks after the lab."""
        return self.role == Role.ADMIN


class SignIn(Base):
    """One browser that is signed in. Its row gone, the cookie is worth nothing.

    `ends_soon`: when a running booking of its person ends, if soon; `in_a_team`: whether they share an account. Both
    are loaded with the sign-in by services.signins.find.
    """

    __tablename__ = "sign_ins"

    id: Mapped[int] = mapped_column(primary_key=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ends_soon: Mapped[datetime | None] = query_expression()
    in_a_team: Mapped[bool | None] = query_expression()

    user: Mapped[User] = relationship(lazy="raise")


class ApiToken(Base):
    """A token for the API: only its SHA-256 is stored. `scopes`: space-separated, see services.tokens."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="raise")


Index("ix_users_state", User.state)
