"""Bookings, the allocations in which the database forbids overlap, and requests that were refused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, Text, and_, func, text
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import Account, User
from app.models.base import Base
from app.models.inventory import Gpu, Host, Instance


class Phase(StrEnum):
    """Where a booking stands; computed from the clock, never stored."""

    UPCOMING = "upcoming"
    RUNNING = "running"
    PAST = "past"
    CANCELLED = "cancelled"


class Booking(Base):
    """A person's claim on N GPUs of one host for `[starts_at, ends_at)`. Only intent is stored."""

    __tablename__ = "bookings"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="window"),
        Index("ix_bookings_user_id_starts_at", "user_id", "starts_at"),
        Index("ix_bookings_user_id_ends_at", "user_id", "ends_at"),  # what runs or is to come, or lies in a week
        Index("ix_bookings_account_id_ends_at", "account_id", "ends_at"),  # what the rules look at, account locked
        Index("ix_bookings_series_id", "series_id", postgresql_where=text("series_id IS NOT NULL")),
        Index("ix_bookings_rest_of_id", "rest_of_id", postgresql_where=text("rest_of_id IS NOT NULL")),
        # What still has to be settled, by host: the agents ask for it at every pass.
        Index("ix_bookings_unsettled", "host_id", "ends_at", postgresql_where=text("settled_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"))
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id"))  # none: the owner's machine there
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"))
    # The booking that maintenance ended early, where this one is the rest of its time: see services.giving_way. In a
    # series the two are one of it.
    rest_of_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    booked_until: Mapped[datetime]  # the end last asked for; later than ends_at when released early
    note: Mapped[str] = mapped_column(String(200), server_default="")
    tariff: Mapped[dict[str, Any]] = mapped_column(
        server_default="{}"
    )  # the price when booked; see services.rules.tariff
    request_key: Mapped[str | None] = mapped_column(String(96), unique=True)  # one form, sent twice, books once
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cancelled_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]  # when the rest was given back, or taken back unused
    # When its end was last moved to later than it ever was; of a rest, when more of it was asked for.
    extended_at: Mapped[datetime | None]
    shortened_from: Mapped[datetime | None]  # the latest end that it had as it ran, where it was shortened since
    settled_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="raise")
    account: Mapped[Account] = relationship(lazy="raise")
    host: Mapped[Host] = relationship(lazy="raise")
    instance: Mapped[Instance | None] = relationship(lazy="raise")
    allocations: Mapped[list[Allocation]] = relationship(
        back_populates="booking", lazy="raise", order_by="Allocation.gpu_id"
    )

    @property
    def named(self) -> Instance | None:
        """The machine that it is for by name, if that takes GPUs; None: for its owner's oldest there that does."""
        return self.instance if self.instance and self.instance.takes_gpus else None

    @hybrid_property
    def unasked(self) -> bool:
        """Whether its owner never asked for it: the rest of another one, of which they asked for no more."""
        return self.rest_of_id is not None and self.extended_at is None

    @unasked.inplace.expression
    @classmethod
    def _unasked(cls) -> ColumnElement[bool]:
        return and_(cls.rest_of_id.is_not(None), cls.extended_at.is_(None))

    def phase(self, now: datetime) -> Phase:
        """The booking's phase at `now`."""
        if self.cancelled_at is not None:
            return Phase.CANCELLED
        if now < self.starts_at:
            return Phase.UPCOMING
        return Phase.RUNNING if now < self.ends_at else Phase.PAST


class Allocation(Base):
    """One GPU of one booking for its window; repeats the window, since a constraint sees one row only.

    `released_at`: withdrawn (the booking was cancelled), so it blocks nobody. `attached_at` and `detached_at` are
    what a pass *saw* on the host, the latter with the proof that nobody holds the GPU any more; `trouble` is a code for
    why the GPU is not attached yet (see services.enforcement), since `trouble_at`; while only its owner's machine is
    awaited, since the last outage at the earliest (see services.rules.noshow). `ready_at`: when a pass first would have
    attached it but for that machine (see services.rules.fees). `asked_at`: when what held it was asked to end.
    `warned`: the last warning given, in minutes before the end. `holders`: what was last seen to hold it (see
    services.warnings). `instead_of_id`: the GPU that was booked, where it could not be freed and this one was given;
    `booked_from`: where the window began until then, if somebody else had this one first. `counted`: what it had is in
    the usage's pieces; the database takes the mark away when any of that changes.
    """

    __tablename__ = "allocations"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="window"),
        # The window first: the same index then answers "what lies in this week?" for the calendar.
        ExcludeConstraint(
            (text("tstzrange(starts_at, ends_at)"), "&&"),
            (text("int8range(gpu_id, gpu_id, '[]')"), "&&"),
            where=text("released_at IS NULL"),
            name="ex_allocations_overlap",
            using="gist",
        ),
        # What is not seen to be gone yet: every pass asks for it.
        Index(
            "ix_allocations_not_gone",
            "ends_at",
            postgresql_where=text("attached_at IS NOT NULL AND detached_at IS NULL"),
        ),
        Index("ix_allocations_gpu_id_ends_at", "gpu_id", "ends_at", postgresql_where=text("released_at IS NULL")),
        # What every report counts anew: some days of them.
        Index("ix_allocations_uncounted", "starts_at", postgresql_where=text("NOT counted AND released_at IS NULL")),
        Index("ix_allocations_booked_from", "booked_from", postgresql_where=text("booked_from IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id"), index=True)
    gpu_id: Mapped[int] = mapped_column(ForeignKey("gpus.id"))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    released_at: Mapped[datetime | None]
    attached_at: Mapped[datetime | None]
    detached_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    trouble: Mapped[str] = mapped_column(String(32), server_default="")
    trouble_text: Mapped[str] = mapped_column(Text, server_default="")
    trouble_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None]
    warned: Mapped[int | None]
    holders: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    instead_of_id: Mapped[int | None] = mapped_column(ForeignKey("gpus.id"))
    booked_from: Mapped[datetime | None]
    counted: Mapped[bool] = mapped_column(server_default="false")

    booking: Mapped[Booking] = relationship(back_populates="allocations", lazy="raise")
    gpu: Mapped[Gpu] = relationship(lazy="raise", foreign_keys=[gpu_id])
    instead_of: Mapped[Gpu | None] = relationship(lazy="raise", foreign_keys=[instead_of_id])


class Refusal(Base):
    """A booking that somebody asked for on a page and did not get: what, and why, to be read again later.

    `reason` is the error's code, `details` the numbers it needs (see services.refusals).
    """

    __tablename__ = "refusals"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    reason: Mapped[str] = mapped_column(String(32))
    brief: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(Text, server_default="")
    request: Mapped[dict[str, Any]]  # the booking form's fields as they were sent
