"""Every GPU as it is now, for the live pages: who has it, whether it is at work, what runs there, when it is free.

Two queries at most, whatever is stored: GPUs with what they were last seen at, who has them and, where they are shown
one by one, their last hour and what runs there; and for how long those did nothing that were attached since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import func, select

from app import clock
from app.extensions import db
from app.models import GpuNow, GpuState, User
from app.services import activity, live_seen, spans
from app.services.live_gpu import Live, Process
from app.services.live_seen import Hold, Seen

IDLE = timedelta(minutes=10)  # of doing nothing, from which on a GPU that somebody has is called idle
AT_WORK = 5  # percent: from here on it is at work now, whatever its last minutes were

# What an admin looks for first comes first; what is well, in the order of the numbers.
_FIRST = {code: place for place, code in enumerate(("unbooked", "quarantine", "not_attached", "idle"))}
_MARK = select(spans.MARK.scalar_subquery(), select(func.max(GpuNow.seen_at)).scalar_subquery())


@dataclass(frozen=True)
class HostLive:
    """One host's GPUs; whether they are shown one by one. `seen_at`, `trouble`: of its agent's last pass."""

    name: str
    seen_at: datetime | None
    trouble: str
    gpus: tuple[Live, ...]
    open: bool


@dataclass(frozen=True)
class Shown:
    """What a page shows. `bare`: hosts without a GPU. `all_open`: there is so little that no host needs to be opened.
    `mark`: moves when anything may have changed."""

    hosts: tuple[HostLive, ...]
    bare: tuple[str, ...]
    all_open: bool
    mark: str


def mark() -> str:
    """Another one after each reading, booking, attachment or change of a GPU."""
    change, seen = db.session.connection().execute(_MARK).one()
    return _mark(change, seen)


def show(viewer: User, open_hosts: Collection[str] = (), order: Sequence[int] = ()) -> Shown:
    """All hosts by name. `order`: GPUs' ids as they stood before, so that nothing moves while somebody reads."""
    every = live_seen.gpus(viewer, open_hosts)
    if not every:
        return Shown((), tuple(db.session.scalar(live_seen.BARE) or ()), True, mark())
    place = {gpu_id: number for number, gpu_id in enumerate(order)}
    hosts = [
        _host([*of_host], place) for _id, of_host in groupby(_lines(viewer, every), key=lambda one: one.gpu.host_id)
    ]
    seen = max((gpu.seen_at for gpu in every if gpu.seen_at is not None), default=None)
    return Shown(tuple(hosts), tuple(every[0].bare or ()), every[0].all_shown, _mark(every[0].mark, seen))


def of(viewer: User, gpu_ids: Collection[int]) -> list[Live]:
    """These GPUs by host and number, each with its last hour."""
    return _lines(viewer, live_seen.some(viewer, gpu_ids)) if gpu_ids else []


def _host(lines: list[Live], before: Mapping[int, int]) -> HostLive:
    one = lines[0].gpu
    if one.shown:
        lines.sort(key=lambda line: _place(line, before))
    return HostLive(one.host, one.host_seen_at, one.host_trouble, tuple(lines), one.shown)


def _place(one: Live, before: Mapping[int, int]) -> tuple[int, int, int]:
    return before.get(one.gpu.id, len(before)), _FIRST.get(one.code, len(_FIRST)), one.gpu.minor


def _mark(change: str | None, seen: datetime | None) -> str:
    return f"{change or ''}-{seen.timestamp():.3f}" if seen else f"{change or ''}-"


def _lines(viewer: User, found: Sequence[Seen]) -> list[Live]:
    now = clock.now()
    holds = {gpu.id: gpu.held(now) for gpu in found}
    fresh = {gpu.id for gpu in found if gpu.is_fresh(now)}
    values = {gpu.id: gpu.values or {} for gpu in found if gpu.id in fresh and not gpu.trouble}
    idle = _idle(found, holds, values, now)
    lines = []
    for gpu in found:
        seen, others = _processes(viewer, gpu) if gpu.id in fresh else ((), 0)
        lines.append(
            Live(
                gpu,
                holds[gpu.id],
                min((at for at in (gpu.kept_from, gpu.starts_at) if at is not None and at > now), default=None),
                values.get(gpu.id, {}),
                idle.get(gpu.id, timedelta(0)),
                gpu.state != GpuState.MAINTENANCE and bool(gpu.strays) and gpu.id in fresh,
                seen,
                others,
                activity.curve(gpu.curve_from, gpu.curve, now) if gpu.shown else (),
            )
        )
    return lines


def _idle(
    found: Sequence[Seen], holds: Mapping[int, Hold | None], values: Mapping[int, Mapping[str, Any]], now: datetime
) -> dict[int, timedelta]:
    """For how long each counts as idle: what is at work now, or not known, does not."""
    shares = {gpu_id: _share(of_it) for gpu_id, of_it in values.items()}
    still = {gpu_id for gpu_id, share in shares.items() if share is not None and share < AT_WORK}
    attached = {
        gpu_id: hold.attached_at for gpu_id, hold in holds.items() if gpu_id in still and hold and hold.attached_at
    }
    measured = activity.idle_since(attached, live_seen.still(found), now)
    return {gpu_id: length for gpu_id, length in measured.items() if length >= IDLE}


def _share(values: Mapping[str, Any]) -> float | None:
    """Percent that is at work now; of one that is split up, which NVML gives none for, of its parts."""
    if values.get("utilisation") is None and values.get("mig") and "mig_in_use" in values:
        return 100 * values["mig_in_use"] / values["mig"]
    return values.get("utilisation")


def _processes(viewer: User, gpu: Seen) -> tuple[list[Process], int]:
    """Those in the viewer's own machines (all, for an admin), the largest first; and how many others there are."""
    seen, others = [], 0
    for one in gpu.processes or ():
        if viewer.is_admin or one["instance"] in (gpu.own or ()):
            seen.append(
                Process(
                    str(one["name"]), one["instance"], one["pid"], bool(one["booking"]), one["memory"],
                    one["utilisation"],
                )
            )  # fmt: skip
        else:
            others += 1
    return sorted(seen, key=lambda one: (-(one.memory or 0), one.pid)), others
