"""Hosts, their GPUs, people's instances, and the long work done on them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    and_,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base, one_of

if TYPE_CHECKING:
    from app.models.templates import Template


class LibraryChoice(StrEnum):
    """How an admin wants NVIDIA's libraries to come into a host's new machines."""

    AUTO = "auto"  # the best way that the host can do
    RUNTIME = "runtime"  # by LXD's nvidia.runtime
    MOUNT = "mount"  # a read-only directory that the agent keeps
    OWN = "own"  # each machine brings its own


class Host(Base):
    """A workstation that runs LXD and has GPUs. `endpoint`: an LXD socket, an https address, or `sim:`."""

    __tablename__ = "hosts"
    __table_args__ = (
        CheckConstraint("1024 <= first_port AND first_port <= last_port AND last_port <= 65535", name="ports"),
        one_of("libraries", LibraryChoice),
        CheckConstraint("desktop_port BETWEEN 1 AND 65535", name="desktop_port"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    endpoint: Mapped[str] = mapped_column(String(255))
    lxd_version: Mapped[str] = mapped_column(String(32), server_default="")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    images: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default="[]")  # alias and description of each
    seen_at: Mapped[datetime | None]  # the agent's last sign of life
    pass_at: Mapped[datetime | None]  # end of the last pass that could look at the host
    pass_ms: Mapped[int | None]
    # Why the last pass could not, or not for who holds its GPUs; "" when it could: see services.inventory.is_away.
    trouble: Mapped[str] = mapped_column(Text, server_default="")
    # What the last look showed, for pages that have no way to the host: see services.drift and services.checkup.
    observed: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    findings: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default="[]")
    checked_at: Mapped[datetime | None]  # when the findings were made
    # What the agent's slow look found on it, instances that are not Berth's too (see services.surveys): large, so it is
    # loaded only where it is shown.
    survey: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}", deferred=True)
    surveyed_at: Mapped[datetime | None]
    # Where people reach its machines; "": by the host's name. Their ports are of this range, both ends included.
    address: Mapped[str] = mapped_column(String(255), server_default="")
    listen: Mapped[str] = mapped_column(String(64), server_default="0.0.0.0")  # noqa: S104 - people come over the network
    first_port: Mapped[int] = mapped_column(server_default="22000")
    last_port: Mapped[int] = mapped_column(server_default="22999")
    image_files: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # its directory for them, and their names
    driver_version: Mapped[str] = mapped_column(String(32), server_default="")  # of NVIDIA's driver; "" if not known
    terminal_url: Mapped[str] = mapped_column(String(255), server_default="")  # where its agent serves terminals
    libraries: Mapped[LibraryChoice] = mapped_column(String(8), server_default=LibraryChoice.AUTO)
    # How they do come, and why so: see app.drivers.libraries.Brought. Empty until the agent has said it.
    libraries_seen: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # The workstation's own desktop, for admins: its port where they are offered it, and whether Remote Desktop answered
    # there the last time: "" if so, None: not asked yet, else why not (app.drivers.doors).
    desktop_port: Mapped[int | None]
    desktop_answer: Mapped[str | None] = mapped_column(String(16))
    # Its name in its LXD cluster, and one text for all members of that; "" of a host that is alone.
    member: Mapped[str] = mapped_column(String(63), server_default="")
    cluster: Mapped[str] = mapped_column(String(64), server_default="")

    @property
    def simulated(self) -> bool:
        """Whether there is no real workstation behind this host."""
        return self.endpoint.startswith("sim:")


class GpuState(StrEnum):
    """Whether a GPU may be given to anybody."""

    IN_SERVICE = "in_service"
    MAINTENANCE = "maintenance"
    QUARANTINE = "quarantine"


class Gpu(Base):
    """One physical GPU of a host. Its PCI address is unique there, and only there.

    In quarantine: it could not be proven free, since `quarantined_at` and for `quarantine_reason` (for an admin).
    `added_at`: None if it came with its host. `gone_at`: since when a sync does not find it there any more.
    """

    __tablename__ = "gpus"
    __table_args__ = (UniqueConstraint("host_id", "pci_address"), one_of("state", GpuState))

    id: Mapped[int] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)
    model: Mapped[str] = mapped_column(String(120))
    pci_address: Mapped[str] = mapped_column(String(12))
    minor: Mapped[int]  # N of /dev/nvidiaN
    uuid: Mapped[str] = mapped_column(String(64), server_default="")
    state: Mapped[GpuState] = mapped_column(String(16), server_default=GpuState.IN_SERVICE)
    quarantined_at: Mapped[datetime | None]
    quarantine_reason: Mapped[str] = mapped_column(Text, server_default="")
    added_at: Mapped[datetime | None]
    gone_at: Mapped[datetime | None]

    host: Mapped[Host] = relationship(lazy="raise")


class InstanceStatus(StrEnum):
    """What an instance was last seen to be."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    FROZEN = "frozen"
    FAILED = "failed"  # its creation ended in an error
    MISSING = "missing"  # the host does not have it (any more)


class Schedule(StrEnum):
    """How often the agent makes a snapshot of a machine by itself."""

    NEVER = "never"
    DAILY = "daily"
    WEEKLY = "weekly"


class Instance(Base):
    """An LXD container that belongs to one person; the pages say "machine"."""

    __tablename__ = "instances"
    __table_args__ = (
        one_of("status", InstanceStatus),
        one_of("schedule", Schedule),
        CheckConstraint("keep > 0", name="keep"),
        # One name over all hosts: people type it, and hosts that share a kernel share its cgroup.
        Index("uq_instances_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
        CheckConstraint("cpus > 0 AND memory_mib > 0 AND disk_gib > 0", name="limits"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    image: Mapped[str] = mapped_column(String(120))
    template_id: Mapped[int | None] = mapped_column(ForeignKey("templates.id"), index=True)
    cpus: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[int]
    status: Mapped[InstanceStatus] = mapped_column(String(16), server_default=InstanceStatus.CREATING)
    status_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    password_at: Mapped[datetime | None]  # when the password inside was last set from here
    keys_at: Mapped[datetime | None]  # when its owner's SSH keys were last written into it
    # What the agent last saw of the ways in: see services.access.
    health: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # What the agent's slow look saw of it, its snapshots too: see services.surveys.
    observed: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    autostart: Mapped[bool] = mapped_column(server_default=text("true"))  # started after a reboot of its host
    delete_at: Mapped[datetime | None]  # somebody asked for its deletion; until then it can be kept
    schedule: Mapped[Schedule] = mapped_column(String(8), server_default=Schedule.NEVER)
    keep: Mapped[int] = mapped_column(server_default="3")  # so many of the snapshots made by schedule

    host: Mapped[Host] = relationship(lazy="raise")
    owner: Mapped[User] = relationship(lazy="raise")
    template: Mapped[Template | None] = relationship("Template", lazy="selectin")  # wherever it is shown, so is this

    @hybrid_property
    def takes_gpus(self) -> bool:
        """Whether what is booked for none of its owner's machines in particular may be for it: not one that is on its
        way out, nor one that never came to be."""
        return self.deleted_at is None and self.delete_at is None and self.status != InstanceStatus.FAILED

    @takes_gpus.inplace.expression
    @classmethod
    def _takes_gpus(cls) -> ColumnElement[bool]:
        return and_(cls.deleted_at.is_(None), cls.delete_at.is_(None), cls.status != InstanceStatus.FAILED)

    @property
    def made_from(self) -> str:
        """What it was made from, as people know it."""
        return self.template.name if self.template else self.image
