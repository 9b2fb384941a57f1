"""What the agents' slow looks found, kept for pages that have no way to a host: written here, and listed for admins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import joinedload, undefer

from app import clock
from app.drivers.survey import HostUse, InstanceUse, PoolUse
from app.errors import NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, User
from app.services import full_disks

PAGE = 50
_WORKED = "worked"  # among what is observed of a machine: when it was looked at after work on it, seconds since 1970
FOREIGN = "-"  # in place of an owner's name, which has no hyphen in front: instances that are not Berth's
DISK_FULL = "disk_full"  # for a state: machines of Berth's whose disk is full or nearly so


def record(host: Host, found: HostUse, cpu: Mapping[str, float], began: datetime) -> None:
    """Write down a slow look that began then: each machine's part with the machine, unless what was done to it has been
    looked at since; all else with the host. `cpu`: CPUs in use."""
    # The host first, as a pass does: each would wait for the other.
    db.session.execute(select(Host.id).where(Host.id == host.id).with_for_update(key_share=True))
    ours = _ours(host, found)
    drivers = {pool.name: pool.driver for pool in found.pools}
    on = Counter(use.pool for use in found.instances.values())
    seen = {name: _shown(use, drivers, cpu.get(name)) for name, use in found.instances.items()}
    rows = [
        {"id": one.id, "observed": full_disks.follow(host.name, one.id, name, one.disk_gib, one.told, seen[name])}
        for name, one in ours.items()
        if not began.timestamp() < (one.worked or 0.0) <= clock.now().timestamp()  # unless a clock was ahead
    ]
    host.member, host.cluster = found.member[:63], found.cluster[:64]
    host.survey = {
        "instances": {name: one for name, one in seen.items() if name not in ours},
        "pools": [asdict(pool) | {"machines": on[pool.name]} for pool in found.pools],
        "profiles": [asdict(profile) for profile in found.profiles],
        "networks": [asdict(network) for network in found.networks],
        "pool": found.pool,
        "memory": found.memory,
        "memory_used": found.memory_used,
    }
    host.surveyed_at = clock.now()
    db.session.flush()
    if rows:
        db.session.execute(update(Instance), rows)


class _Own(NamedTuple):
    """A machine of Berth's. `worked` and `told`: as among what is observed of it."""

    id: int
    name: str
    owner: str
    disk_gib: int
    worked: float | None
    told: float | None


def _ours(host: Host, found: HostUse) -> dict[str, _Own]:
    """Those that were found, by name, and locked."""
    query = (
        select(
            *(Instance.id, Instance.name, User.username, Instance.disk_gib),
            *(Instance.observed[_WORKED].as_float(), Instance.observed[full_disks.TOLD].as_float()),
        )
        .join(Instance.owner)
        .where(Instance.host_id == host.id, Instance.deleted_at.is_(None))
        .order_by(Instance.id)
        .with_for_update(of=Instance, key_share=True)
    )
    every = (_Own(*row) for row in db.session.execute(query))
    return {
        one.name: one for one in every if one.name in found.instances and found.instances[one.name].owner == one.owner
    }


def pools(host_id: int | None = None) -> dict[int, tuple[PoolUse, ...]]:
    """By host, or of one: the storage pools that have instances on them, or are for new ones."""
    query = select(Host.id, Host.survey["pools"], Host.survey["pool"].astext)
    return {
        number: tuple(
            PoolUse(one["name"], one["driver"], one["used"], one["total"])
            for one in found or ()
            if one.get("machines") or one["name"] == new
        )
        for number, found, new in db.session.execute(query if host_id is None else query.where(Host.id == host_id))
    }


def record_one(instance_id: int, found: HostUse, began: datetime) -> None:
    """Write down what one machine has after work on it, by a look that began then."""
    query = select(Instance).where(Instance.id == instance_id)
    query = query.options(joinedload(Instance.owner), joinedload(Instance.host))
    query = query.with_for_update(of=Instance, key_share=True).execution_options(populate_existing=True)
    instance = db.session.scalar(query)
    use = found.instances.get(instance.name) if instance is not None else None
    if instance is not None and use is not None and use.owner == instance.owner.username:
        drivers = {pool.name: pool.driver for pool in found.pools}
        shown = _shown(use, drivers, instance.observed.get("cpu"))
        told = instance.observed.get(full_disks.TOLD)
        shown = full_disks.follow(instance.host.name, instance.id, instance.name, instance.disk_gib, told, shown)
        instance.observed = shown | {_WORKED: began.timestamp()}
        db.session.flush()


