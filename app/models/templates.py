"""What machines are made from: images of a host with a name, a description, and who may use them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, String, Table, Text, func, text
from sqlalchemy.orm import Mapped, deferred, mapped_column, relationship

from app.models.accounts import User
from app.models.base import Base, one_of
from app.models.inventory import Host


class TemplateKind(StrEnum):
    """How a template comes to be."""

    RECIPE = "recipe"  # by a recipe that Berth brings along
    IMAGE = "image"  # from an image that the host has or can get
    FILE = "file"  # from an image's file that an admin put on the host
    INSTANCE = "instance"  # from an instance that somebody prepared


class TemplateState(StrEnum):
    """Whether machines can be made from it."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


template_users = Table(
    "template_users",
    Base.metadata,
    Column("template_id", ForeignKey("templates.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True),
)


class Template(Base):
    """An image on one host. `source`: the recipe, the image, its file or the instance it is made from, by `kind`.

    `options`: what the recipe was told (mirror, packages, …), and of a file its SHA-256. `image`: the alias on the
    host, once it is ready. For everybody, or for `users` alone. A retired one is offered to nobody; machines made from
    it go on.
    """

    __tablename__ = "templates"
    __table_args__ = (
        one_of("kind", TemplateKind),
        one_of("state", TemplateState),
        Index("uq_templates_name", "host_id", "name", unique=True, postgresql_where=text("retired_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)
    name: Mapped[str] = mapped_column(String(63))
    description: Mapped[str] = mapped_column(Text, server_default="")
    kind: Mapped[TemplateKind] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(255))
    options: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    state: Mapped[TemplateState] = mapped_column(String(16), server_default=TemplateState.BUILDING)
    image: Mapped[str] = mapped_column(String(120), server_default="")
    desktop: Mapped[bool] = mapped_column(server_default=text("false"))  # has a remote desktop
    size_bytes: Mapped[int] = mapped_column(server_default="0")
    driver_version: Mapped[str] = mapped_column(String(32), server_default="")  # of NVIDIA's libraries in it
    picture: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))  # PNG; loaded only where it is shown
    for_everyone: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]

    host: Mapped[Host] = relationship(lazy="raise")
    users: Mapped[list[User]] = relationship(secondary=template_users, lazy="raise")
