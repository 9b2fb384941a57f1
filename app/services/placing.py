"""Where a new machine goes: of the hosts that have the template, to the one with the most room.

Room is what the agents' slow looks found to be free now, not what is promised: people use a part of their limits only.
What is promised decides between hosts that both have room.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from app.errors import InvalidInput, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Gpu, GpuState, Host, Instance, Template, User
from app.services import attachments, inventory, templates
from app.services.checkup.pools import SPARE

GIB = 1 << 30
FULL = "full"  # the rule of a refusal that an admin may pass over


@dataclass(frozen=True)
class Room:
    """What a host has, in bytes; None: not known yet. `gpus`: in service. `promised`: the memory limits of its machines
    together. `disk`: the pool of new machines, of the kind `driver`."""

    host: str
    answers: bool = True
    machines: int = 0
    gpus: int = 0
    gpus_free: int = 0
    memory: int | None = None
    memory_used: int = 0
    promised: int = 0
    disk: int | None = None
    disk_used: int = 0
    driver: str = ""

    @property
    def memory_free(self) -> int | None:
        """What one more machine could have."""
        return None if self.memory is None else max(0, self.memory - self.memory_used)

    @property
    def disk_free(self) -> int | None:
        """Likewise; a part of the pool is left alone."""
        return None if self.disk is None else max(0, int(self.disk * (1 - SPARE)) - self.disk_used)

    @property
    def holds_disks(self) -> bool:
        """Whether a machine is kept to the size of its disk; also where that is not known."""
        return self.driver != "dir"

    def lacks(self, memory: int, disk: int) -> str:
        """What keeps a machine of that size from it: `answer`, `memory`, `disk`, or "" for nothing that is known."""
        if not self.answers:
            return "answer"
        if self.memory_free is not None and self.memory_free < memory:
            return "memory"
        return "disk" if self.disk_free is not None and self.disk_free < disk else ""

    @property
    def crowding(self) -> float:
        """How full it is: machines for each GPU, and the parts of GPUs, memory and disk that are taken."""
        busy = (self.gpus - self.gpus_free) / self.gpus if self.gpus else 0
        memory = self.promised / self.memory if self.memory else 0
        disk = self.disk_used / self.disk if self.disk else 0
        return self.machines / max(self.gpus, 1) + busy + memory + disk


def choose(rooms: Iterable[Room], memory: int, disk: int) -> Room | None:
    """The host for a machine of that size in bytes; None where none has room. One of which nothing is known, or that
    has no GPU, is taken only where there is no other."""
    fitting = [room for room in rooms if not room.lacks(memory, disk)]
    return min(fitting, key=lambda room: (room.memory is None, not room.gpus, room.crowding, room.host), default=None)


def rooms(silence: timedelta, host_ids: Collection[int] | None = None) -> dict[int, Room]:
    """The room of these hosts, or of all, by the host's id. An agent silent for `silence` does not answer."""
    query = select(Host).options(undefer(Host.survey))
    hosts = list(db.session.scalars(query if host_ids is None else query.where(Host.id.in_(host_ids))))
    machines = select(Instance.host_id, func.count(), func.sum(Instance.memory_mib)).group_by(Instance.host_id)
    alive = db.session.execute(machines.where(Instance.deleted_at.is_(None)))
    found = {host_id: (count, int(memory) << 20) for host_id, count, memory in alive}
    gpus: dict[int, list[Gpu]] = {}
    for gpu in db.session.scalars(select(Gpu).where(Gpu.state == GpuState.IN_SERVICE)):
        gpus.setdefault(gpu.host_id, []).append(gpu)
    taken = attachments.by_gpu()
    return {
        host.id: Room(
            host.name,
            host.seen_at is not None and not inventory.is_lost(host, silence),
            found.get(host.id, (0, 0))[0],
            len(gpus.get(host.id, [])),
            attachments.free_gpus(gpus.get(host.id, []), taken),
            host.survey.get("memory"),
            host.survey.get("memory_used") or 0,
            found.get(host.id, (0, 0))[1],
            *_pool(host.survey),
        )
        for host in hosts
    }


def place(name: str, owner: User | None, silence: timedelta, *, memory_gib: int, disk_gib: int) -> Template:
    """The template of that name on the host with the most room, of those offered to `owner` (None: all).

    Raises InvalidInput where no host offers it, RuleRefused where none that does has room."""
    offered = {one.host_id: one for one in templates.offered(owner) if one.name == name}
    if not offered:
        raise InvalidInput(_("No host offers the template %(name)s.", name=name), field="image")
    known = rooms(silence, offered)
    best = choose(known.values(), memory_gib * GIB, disk_gib * GIB)
    if best is None:
        why = [_lack(room, room.lacks(memory_gib * GIB, disk_gib * GIB)) for room in known.values()]
        raise RuleRefused(
            _("No host has room for a machine of this size from %(name)s.", name=name),
            " ".join(sorted(why)),
            rule="room",
        )
    return next(one for host_id, one in offered.items() if known[host_id] is best)


def seen(host: Host, pool: str = "") -> Room:
    """What a chosen host has for more memory and disk, whether it answers now or later. `pool`: the storage pool that
    the disk is of; "": that of new machines."""
    memory, used = host.survey.get("memory"), host.survey.get("memory_used") or 0
    size, taken, driver = _pool(host.survey, pool)
    return Room(host.name, memory=memory, memory_used=used, disk=size, disk_used=taken, driver=driver)


def lacking(host: Host, memory_gib: int, disk_gib: int, pool: str = "") -> str:
    """What a chosen host has less left of than that, in words; "" for nothing that is known. `pool` as of `seen`."""
    room = seen(host, pool)
    what = room.lacks(memory_gib * GIB, disk_gib * GIB)
    return _lack(room, what) if what else ""


def require(
    actor: User | None, host: Host, *, memory_gib: int, disk_gib: int, pool: str = "", anyway: bool = False
) -> None:
    """Refuse so much more on a chosen host where it has less left. `anyway`: an admin wants it all the same. Nobody in
    particular (`actor` None) is not refused. `pool` as of `seen`. Raises RuleRefused."""
    if actor is None or (anyway and actor.is_admin):
        return
    if lack := lacking(host, memory_gib, disk_gib, pool):
        raise RuleRefused(lack, _("Take less, or go where there is room."), rule=FULL)


def _lack(room: Room, what: str) -> str:
    if what == "answer":
        return _("%(host)s does not answer.", host=room.host)
    if what == "memory":
        return _("%(host)s has %(free)s GiB of memory free.", host=room.host, free=(room.memory_free or 0) // GIB)
    return _("%(host)s has %(free)s GiB of disk free.", host=room.host, free=(room.disk_free or 0) // GIB)


def _pool(survey: dict[str, Any], name: str = "") -> tuple[int | None, int, str]:
    """Size, use and kind of that pool; of the one that new machines go to."""
    pools = survey.get("pools", [])
    found = next((pool for pool in pools if pool["name"] == (name or survey.get("pool"))), None)
    if found is None:
        return None, 0, ""
    return found["total"], found["used"] or 0, str(found["driver"])
