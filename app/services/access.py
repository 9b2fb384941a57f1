"""What an agent needs to know of the ways into its machines, and what it writes down of them.

`Instance.health`, all as codes: `account` ("ok", "taken", "failed"), `missing` (programs that the image lacks),
`ssh` and `rdp` ("" answers, None: not asked yet, else why not: app.drivers.doors) with `ssh_since` and `rdp_since`,
`desktop` (one answered once), `host_keys`, and `uid` (the account's number).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import joinedload

from app import clock
from app.drivers.doors import Door
from app.errors import Conflict
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, InstanceStatus, Operation, Port, SshKey, User
from app.services import audit, operations, ports
from app.services.unix_ids import uid_of

# What a machine says of itself is its own text: nothing but this may be a host key, and its comment is dropped.
HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/]{60,800}={0,2}")
MISSING = frozenset({"sshd", "sudo", "useradd", "bash", "openssl", "ssh-keygen"})
MOST_KEYS = 3


@dataclass(frozen=True)
class Entrance:
    """One machine with its doors, by port id, and the keys that should be in it."""

    instance_id: int
    name: str
    login: str
    uid: int  # the account's, where the machine has it free
    running: bool
    doors: dict[int, Door]
    keys: tuple[str, ...]
    keys_at: datetime | None  # the state of the person's keys that `keys` is
    keys_written: datetime | None  # the state that is in the machine
    health: dict[str, Any]
    mark: str

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to make inside."""
        return self.health.get("account") in {"ok", "taken"}


def entrances(host: Host, instance_id: int | None = None) -> list[Entrance]:
    """The host's machines that have doors, but for those on which work is under way; or the one asked for."""
    query = (
        select(Instance)
        .where(Instance.host_id == host.id, Instance.deleted_at.is_(None))
        .options(joinedload(Instance.owner))
    )
    if instance_id is not None:
        query = query.where(Instance.id == instance_id)
    else:
        busy = exists().where(
            Operation.instance_id == Instance.id,
            Operation.state.in_(operations.OPEN),
            Operation.kind.not_in(operations.QUIET),
        )
        has_doors = exists().where(Port.instance_id == Instance.id, Port.released_at.is_(None))
        still = Instance.status.in_([InstanceStatus.RUNNING, InstanceStatus.STOPPED])
        query = query.where(has_doors, still, ~busy)
    machines = list(db.session.scalars(query))  # before their keys: a change in between is one that comes later
    if not machines:
        return []
    owners, found = {machine.owner_id for machine in machines}, [machine.id for machine in machines]
    keys = list(db.session.scalars(select(SshKey).where(SshKey.user_id.in_(owners)).order_by(SshKey.id)))
    doors = [port for of_one in ports.by_machine(found).values() for port in of_one.values()]
    return [_entrance(machine, host, doors, keys) for machine in machines]


def note(instance_id: int, **found: Any) -> None:
    """Write down what was seen, if it is news."""
    machine = db.session.get(Instance, instance_id)
    if machine is None:
        return
    health = dict(machine.health)
    for name, value in found.items():
        if name in {"ssh", "rdp"} and health.get(name) != value:
            health[f"{name}_since"] = clock.now().isoformat()
        health[name] = value
        if name == "rdp" and value == "":
            health["desktop"] = True
    if health != machine.health:
        machine.health = health
        db.session.flush()


def has_keys(instance_id: int) -> bool:
    """Whether the machine has its owner's keys as they are now."""
    same = Instance.keys_at.is_not_distinct_from(User.keys_changed_at)
    return bool(
        db.session.scalar(select(same).join(User, User.id == Instance.owner_id).where(Instance.id == instance_id))
    )


def wrote_keys(instance_id: int, state: datetime | None) -> None:
    """The machine has the keys as they were at `state`."""
    machine = db.session.get(Instance, instance_id)
    if machine is not None:
        machine.keys_at = state
        db.session.flush()


def mend(actor: User | None, instance: Instance) -> None:
    """Have the machine's agent make anew what is missing of the ways in. Host must be loaded. Raises Conflict."""
    if instance.status not in {InstanceStatus.RUNNING, InstanceStatus.STOPPED}:
        raise Conflict(_("%(name)s does not run.", name=instance.name))
    ports.reserve(instance, instance.host)
    instance.health, instance.keys_at = {}, None
    db.session.flush()
    audit.record(actor.username if actor else audit.SYSTEM, "instance.mend.asked", f"instance:{instance.name}")


def host_keys(text: str) -> list[str]:
    """The host keys among the lines of a machine's own text."""
    lines = (" ".join(line.split(" ")[:2]) for line in text[:16_384].splitlines())
    return [line for line in dict.fromkeys(lines) if HOST_KEY.fullmatch(line)][:MOST_KEYS]


def account_uid(lines: Iterable[str]) -> int | None:
    """The number that the account inside has, as the machine says."""
    said = (line.removeprefix("uid ") for line in lines if line.startswith("uid "))
    return next((int(text) for text in said if text.isascii() and text.isdigit() and len(text) < 11), None)


def missing(words: Iterable[str]) -> list[str]:
    """What a machine lacks, of what it may say that it lacks."""
    return sorted(MISSING & set(words))


def _entrance(machine: Instance, host: Host, doors: list[Port], keys: list[SshKey]) -> Entrance:
    return Entrance(
        machine.id,
        machine.name,
        machine.owner.username,
        uid_of(machine.owner),
        machine.status == InstanceStatus.RUNNING,
        {port.id: ports.door(port, host) for port in doors if port.instance_id == machine.id},
        tuple(key.text for key in keys if key.user_id == machine.owner_id),
        machine.owner.keys_changed_at,
        machine.keys_at,
        dict(machine.health),
        f"{machine.id} {machine.created_at.isoformat()}",
    )
