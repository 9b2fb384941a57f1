"""Letting a person in with a machine of their own, in one step: neither waits for the other to work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.errors import DomainError, InvalidInput
from app.extensions import db
from app.models import Host, Instance, Operation, User
from app.services import accounts, instances, names, placing, policy, templates
from app.services.rules import classes

USUAL = {"cpus": 4, "memory_gib": 16, "disk_gib": 50}  # a new machine's limits, where the rules allow as much
LONGEST = 30  # characters of a machine's name


@dataclass(frozen=True)
class Admitted:
    """Who was let in. `host` makes the machine `name`; without one, `refused` says why, or none was asked for."""

    user: User
    name: str = ""
    host: Host | None = None
    operation: Operation | None = None
    refused: DomainError | None = None


@dataclass(frozen=True)
class Answer:
    """What came of one of several: how they were let in, or why not."""

    user: User
    admitted: Admitted | None = None
    refused: DomainError | None = None


def approve(
    username: str,
    hours: float,
    *,
    actor: User,
    zone: ZoneInfo,
    template: str,
    silence: timedelta,
    refused: bool = True,
) -> Admitted:
    """Approve a person, and ask for a machine from the template of that name ("": none) where there is room.

    `refused`, and what it raises: as accounts.approve. What is wrong with the machine keeps nobody out."""
    user = accounts.approve(username, hours, actor=actor.username, zone=zone, refused=refused)
    return provide(user, actor=actor, template=template, silence=silence) if template else Admitted(user)


def approve_several(
    usernames: Iterable[str],
    hours: float,
    *,
    actor: User,
    zone: ZoneInfo,
    template: str,
    silence: timedelta,
    class_id: int | None = None,
) -> list[Answer]:
    """Approve each of these people who still waits, all alike; what is wrong with one of them keeps no other out.

    `class_id`: the class of their accounts (None: as it is). Raises InvalidInput for hours that cannot be meant."""

    def admit(user: User) -> Answer:
        try:
            with db.session.begin_nested():
                admitted = approve(
                    user.username, hours, actor=actor, zone=zone, template=template, silence=silence, refused=False
                )
                if class_id is not None:
                    classes.assign(actor, accounts.account_of(user.username), class_id)
        except InvalidInput:
            raise
        except DomainError as error:
            return Answer(user, refused=error)
        return Answer(user, admitted)

    return [admit(user) for user in accounts.locked_all(usernames)]


def provide(user: User, *, actor: User, template: str, silence: timedelta) -> Admitted:
    """Ask for a machine for somebody, of the usual size, where there is room, under a name made of theirs."""
    size, name = usual_size(), free_name(user.username)
    cpus, memory, disk = size["cpus"], size["memory_gib"], size["disk_gib"]
    try:
        with db.session.begin_nested():
            found = placing.place(template, None, silence, memory_gib=memory, disk_gib=disk)
            operation = instances.request_create(
                actor, user, name=name, host=found.host, template=found, cpus=cpus, memory_gib=memory, disk_gib=disk
            )
    except DomainError as error:
        return Admitted(user, refused=error)
    return Admitted(user, name, found.host, operation)


def usual_size() -> dict[str, int]:
    """The limits that a new machine has by itself."""
    rules = policy.current()
    most = {"cpus": rules.max_cpus, "memory_gib": rules.max_memory_gib, "disk_gib": rules.max_disk_gib}
    return {name: min(usual, most[name]) for name, usual in USUAL.items()}


def free_name(username: str) -> str:
    """The username as a machine's name, or with a number behind it where somebody has such a machine already."""
    taken = set(db.session.scalars(select(Instance.name).where(Instance.deleted_at.is_(None))))
    base = username[: LONGEST - 4].strip("-")
    base = f"m-{base}" if base.startswith(names.RESERVED_PREFIX) else base
    tries = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(name for name in tries if name not in taken and not names.reserved(name))


def template_names() -> list[str]:
    """What machines can be made from, over all hosts: each name once, those with a desktop first."""
    offered = templates.offered(None)
    desktop = {one.name for one in offered if one.desktop}
    return sorted({one.name for one in offered}, key=lambda name: (name not in desktop, name))