def _shown(use: InstanceUse, drivers: Mapping[str, str], cpu: float | None) -> dict[str, Any]:
    found = asdict(use) | {"cpu": cpu, "pool_driver": drivers.get(use.pool, "")}
    del found["cpu_seconds"]
    found["snapshots"] = [{"name": one.name, "at": one.created_at, "size": one.size} for one in use.snapshots]
    return found


@dataclass(frozen=True)
class Row:
    """One instance of a host, Berth's (`machine`) or not. `seen`: what the last slow look found, empty if nothing."""

    host: Host
    name: str
    status: str
    seen: dict[str, Any]
    machine: Instance | None = None

    @property
    def owner(self) -> str:
        """Whose it is; "" for nobody's."""
        return self.machine.owner.username if self.machine else ""

    @property
    def full(self) -> bool:
        """Whether it is Berth's, and its disk full or nearly so."""
        return self.machine is not None and full_disks.is_full(self.machine)

    @property
    def image(self) -> str:
        """What it was made from."""
        return self.machine.made_from if self.machine else str(self.seen.get("image", ""))

    def matches(self, text: str, host: str, status: str, owner: str) -> bool:
        """Whether it is among what is looked for; "" asks for nothing."""
        words = (self.name, self.owner, self.image, self.host.name, *self.seen.get("addresses", ()))
        return (
            (not text or any(text in word.lower() for word in words))
            and host in {"", self.host.name}
            and (status in {"", self.status} or (status == DISK_FULL and self.full))
            and owner in {"", self.owner or FOREIGN}
        )


@dataclass(frozen=True)
class Listing:
    """A page of the list, how many match in all, and what there is to choose from: of states, DISK_FULL too where a
    machine's is."""

    rows: list[Row]
    total: int
    hosts: list[str]
    statuses: list[str]
    owners: list[str]


def listing(text: str = "", host: str = "", status: str = "", owner: str = "", page: int = 1) -> Listing:
    """All instances of all hosts by host and name, in two queries. Page 0: all that match."""
    hosts = list(db.session.scalars(select(Host).options(undefer(Host.survey)).order_by(Host.name)))
    query = select(Instance).where(Instance.deleted_at.is_(None))
    query = query.options(joinedload(Instance.host), joinedload(Instance.owner))
    rows = [_own(machine) for machine in db.session.scalars(query)]
    ours = {(row.host.id, row.name) for row in rows}  # one may have become Berth's since the last look
    rows += [row for one in hosts for row in _foreign(one) if (row.host.id, row.name) not in ours]
    found = sorted(
        (row for row in rows if row.matches(text.strip().lower(), host, status, owner)),
        key=lambda row: (row.host.name, row.name),
    )
    return Listing(
        found[(page - 1) * PAGE : page * PAGE] if page else found,
        len(found),
        [one.name for one in hosts],
        [*sorted({row.status for row in rows}), *([DISK_FULL] if any(row.full for row in rows) else [])],
        sorted({row.owner for row in rows if row.owner}),
    )


def find(host: Host, name: str) -> Row:
    """One instance of a host, Berth's or not. Raises NotFound."""
    query = (
        select(Instance)
        .where(Instance.host_id == host.id, Instance.name == name, Instance.deleted_at.is_(None))
        .options(joinedload(Instance.host), joinedload(Instance.owner))
    )
    machine = db.session.scalar(query)
    if machine is not None:
        return _own(machine)
    for row in _foreign(host):
        if row.name == name:
            return row
    raise NotFound(_("%(host)s has no instance %(name)s.", host=host.name, name=name))


def _own(machine: Instance) -> Row:
    return Row(machine.host, machine.name, str(machine.status), machine.observed, machine)


def _foreign(host: Host) -> list[Row]:
    found: dict[str, dict[str, Any]] = host.survey.get("instances", {})
    return [Row(host, name, str(seen["status"]), seen) for name, seen in found.items()]
