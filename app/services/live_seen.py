"""GPUs as they are now, out of the database in one query of plain columns: every reader's page asks for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    String,
    any_,
    bindparam,
    case,
    exists,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import aliased

from app import clock
from app.extensions import db
from app.models import Allocation, Block, Booking, Gpu, GpuNow, GpuState, Host, Instance, User
from app.models.base import UtcDateTime
from app.services import spans

# What was seen longer ago says nothing about now; nor does what was seen so far ahead, by a clock that is wrong.
OLD = timedelta(seconds=60)
LOOK_AHEAD = timedelta(days=4)  # for maintenance, as on the calendar
OPEN_AT_MOST = 8  # with so few GPUs in all, every one is shown by itself
THROTTLES = ("power", "heat", "hardware")  # what a GPU can say of what keeps it from its clocks


class Hold(NamedTuple):
    """Who has a GPU now."""

    booking_id: int
    user_id: int
    username: str
    owner: str
    starts_at: datetime
    ends_at: datetime
    attached_at: datetime | None


class Seen(NamedTuple):
    """One GPU with its host, what it was last seen at, the first booking of it that is not over (or none), and
    maintenance: whether it is `kept` for that now, and when the next begins. `programs`: how many there are on it, and
    how many of them are `strays`; `still_since` and `still_ms` see models.GpuNow.

    Of one that is shown by itself also its `curve`, its `processes` when it was last seen (see services.samples.Now)
    and which machines of the viewer's `own` are on its host; `all_shown`: every one is, there are so few. `bare`: the
    hosts without a GPU, which are no row's."""

    id: int
    minor: int
    pci_address: str
    model: str
    state: GpuState
    host_id: int
    host: str
    host_enabled: bool
    host_seen_at: datetime | None
    host_trouble: str
    seen_at: datetime | None
    trouble: str | None
    values: dict[str, Any] | None
    programs: int | None
    strays: int | None
    still_since: datetime | None
    still_ms: int | None
    booking_id: int | None
    starts_at: datetime | None
    ends_at: datetime | None
    attached_at: datetime | None
    user_id: int | None
    username: str | None
    full_name: str | None
    kept: bool | None
    kept_from: datetime | None
    mark: str | None
    all_shown: bool
    bare: list[str] | None
    shown: bool
    curve_from: datetime | None
    curve: list[int | None] | None
    processes: list[dict[str, Any]] | None
    own: list[str] | None

    def held(self, now: datetime) -> Hold | None:
        """Who has it, if its first booking has begun."""
        if self.starts_at is None or self.starts_at > now:
            return None
        assert self.booking_id is not None
        assert self.user_id is not None
        assert self.username is not None
        assert self.ends_at is not None
        owner = self.full_name or self.username
        return Hold(self.booking_id, self.user_id, self.username, owner, self.starts_at, self.ends_at, self.attached_at)

    def is_fresh(self, now: datetime) -> bool:
        """Whether what it was last seen at says something about now."""
        return is_fresh(self.seen_at, now)


def is_fresh(seen_at: datetime | None, now: datetime) -> bool:
    """Whether what was seen then says something about now."""
    return seen_at is not None and abs(now - seen_at) <= OLD


