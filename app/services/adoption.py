"""Taking over an instance that somebody made by hand: it becomes a machine of Berth's, with an owner."""

from __future__ import annotations

import re

from sqlalchemy import select

from app.errors import RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, InstanceStatus, Operation, OperationKind, User
from app.services import instances, names, operations, policy, ports
from app.services.surveys import Row

_SIZE = re.compile(r"(\d{1,9})\s*([KMGT])i?B?")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}


def obstacle(row: Row) -> str:
    """Why an instance cannot be taken over, or ""."""
    if row.machine is not None:
        return _("%(name)s is a machine of Berth's already.", name=row.name)
    if row.seen.get("privileged"):
        return _(
            "%(name)s is privileged: root in it is root on the host. Set security.privileged=false and restart it.",
            name=row.name,
        )
    if row.seen.get("kind") != "container":
        return _("%(name)s is a virtual machine; Berth looks after containers.", name=row.name)
    if not instances.NAME.fullmatch(row.name) or names.reserved(row.name):
        return _("Its name is none for a machine of Berth's. Rename it on its host with lxc rename.")
    return ""


def sizes(row: Row) -> dict[str, int]:
    """The limits that it is taken over with: its own, and the lab's largest where it has none."""
    rules = policy.current()
    cpus = str(row.seen.get("cpus", ""))
    memory, disk = _mib(row.seen.get("memory_limit", "")), _mib(row.seen.get("disk_limit", ""))
    return {
        "cpus": int(cpus) if cpus.isdigit() and int(cpus) else rules.max_cpus,
        "memory_mib": memory or rules.max_memory_gib * 1024,
        "disk_gib": max(1, disk // 1024) if disk else rules.max_disk_gib,
    }


def adopt(actor: User, row: Row, owner: User) -> Operation:
    """Ask the host's agent to take it over. Raises RuleRefused, InvalidInput."""
    if refused := obstacle(row):
        raise RuleRefused(refused, rule="adopt")
    image = str(row.seen.get("image") or "?")[:120]
    instance = Instance(
        name=row.name, host_id=row.host.id, owner_id=owner.id, image=image, status=InstanceStatus.MISSING,
        observed=row.seen, **sizes(row),
    )  # fmt: skip
    with names.claiming(row.name, field="owner"):
        db.session.add(instance)
        db.session.flush()
        ports.reserve(instance, row.host)
    return operations.enqueue(actor, instance, OperationKind.ADOPT)


def failure(host: Host, name: str) -> str:
    """Why the last attempt to take this instance over failed; "" if it did not, or there was none."""
    query = (
        select(Operation.error)
        .join(Instance, Instance.id == Operation.instance_id)
        .where(Operation.kind == OperationKind.ADOPT, Operation.host_id == host.id, Instance.name == name)
        .order_by(Operation.id.desc())
        .limit(1)
    )
    return db.session.scalar(query) or ""


def _mib(text: str) -> int:
    match = _SIZE.fullmatch(str(text))
    return int(int(match[1]) * _MIB[match[2]]) if match else 0
