"""Which GPUs are somebody's right now, seen from the machines and from the hosts; what the pages show, nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, not_, or_, select, update
from sqlalchemy.orm import joinedload

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Instance


def by_gpu(host_id: int | None = None) -> dict[int, Allocation]:
    """What runs now, by GPU id, with booking and owner; of one host or of all."""
    query = _running().options(joinedload(Allocation.booking).joinedload(Booking.user))
    if host_id is not None:
        query = query.where(Booking.host_id == host_id)
    return {allocation.gpu_id: allocation for allocation in db.session.scalars(query)}


def by_machine(machines: Sequence[Instance]) -> dict[int, list[Allocation]]:
    """What runs now for each of these machines, by its id, with booking and GPU.

    A booking that names no machine is for its owner's oldest one on that host.
    """
    owners, hosts = {machine.owner_id for machine in machines}, {machine.host_id for machine in machines}
    query = (
        _running()
        .where(Booking.user_id.in_(owners), Booking.host_id.in_(hosts))
        .options(joinedload(Allocation.booking).joinedload(Booking.instance), joinedload(Allocation.gpu))
        .order_by(Allocation.gpu_id)
    )
    oldest = (
        select(Instance.owner_id, Instance.host_id, func.min(Instance.id))
        .where(Instance.owner_id.in_(owners), Instance.host_id.in_(hosts), Instance.takes_gpus)
        .group_by(Instance.owner_id, Instance.host_id)
    )
    default = {(owner, host): machine for owner, host, machine in db.session.execute(oldest)}
    found: dict[int, list[Allocation]] = defaultdict(list)
    for allocation in db.session.scalars(query):
        booking = allocation.booking
        chosen = booking.named.id if booking.named else None
        found[chosen or default.get((booking.user_id, booking.host_id), 0)].append(allocation)
    return found


def default_machine(user_id: int, host_id: int) -> Instance | None:
    """What a person's bookings on a host are for that name no machine."""
    mine = (Instance.owner_id == user_id, Instance.host_id == host_id, Instance.takes_gpus)
    return db.session.scalars(select(Instance).where(*mine).order_by(Instance.id).limit(1)).first()


def stay(user_id: int, host_id: int) -> None:
    """Leave what a person has booked on a host to the machine that it is for now: an older one is about to be there.
    Else a GPU in use would be taken out of one and put into the other."""
    if (machine := default_machine(user_id, host_id)) is not None:
        named_in_vain = Booking.instance_id.in_(select(Instance.id).where(not_(Instance.takes_gpus)))
        free = or_(Booking.instance_id.is_(None), named_in_vain)
        mine = (Booking.user_id == user_id, Booking.host_id == host_id, free)
        open_still = (Booking.cancelled_at.is_(None), Booking.ends_at > clock.now())
        db.session.execute(update(Booking).where(*mine, *open_still).values(instance_id=machine.id))


def to_come(gpu_id: int, limit: int = 20) -> list[Allocation]:
    """What still counts on one GPU, running or later, with booking and owner; in order of start."""
    query = (
        select(Allocation)
        .where(Allocation.gpu_id == gpu_id, Allocation.released_at.is_(None), Allocation.ends_at > clock.now())
        .options(joinedload(Allocation.booking).joinedload(Booking.user))
        .order_by(Allocation.starts_at)
        .limit(limit)
    )
    return list(db.session.scalars(query))


def free_gpus(gpus: Sequence[Gpu], taken: dict[int, Any]) -> int:
    """How many of these GPUs could be given to somebody now."""
    return sum(gpu.state == "in_service" and gpu.id not in taken for gpu in gpus)


def _running() -> Select[Allocation]:
    now = clock.now()
    return (
        select(Allocation)
        .join(Booking)
        .where(
            Allocation.released_at.is_(None),
            Allocation.starts_at <= now,
            Allocation.ends_at > now,
            Booking.settled_at.is_(None),  # those are few, whatever is stored
            Booking.ends_at > now,
        )
    )