_NOW = bindparam("now", type_=UtcDateTime())
# Bookings of one GPU never overlap, so that the first to end is the one that runs, or else the next to begin. One step
# in an index for each GPU, whatever is booked.
_first = (
    select(
        *(Allocation.booking_id, Allocation.starts_at, Allocation.ends_at, Allocation.attached_at),
        # Not a join: PostgreSQL would look through the bookings for each GPU, where there are few.
        select(Booking.user_id).where(Booking.id == Allocation.booking_id).scalar_subquery().label("user_id"),
    )
    .where(Allocation.gpu_id == Gpu.id, Allocation.released_at.is_(None), Allocation.ends_at > _NOW)
    .order_by(Allocation.ends_at)
    .limit(1)
    .lateral("first")
)
_kept = (
    select(
        Block.gpu_id,
        func.bool_or(Block.starts_at <= _NOW).label("now"),
        func.min(Block.starts_at).filter(Block.starts_at > _NOW).label("next"),
    )
    .where(Block.lifted_at.is_(None), Block.ends_at > _NOW, Block.starts_at < bindparam("ahead"))
    .group_by(Block.gpu_id)
    .subquery("kept")
)
_own = select(func.array_agg(Instance.name)).where(
    Instance.host_id == Gpu.host_id, Instance.owner_id == bindparam("owner"), Instance.deleted_at.is_(None)
)
_host, _gpu = aliased(Host), aliased(Gpu)
BARE = select(func.array_agg(aggregate_order_by(_host.name, _host.name))).where(
    ~exists().where(_gpu.host_id == _host.id)
)
_few = select((func.count() <= OPEN_AT_MOST) | (func.min(Gpu.host_id) == func.max(Gpu.host_id))).scalar_subquery()


def _query(shown: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Of which GPUs all is read, that is."""
    by_itself = (GpuNow.curve_from, GpuNow.curve, GpuNow.processes, _own.scalar_subquery())
    return (
        select(
            *(Gpu.id, Gpu.minor, Gpu.pci_address, Gpu.model, Gpu.state),
            *(Host.id, Host.name, Host.enabled, Host.seen_at, Host.trouble),
            *(GpuNow.seen_at, GpuNow.trouble, GpuNow.values),
            *(func.jsonb_array_length(GpuNow.processes), GpuNow.strays, GpuNow.still_since, GpuNow.still_ms),
            *(_first.c.booking_id, _first.c.starts_at, _first.c.ends_at, _first.c.attached_at),
            *(User.id, User.username, User.full_name),
            *(_kept.c.now, _kept.c.next, spans.MARK.scalar_subquery()),
            *(_few, BARE.scalar_subquery(), shown, *(case((shown, column)) for column in by_itself)),
        )
        .select_from(Gpu)
        .join(Host, Host.id == Gpu.host_id)
        .outerjoin(GpuNow, GpuNow.gpu_id == Gpu.id)
        .outerjoin(_first, true())
        .outerjoin(User, User.id == _first.c.user_id)
        .outerjoin(_kept, _kept.c.gpu_id == Gpu.id)
        .order_by(Host.name, Gpu.minor, Gpu.id)
    )


# Put together once: that takes longer than to answer them.
_EVERY = _query(_few | (Host.name == any_(bindparam("open_hosts", type_=ARRAY(String)))))
_SOME = _query(true()).where(Gpu.id == any_(bindparam("gpu_ids", type_=ARRAY(Integer))))


def gpus(viewer: User | None = None, open_hosts: Collection[str] = ()) -> list[Seen]:
    """All by host and number. One by one are shown those of `open_hosts`, or all if there are few."""
    return _found(_EVERY, viewer, {"open_hosts": list(open_hosts)})


def some(viewer: User, gpu_ids: Collection[int]) -> list[Seen]:
    """These by host and number, each shown by itself."""
    return _found(_SOME, viewer, {"gpu_ids": list(gpu_ids)})


def _found(query: Select[*tuple[Any, ...]], viewer: User | None, values: dict[str, Any]) -> list[Seen]:
    now = clock.now()
    values |= {"now": now, "ahead": now + LOOK_AHEAD, "owner": viewer.id if viewer else None}
    return [Seen(*row) for row in db.session.connection().execute(query, values).all()]


def still(found: Iterable[Seen]) -> dict[int, tuple[datetime, int]]:
    """Since when GPUs have done nothing, as it was written down, by GPU; see services.activity.idle_since."""
    return {gpu.id: (gpu.still_since, gpu.still_ms or 0) for gpu in found if gpu.still_since is not None}


def throttled_by(values: Mapping[str, Any]) -> frozenset[str] | None:
    """What keeps a GPU of these values (see services.samples.Now) from its clocks, of THROTTLES; None: not known."""
    said = values.get("throttle")
    return None if said is None else frozenset(said.split(", ")).intersection(THROTTLES)
