"""Every GPU as it is now, for the live pages: who has it, whether it is at work, what runs there, when it is free.

Six queries whatever is stored: GPUs with what they were last seen at, who has them and who is next, maintenance, for
how long they did nothing, the last hour of those shown, and the viewer's machines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, Integer, any_, func, literal, select, true
from sqlalchemy.orm import load_only

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuNow, GpuState, Host, Instance, User
from app.services import activity, maintenance, spans
from app.services.live_gpu import Hold, Live, Process

OLD = timedelta(seconds=60)  # what was seen longer ago says nothing about now
IDLE = timedelta(minutes=10)  # of doing nothing, from which on a GPU that somebody has is called idle
AT_WORK = 5  # percent: from here on it is at work now, whatever its last minutes were
LOOK_AHEAD = timedelta(days=4)  # for maintenance, as on the calendar
OPEN_AT_MOST = 8  # with so few GPUs in all, every host is open


# What an admin looks for first comes first; what is well, in the order of the numbers.
_FIRST = {code: place for place, code in enumerate(("unbooked", "quarantine", "not_attached", "idle"))}


@dataclass(frozen=True)
class HostLive:
    """One host's GPUs; whether they are shown one by one."""

    host: Host
    gpus: tuple[Live, ...]
    open: bool


@dataclass(frozen=True)
class Shown:
    """What a page shows. `all_open`: there is so little that no host needs to be opened. `mark`: moves when anything
    may have changed."""

    hosts: tuple[HostLive, ...]
    all_open: bool
    mark: str


def mark() -> str:
    """Another one after each reading, booking, attachment or change of a GPU."""
    return f"{spans.mark()}-{_stamp(db.session.scalar(select(func.max(GpuNow.seen_at))))}"


def show(viewer: User, open_hosts: Collection[str] = (), order: Sequence[int] = ()) -> Shown:
    """All hosts by name. `order`: GPUs' ids as they stood before, so that nothing moves while somebody reads."""
    every = rows()
    names = {host.name for _gpu, host, _now in every}
    everything = len(every) <= OPEN_AT_MOST or len(names) == 1
    shown = [gpu.id for gpu, host, _now in every if everything or host.name in open_hosts]
    lines = _lines(viewer, every, shown)
    place = {gpu_id: number for number, gpu_id in enumerate(order)}
    hosts = {host.id: host for _gpu, host, _now in every}
    seen = max((now.seen_at for _gpu, _host, now in every if now is not None), default=None)
    return Shown(
        tuple(
            HostLive(
                host,
                tuple(sorted((one for one in lines if one.gpu.host_id == host.id), key=lambda one: _place(one, place))),
                everything or host.name in open_hosts,
            )
            for host in hosts.values()
        ),
        everything,
        f"{spans.mark()}-{_stamp(seen)}",
    )


def of(viewer: User, gpu_ids: Collection[int]) -> list[Live]:
    """These GPUs by host and number, each with its last hour."""
    return _lines(viewer, rows(gpu_ids), gpu_ids) if gpu_ids else []


def _place(one: Live, before: Mapping[int, int]) -> tuple[int, int, int]:
    return before.get(one.gpu.id, len(before)), _FIRST.get(one.code, len(_FIRST)), one.gpu.minor


def _stamp(moment: datetime | None) -> str:
    return f"{moment.timestamp():.3f}" if moment else ""


Row = tuple[Gpu, Host, GpuNow | None]


def rows(gpu_ids: Collection[int] | None = None) -> list[Row]:
    """GPUs by host and number, with what each was last seen at."""
    query = (
        select(Gpu, Host, GpuNow)
        .join(Host, Host.id == Gpu.host_id)
        .outerjoin(GpuNow, GpuNow.gpu_id == Gpu.id)
        .options(load_only(Host.name, Host.enabled, Host.seen_at, Host.trouble))  # the rest is long, and in each row
        .order_by(Host.name, Gpu.minor)
    )
    if gpu_ids is not None:
        query = query.where(Gpu.id == any_(literal(list(gpu_ids), ARRAY(Integer))))
    return [(gpu, host, now) for gpu, host, now in db.session.execute(query)]


