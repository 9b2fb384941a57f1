"""Long work that a host's agent does: on people's machines and on templates."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, one_of
from app.models.inventory import Instance
from app.models.templates import Template


class OperationKind(StrEnum):
    """What is done: on a machine, or (build and discard) on a template."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"
    PASSWORD = "password"  # noqa: S105 - set a new one inside
    FREEZE = "freeze"
    RENAME = "rename"
    RESIZE = "resize"
    REBUILD = "rebuild"
    SNAPSHOT = "snapshot"
    RESTORE = "restore"
    FORGET = "forget"  # delete a snapshot
    ADOPT = "adopt"  # take over an instance that Berth did not make
    BACKUP = "backup"  # make a file of its disk, to download
    LIBRARIES = "libraries"  # lend it the host's NVIDIA libraries
    MOVE = "move"  # to another member of its host's LXD cluster
    BUILD = "build"  # a template, in whichever way
    DISCARD = "discard"  # a template's image


class OperationState(StrEnum):
    """How far an operation is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Operation(Base):
    """One piece of long work on a machine or a template, with its progress. `step` is a code; the pages have the words.

    `log`: what was said meanwhile, for whoever looks after the lab; its beginning goes when it grows too long."""

    __tablename__ = "operations"
    __table_args__ = (
        one_of("kind", OperationKind),
        one_of("state", OperationState),
        CheckConstraint("percent BETWEEN 0 AND 100", name="percent"),
        CheckConstraint("num_nonnulls(instance_id, template_id) = 1", name="target"),
        # Two pieces of work on one instance would undo each other.
        Index(
            "uq_operations_open",
            "instance_id",
            unique=True,
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(
            "uq_operations_open_template",
            "template_id",
            unique=True,
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[OperationKind] = mapped_column(String(16))
    state: Mapped[OperationState] = mapped_column(String(16), server_default=OperationState.QUEUED)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id"), index=True)
    template_id: Mapped[int | None] = mapped_column(ForeignKey("templates.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # who asked; none: Berth, or the command line
    step: Mapped[str] = mapped_column(String(32), server_default="queued")
    percent: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str] = mapped_column(Text, server_default="")
    log: Mapped[str] = mapped_column(Text, server_default="")
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    instance: Mapped[Instance | None] = relationship(lazy="raise")
    template: Mapped[Template | None] = relationship(lazy="raise")
