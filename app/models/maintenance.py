"""Times in which GPUs are kept free for work on the workstation."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base
from app.models.inventory import Gpu, Host


class Maintenance(Base):
    """Somebody works on some GPUs of a host for `[starts_at, ends_at)`. `lifted_at`: when it was called off or over
    before its time."""

    __tablename__ = "maintenances"
    __table_args__ = (CheckConstraint("ends_at > starts_at", name="window"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(String(200), server_default="")
    actor: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lifted_at: Mapped[datetime | None]

    host: Mapped[Host] = relationship(lazy="raise")
    blocks: Mapped[list[Block]] = relationship(back_populates="maintenance", lazy="raise", order_by="Block.gpu_id")


class Block(Base):
    """One GPU of a maintenance, its window repeated: a trigger lets no allocation overlap it, nor it an allocation."""

    __tablename__ = "blocks"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="window"),
        Index("ix_blocks_gpu_id_ends_at", "gpu_id", "ends_at", postgresql_where=text("lifted_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    maintenance_id: Mapped[int] = mapped_column(ForeignKey("maintenances.id"), index=True)
    gpu_id: Mapped[int] = mapped_column(ForeignKey("gpus.id"))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    lifted_at: Mapped[datetime | None]

    maintenance: Mapped[Maintenance] = relationship(back_populates="blocks", lazy="raise")
    gpu: Mapped[Gpu] = relationship(lazy="raise")
