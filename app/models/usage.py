"""What GPUs did: what they are at now, and what they did by the minute, the hour and the day, and for whom.

Everything a GPU does is somebody's: a booking's, an instance's that had none, or the host's own (see `Consumer`), so
that the rows of one GPU and one minute add up to that minute. Amounts are sums: parts of a minute add up to it as well.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Computed,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base

_BOOKED, _UNBOOKED = text("booking_id IS NOT NULL"), text("booking_id IS NULL")


class Consumer(Base):
    """Who used GPUs: a booking (in `instance`), an instance without one, or with `instance` "" the host itself.

    The host's own is also the time in which nobody had the GPU.
    """

    __tablename__ = "consumers"
    __table_args__ = (
        Index("uq_consumers_booking_id_instance", "booking_id", "instance", unique=True, postgresql_where=_BOOKED),
        Index("uq_consumers_host_id_instance", "host_id", "instance", unique=True, postgresql_where=_UNBOOKED),
        CheckConstraint("booking_id IS NULL OR instance <> ''", name="booked_by_an_instance"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"))
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"))
    instance: Mapped[str] = mapped_column(String(63), server_default="")


class Amounts:
    """What was measured. `busy_ms`: the time in which kernels ran, NVML's utilisation of what a sample stands for."""

    sampled_ms: Mapped[int] = mapped_column(Integer)  # for how long there are samples; the rest is unknown, not idle
    busy_ms: Mapped[int] = mapped_column(Integer)
    energy_j: Mapped[int] = mapped_column(Integer)
    memory_mib: Mapped[int] = mapped_column(Integer)  # the peak
    temperature: Mapped[int] = mapped_column(SmallInteger)  # the peak, in degrees Celsius; 0: not known


class UsageMinute(Amounts, Base):
    """One GPU's minute, for one consumer. Kept for weeks, then only by the hour."""

    __tablename__ = "usage_minutes"
    __table_args__ = (Index("ix_usage_minutes_minute", "minute", postgresql_using="brin"),)

    gpu_id: Mapped[int] = mapped_column(Integer, ForeignKey("gpus.id"), primary_key=True)
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    consumer_id: Mapped[int] = mapped_column(Integer, ForeignKey("consumers.id"), primary_key=True)


class UsageHour(Amounts, Base):
    """The same by the hour (UTC's)."""

    __tablename__ = "usage_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    gpu_id: Mapped[int] = mapped_column(Integer, ForeignKey("gpus.id"), primary_key=True)
    consumer_id: Mapped[int] = mapped_column(Integer, ForeignKey("consumers.id"), primary_key=True)


class UsageDay(Amounts, Base):
    """The same by the day, in the lab's zone: 23 to 25 hours. Kept for ever."""

    __tablename__ = "usage_days"

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    gpu_id: Mapped[int] = mapped_column(Integer, ForeignKey("gpus.id"), primary_key=True)
    consumer_id: Mapped[int] = mapped_column(Integer, ForeignKey("consumers.id"), primary_key=True)


class UsageHostHour(Base):
    """All that a host's GPUs did in an hour (UTC's), whoever had them: how a week goes. Kept as long as hours are."""

    __tablename__ = "usage_host_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    sampled_ms: Mapped[int]
    busy_ms: Mapped[int]


class UsagePiece(Base):
    """What a booking of the past had of one GPU on one of the lab's days, counted once: see services.reports.counted.

    In seconds, joules and MiB, as reports sum them up. Of an allocation with the mark `counted`, all of its days are
    here; of one without, none is. Kept as long as the booking is."""

    __tablename__ = "usage_pieces"

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    gpu_id: Mapped[int] = mapped_column(Integer, ForeignKey("gpus.id"), primary_key=True)
    booking_id: Mapped[int] = mapped_column(Integer, ForeignKey("bookings.id"), primary_key=True, index=True)
    # The booking's, so that a year's need not be joined.
    user_id: Mapped[int] = mapped_column(Integer)
    account_id: Mapped[int] = mapped_column(Integer)
    host_id: Mapped[int] = mapped_column(Integer)
    reserved: Mapped[float] = mapped_column(Double)
    attached: Mapped[float] = mapped_column(Double)
    late: Mapped[float] = mapped_column(Double)
    sampled: Mapped[float] = mapped_column(Double)
    busy: Mapped[float] = mapped_column(Double)
    energy: Mapped[float] = mapped_column(Double)  # of several machines together it may be more than an integer takes
    memory_mib: Mapped[int] = mapped_column(Integer)


class UsageBatch(Base):
    """What an agent has delivered, by its own name for it: what comes a second time is not added a second time."""

    __tablename__ = "usage_batches"

    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    delivered_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


# The host's own desktop is no use of it: see workers.unbooked.
_STRAY = '$[*] ? ((@.instance != "" || @.computes == true) && (@.booking == null || @.booking == 0))'


class GpuNow(Base):
    """What a GPU was last seen to be at, for the page of live GPUs; see services.samples.Now. `strays`: how many of its
    processes run in machines that have not booked it, or are the host's own and compute. `still_since`, `still_ms`: the
    end of its last minute with work (see services.activity), and how much was measured since. `curve`: how busy it was,
    in percent, in each minute of an hour, beginning with `curve_from`. All are counted when something is written, once
    for all who look."""

    __tablename__ = "gpus_now"

    gpu_id: Mapped[int] = mapped_column(ForeignKey("gpus.id", ondelete="CASCADE"), primary_key=True)
    seen_at: Mapped[datetime]
    values: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    processes: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    trouble: Mapped[str] = mapped_column(String(200), server_default="")  # why it could not be read; "" if it could
    strays: Mapped[int] = mapped_column(
        Integer, Computed(f"jsonb_array_length(jsonb_path_query_array(processes, '{_STRAY}'))", persisted=True)
    )
    still_since: Mapped[datetime | None]
    still_ms: Mapped[int | None] = mapped_column(Integer)
    curve_from: Mapped[datetime | None]
    curve: Mapped[list[int | None] | None] = mapped_column(ARRAY(SmallInteger))
