"""The database's side of a check: what is known of a host, how far apart the clocks are, and what was found last."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import func, select

from app import clock
from app.drivers.base import GpuInfo
from app.extensions import db
from app.models import Gpu, GpuState, Host, Instance
from app.services import audit, checkup, full_disks, surveys
from app.services.checkup import LEVELS, OK, Finding, Known, pools


def known(host: Host, skew: float | None = None) -> Known:
    """What Berth knows of a host. `skew` as of `Known`."""
    gpus = list(db.session.scalars(select(Gpu).where(Gpu.host_id == host.id).order_by(Gpu.minor)))
    query = select(Instance.name, Instance.status, Instance.observed, Instance.disk_gib)
    machines = db.session.execute(query.where(Instance.host_id == host.id, Instance.deleted_at.is_(None))).all()
    return Known(
        host.name,
        tuple(_info(gpu) for gpu in gpus if gpu.state != GpuState.MAINTENANCE),
        frozenset(gpu.pci_address for gpu in gpus if gpu.state == GpuState.MAINTENANCE),
        frozenset(name for name, *_ in machines),
        skew,
        surveys.pools(host.id).get(host.id, ()),
        {name: (seen["disk"], size) for name, status, seen, size in machines if full_disks.judge(status, seen, size)},
    )


def skew() -> float:
    """Seconds by which this machine's clock is ahead of the database's; half of the way there and back is forgiven."""
    before = clock.now()
    theirs = db.session.scalar(select(func.clock_timestamp()))
    after = clock.now()
    assert isinstance(theirs, datetime)
    return (before + (after - before) / 2 - theirs).total_seconds()


def store(host: Host, found: Iterable[Finding], driver: str | None = None) -> None:
    """Keep what is not as it should be, for the pages that have no way to the host, and the version of its NVIDIA
    driver; None where that could not be seen. Admins are told of a storage pool that has become too full."""
    found = list(found)
    _tell_of_pools(host, found)
    host.findings = checkup.to_keep(found)
    if driver is not None:
        host.driver_version = driver[:32]
    host.checked_at = clock.now()
    db.session.flush()


def stored(host: Host) -> list[Finding]:
    """What the host's agent found last."""
    return [Finding(row["level"], row["what"], row["detail"], row["fix"]) for row in host.findings]


def _tell_of_pools(host: Host, found: Iterable[Finding]) -> None:
    """Of one that is worse than the last time; once a day at most, should it go up and down."""
    before = {one.what: one.level for one in stored(host)}
    for one in found:
        was = before.get(one.what, OK)
        if one.what.startswith(pools.WHAT) and LEVELS.index(one.level) < LEVELS.index(was):
            key = f"pool:{host.id}:{one.what[:80]}:{one.level}:{clock.now():%Y%m%d}"
            where = {"host": host.name, "why": f"{one.what}: {one.detail}"}
            audit.record(f"agent:{host.name}", "host.pool_full", f"host:{host.name}", key=key, **where)


def _info(gpu: Gpu) -> GpuInfo:
    return GpuInfo(gpu.pci_address, gpu.model, gpu.minor, gpu.uuid)
