"""The lab's rules that an admin can change: one row."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Policy(Base):
    """Rules for everybody. One row, id 1, made by the migration."""

    __tablename__ = "policies"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        CheckConstraint("horizon_days > 0 AND max_hours > 0 AND max_gpus > 0", name="limits"),
        CheckConstraint("grace_seconds >= 0", name="grace"),
        CheckConstraint("offer_minutes > 0", name="offer"),
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
