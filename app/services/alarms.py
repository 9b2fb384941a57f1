"""What an admin should look at: on how many hosts something is wrong, and what happened on one of them lately."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import and_, exists, func, or_, select

from app import clock
from app.drivers.gauges import SILENT
from app.extensions import db
from app.models import Allocation, AuditEvent, Booking, Gpu, GpuNow, GpuState, Host
from app.services import live_seen
from app.services.checkup import pools

ACTIONS = (
    "gpu.intruder", "gpu.used_unbooked", "gpu.unreadable", "gpu.quarantined", "gpu.released", "instance.force_stopped",
    "host.pool_full", "job.refused",
)  # fmt: skip
DAYS = 30  # how far back events are looked for; the audit page has them all
# A host that is not offered and has no booking left may be switched off without an alarm.
_NEEDED = or_(Host.enabled, exists().where(Booking.host_id == Host.id, Booking.settled_at.is_(None)))


def needed_hosts() -> set[int]:
    """The hosts, by id, whose silence is an alarm."""
    return set(db.session.scalars(select(Host.id).where(_NEEDED)))


def needed_gpus() -> set[int]:
    """The GPUs, by id, that should be read: of those hosts, and neither gone nor in maintenance but for a booking."""
    left = exists().where(
        Allocation.gpu_id == Gpu.id, Allocation.released_at.is_(None), Allocation.ends_at > clock.now()
    )
    there = and_(Gpu.state != GpuState.MAINTENANCE, Gpu.gone_at.is_(None))
    return set(db.session.scalars(select(Gpu.id).join(Host).where(_NEEDED, or_(there, left))))


def count(silence: timedelta) -> int:
    """On how many hosts a GPU is in quarantine, is used without a booking or does not answer, or a storage pool is
    nearly full, or that are needed and cannot be looked at or say nothing so long."""
    silent = or_(Host.trouble != "", Host.seen_at.is_(None), Host.seen_at < clock.now() - silence)
    held_back = exists().where(Gpu.host_id == Host.id, Gpu.state == GpuState.QUARANTINE)
    now, old = clock.now(), live_seen.OLD
    fresh = (Gpu.host_id == Host.id, GpuNow.gpu_id == Gpu.id, GpuNow.seen_at.between(now - old, now + old))
    used = exists().where(*fresh, Gpu.state != GpuState.MAINTENANCE, GpuNow.strays > 0)
    fallen = (GpuNow.trouble != "", GpuNow.trouble.not_like(f"{SILENT}%"))
    lost = exists().where(*fresh, Gpu.state == GpuState.IN_SERVICE, *fallen)
    full = Host.findings.path_exists(pools.IN_JSON) & or_(_NEEDED, ~silent)
    which = or_(_NEEDED & silent, held_back, used, lost, full)
    return db.session.scalar(select(func.count()).select_from(Host).where(which)) or 0


def events(host: Host, gpu_ids: Collection[int], limit: int = 20) -> list[AuditEvent]:
    """What was found on the host and done about it in the last days, newest first."""
    here = or_(
        AuditEvent.actor == f"agent:{host.name}",
        AuditEvent.target.in_([f"host:{host.name}", *(f"gpu:{gpu_id}" for gpu_id in gpu_ids)]),
        AuditEvent.details["host"].astext == host.name,
    )
    query = (
        select(AuditEvent)
        .where(AuditEvent.action.in_(ACTIONS), here, AuditEvent.created_at > clock.now() - timedelta(days=DAYS))
        .order_by(AuditEvent.id.desc())
        .limit(limit)
    )
    return list(db.session.scalars(query))
