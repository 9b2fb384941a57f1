"""What is free, and when: one query for what is booked, then arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, func, select, union_all
from sqlalchemy.orm import defer, joinedload

from app.errors import Alternative
from app.extensions import db
from app.models import Allocation, Block, Booking, Gpu, GpuState, Host
from app.services.windows import Window, ceil_to_grid

Busy = dict[int, list[Window]]
"""By GPU id, what is booked, in order of start."""


# Asked at each booking, with its locks held, and "no" nearly always: built once, and it loads nothing. Bookings of a
# GPU do not overlap, so the first to end after the start decides, however many are to come after it.
_gpu_ids = bindparam("gpu_ids", type_=ARRAY(BigInteger))
_wanted = func.unnest(_gpu_ids).table_valued("id", name="wanted").render_derived()
_first_to_end = (
    select(Allocation.id, Allocation.starts_at)
    .where(
        Allocation.gpu_id == _wanted.c.id,
        Allocation.released_at.is_(None),
        Allocation.ends_at > bindparam("starts_at"),
    )
    .order_by(Allocation.ends_at)
    .limit(1)
    .lateral("first_to_end")
)
_ANY_OVERLAP = union_all(
    select(_first_to_end.c.id)
    .select_from(_wanted)
    .join(_first_to_end, _first_to_end.c.starts_at < bindparam("ends_at")),
    select(Block.id).where(
        Block.gpu_id == any_(_gpu_ids),
        Block.lifted_at.is_(None),
        Block.ends_at > bindparam("starts_at"),
        Block.starts_at < bindparam("ends_at"),
    ),
).limit(1)


def any_overlap(gpu_ids: Sequence[int], window: Window) -> bool:
    """Whether somebody has one of these GPUs within the window, or it is in maintenance."""
    values = {"gpu_ids": list(gpu_ids), "starts_at": window.starts_at, "ends_at": window.ends_at}
    return db.session.scalar(_ANY_OVERLAP, values) is not None


def overlapping(gpu_ids: Sequence[int], window: Window, *, ignore_booking: int | None = None) -> list[Allocation]:
    """Allocations of these GPUs that share a moment with the window, with booking, owner and GPU loaded."""
    query = (
        select(Allocation)
        .where(
            Allocation.gpu_id.in_(gpu_ids),
            Allocation.released_at.is_(None),
            Allocation.ends_at > window.starts_at,
            Allocation.starts_at < window.ends_at,
        )
        .options(
            joinedload(Allocation.booking).joinedload(Booking.user), joinedload(Allocation.gpu).joinedload(Gpu.host)
        )
        .order_by(Allocation.starts_at)
    )
    if ignore_booking is not None:
        query = query.where(Allocation.booking_id != ignore_booking)
    return list(db.session.scalars(query))


def blocked(gpu_ids: Sequence[int], window: Window) -> list[Block]:
    """Times of maintenance of these GPUs that share a moment with the window, with GPU, host and reason loaded."""
    query = (
        select(Block)
        .where(
            Block.gpu_id.in_(gpu_ids),
            Block.lifted_at.is_(None),
            Block.ends_at > window.starts_at,
            Block.starts_at < window.ends_at,
        )
        .options(joinedload(Block.gpu).joinedload(Gpu.host), joinedload(Block.maintenance))
        .order_by(Block.starts_at, Block.gpu_id)
    )
    return list(db.session.scalars(query))


def is_usable(gpu: Gpu) -> bool:
    """Whether the GPU may be booked; its host must be loaded."""
    return gpu.state == GpuState.IN_SERVICE and gpu.host.enabled


# What agents tell of a host is large, and would be read here once for each of its GPUs.
_FOR_ADMINS = (Host.observed, Host.findings, Host.images, Host.image_files, Host.libraries_seen)
_USABLE = (
    select(Gpu)
    .join(Host)
    .where(Gpu.state == GpuState.IN_SERVICE, Host.enabled)
    .options(joinedload(Gpu.host).options(*map(defer, _FOR_ADMINS)))
    .order_by(Host.name, Gpu.minor)
)


def usable_gpus(model: str = "", host: str = "") -> list[Gpu]:
    """GPUs that may be booked, of a model and host if named, with their host loaded; by host and number."""
    query = _USABLE
    if model:
        query = query.where(Gpu.model == model)
    if host:
        query = query.where(Host.name == host)
    return list(db.session.scalars(query))


def busy(gpus: Iterable[Gpu], start: datetime, end: datetime) -> Busy:
    """What is booked on each of the GPUs between two moments, and when they are in maintenance."""
    ids = [gpu.id for gpu in gpus]
    booked = select(Allocation.gpu_id, Allocation.starts_at, Allocation.ends_at).where(
        Allocation.gpu_id.in_(ids),
        Allocation.released_at.is_(None),
        Allocation.ends_at > start,
        Allocation.starts_at < end,
    )
    kept = select(Block.gpu_id, Block.starts_at, Block.ends_at).where(
        Block.gpu_id.in_(ids), Block.lifted_at.is_(None), Block.ends_at > start, Block.starts_at < end
    )
    found: Busy = defaultdict(list)
    for gpu_id, starts_at, ends_at in db.session.execute(union_all(booked, kept).order_by("starts_at")):
        found[gpu_id].append(Window(starts_at, ends_at))
    return found


def free_until(gpu_ids: Sequence[int], start: datetime, end: datetime) -> datetime:
    """When the first of these GPUs is taken after a start; `end` if none is by then, or one is at the start already."""
    window = Window(start, end)
    taken = [one.starts_at for one in overlapping(gpu_ids, window)]
    first = min([*taken, *(one.starts_at for one in blocked(gpu_ids, window))], default=end)
    return first if first > start else end


def free_gpus(gpus: Iterable[Gpu], taken: Busy, window: Window) -> list[Gpu]:
    """Those of the GPUs on which nothing shares a moment with the window."""
    return [gpu for gpu in gpus if not any(span.overlaps(window) for span in taken.get(gpu.id, ()))]


def by_host(gpus: Iterable[Gpu]) -> dict[int, list[Gpu]]:
    """GPUs grouped by host id, order kept."""
    groups: dict[int, list[Gpu]] = defaultdict(list)
    for gpu in gpus:
        groups[gpu.host_id].append(gpu)
    return groups


def choose(gpus: Iterable[Gpu], taken: Busy, window: Window, count: int, preferred_hosts: frozenset[int]) -> list[Gpu]:
    """`count` GPUs of one host that are free in the window: on a preferred host if one has them, and there where the
    fewest are left over, so that large bookings still find room. Empty when no host has them."""
    groups = by_host(free_gpus(gpus, taken, window))
    fitting = [group for group in groups.values() if len(group) >= count]
    if not fitting:
        return []
    best = min(fitting, key=lambda group: (group[0].host_id not in preferred_hosts, len(group), group[0].host.name))
    return best[:count]


def earliest(
    gpus: Sequence[Gpu], taken: Busy, count: int, seconds: int, start: datetime, latest_end: datetime, slot: int
) -> Alternative | None:
    """The first window of that length in which `count` GPUs of one host are free, not ending after `latest_end`.

    It can only begin at `start` or where something ends, so only those moments are tried.
    """
    length = timedelta(seconds=seconds)
    ends = {ceil_to_grid(span.ends_at, slot) for spans in taken.values() for span in spans}
    for moment in sorted({start, *(end for end in ends if end > start)}):
        window = Window(moment, moment + length)
        if window.ends_at > latest_end:
            return None
        chosen = choose(gpus, taken, window, count, frozenset())
        if chosen:
            ids = tuple(gpu.id for gpu in chosen)
            return Alternative(chosen[0].host.name, ids, window.starts_at, window.ends_at, "later")
    return None