def _lines(viewer: User, found: Sequence[Row], shown: Collection[int]) -> list[Live]:
    now = clock.now()
    ids = [gpu.id for gpu, _host, _now in found]
    holds, starts = holders(ids, now)
    blocks = maintenance.between(now, now + LOOK_AHEAD)
    attached = {gpu_id: hold.attached_at for gpu_id, hold in holds.items() if hold.attached_at}
    idle, curves = activity.idle_since(attached, now), activity.curves(shown, now)
    own = _own_machines(viewer) if any(at and at.processes for _gpu, _host, at in found) else set()
    lines = []
    for gpu, host, at in found:
        of_it = blocks.get(gpu.id, [])
        ahead = [block.starts_at for block in of_it if block.starts_at > now]
        fresh = at is not None and now - at.seen_at <= OLD
        running = at.processes if at is not None and fresh else []
        seen, others = _processes(viewer, host, own, running)
        values = dict(at.values) if at is not None and fresh and not at.trouble else {}
        lines.append(
            Live(
                gpu,
                host,
                holds.get(gpu.id),
                next((block for block in of_it if block.starts_at <= now), None),
                min([*ahead, *starts.get(gpu.id, [])], default=None),
                at.seen_at if at is not None else None,
                at.trouble if at is not None else "",
                values,
                _idle(idle.get(gpu.id), values),
                tuple(seen),
                others,
                gpu.state != GpuState.MAINTENANCE and any(one["instance"] and not one["booking"] for one in running),
                curves.get(gpu.id, ()),
                fresh,
            )
        )
    return lines


def _idle(measured: timedelta | None, values: Mapping[str, Any]) -> timedelta:
    """For how long it counts as idle: what is at work now, or not known, does not."""
    share = values.get("utilisation")
    if share is None and values.get("mig") and "mig_in_use" in values:  # it has none while it is split up
        share = 100 * values["mig_in_use"] / values["mig"]
    return measured if measured and measured >= IDLE and share is not None and share < AT_WORK else timedelta(0)


def holders(gpu_ids: Sequence[int], now: datetime) -> tuple[dict[int, Hold], dict[int, list[datetime]]]:
    """Who has each GPU now, and when the next one has it. Two steps in an index for each, whatever is booked."""
    two = (
        select(Allocation.booking_id, Allocation.starts_at, Allocation.ends_at, Allocation.attached_at)
        .where(Allocation.gpu_id == Gpu.id, Allocation.released_at.is_(None), Allocation.ends_at > now)
        .order_by(Allocation.ends_at)
        .limit(2)
        .lateral("two")
    )
    query = (
        select(Gpu.id, two, Booking.user_id, User.full_name, User.username)
        .select_from(Gpu)
        .join(two, true())
        .join(Booking, Booking.id == two.c.booking_id)
        .join(User, User.id == Booking.user_id)
        .where(Gpu.id == any_(literal(list(gpu_ids), ARRAY(Integer))))
    )
    holds: dict[int, Hold] = {}
    starts: dict[int, list[datetime]] = {}
    for gpu_id, booking_id, start, end, attached, user_id, full_name, username in db.session.execute(query):
        if start <= now:
            holds[gpu_id] = Hold(booking_id, user_id, username, full_name or username, start, end, attached)
        else:
            starts.setdefault(gpu_id, []).append(start)
    return holds, starts


def _own_machines(viewer: User) -> set[tuple[int, str]]:
    query = select(Instance.host_id, Instance.name).where(Instance.owner_id == viewer.id, Instance.deleted_at.is_(None))
    return {(host_id, name) for host_id, name in db.session.execute(query)}


def _processes(
    viewer: User, host: Host, own: set[tuple[int, str]], running: Iterable[Mapping[str, Any]]
) -> tuple[list[Process], int]:
    """Those in the viewer's own machines (all, for an admin), the largest first; and how many others there are."""
    seen, others = [], 0
    for one in running:
        if viewer.is_admin or (host.id, one["instance"]) in own:
            seen.append(
                Process(
                    str(one["name"]), one["instance"], one["pid"], bool(one["booking"]), one["memory"],
                    one["utilisation"],
                )
            )  # fmt: skip
        else:
            others += 1
    return sorted(seen, key=lambda one: (-(one.memory or 0), one.pid)), others
