"""The lab's rules that an admin can change: one row."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, one_of


class Reclaim(StrEnum):
    """What becomes of bookings whose GPUs do nothing."""

    OFF = "off"
    TRIAL = "trial"  # only noted what would have become of them
    ON = "on"


class Charge(StrEnum):
    """What a booking is charged: the time that was reserved until its end, that less what was taken back unused, or
    only the time for which GPUs were attached."""

    RECLAIMED = "reclaimed"
    RESERVED = "reserved"
    ATTACHED = "attached"


class Policy(Base):
    """Rules for everybody. One row, id 1, made by the migration."""

    __tablename__ = "policies"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        CheckConstraint("horizon_days > 0 AND max_hours > 0 AND max_gpus > 0", name="limits"),
        CheckConstraint("grace_seconds >= 0", name="grace"),
        CheckConstraint("offer_minutes > 0", name="offer"),
        one_of("reclaim", Reclaim),
        one_of("charge", Charge),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    horizon_days: Mapped[int] = mapped_column(server_default="28")  # how far ahead a booking may end
    max_hours: Mapped[int] = mapped_column(server_default="72")  # how long one may be
    max_gpus: Mapped[int] = mapped_column(server_default="8")  # how many GPUs one may take
    default_hours: Mapped[int] = mapped_column(server_default="100")  # what the approval form offers, a month
    self_service: Mapped[bool] = mapped_column(server_default=text("true"))  # people may create their own machines
    max_instances: Mapped[int] = mapped_column(server_default="2")  # how many of them
    max_cpus: Mapped[int] = mapped_column(server_default="8")
    max_memory_gib: Mapped[int] = mapped_column(server_default="32")
    max_disk_gib: Mapped[int] = mapped_column(server_default="100")
    grace_seconds: Mapped[int] = mapped_column(server_default="20")  # from "please end" to the kill
    force_stop: Mapped[bool] = mapped_column(server_default=text("false"))  # a machine that does not let go is stopped
    max_snapshots: Mapped[int] = mapped_column(server_default="5")  # of one machine
    delete_days: Mapped[int] = mapped_column(server_default="7")  # from asking for a deletion to the deletion
    # What GPUs did, by the minute and by the hour: for so many days. By the day: for ever.
    minute_days: Mapped[int] = mapped_column(server_default="35")
    hour_days: Mapped[int] = mapped_column(server_default="800")
    offer_minutes: Mapped[int] = mapped_column(server_default="30")  # how long the waiting list's offers stand
    reclaim: Mapped[Reclaim] = mapped_column(String(16), server_default=Reclaim.OFF.value)  # see services.idle
    idle_minutes: Mapped[int] = mapped_column(server_default="60")  # of doing nothing
    idle_held_minutes: Mapped[int] = mapped_column(server_default="120")  # the same with memory held; 0: for ever
    idle_percent: Mapped[int] = mapped_column(server_default="1")  # of a minute, from which on it was a busy one
    idle_grace: Mapped[int] = mapped_column(server_default="15")  # minutes from the warning to giving back
    keeps: Mapped[int] = mapped_column(server_default="2")  # how often one may say "keep" for a booking
    keep_minutes: Mapped[int] = mapped_column(server_default="60")  # for how long that holds
    charge: Mapped[Charge] = mapped_column(String(16), server_default=Charge.RECLAIMED.value)
    zone: Mapped[str | None] = mapped_column(String(64))  # the portal's, as it wrote it down: see services.zones
