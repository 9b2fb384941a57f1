"""GPUs as they are now, out of the database in one query of plain columns: every reader's page asks for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import any_, bindparam, func, select, true

from app import clock
from app.extensions import db
from app.models import Allocation, Block, Booking, Gpu, GpuNow, GpuState, Host, Instance, User
from app.models.base import UtcDateTime
from app.services import activity, spans
from app.services.activity import CURVES, GPUS, Curve

# What was seen longer ago says nothing about now; nor does what was seen so far ahead, by a clock that is wrong.
OLD = timedelta(seconds=60)
LOOK_AHEAD = timedelta(days=4)  # for maintenance, as on the calendar
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
    how many of them are `strays`; `still_since` and `still_ms` see models.GpuNow."""

    id: int
    minor: int
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


class Opened(NamedTuple):
    """What is shown of a GPU where it is shown by itself: its last hour, what ran on it when it was last seen if that
    says something about now (see services.samples.Now), and the viewer's own machines on its host."""

    curve: Curve
    processes: Sequence[Mapping[str, Any]]
    own: frozenset[str]


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
# Put together once: that takes longer than to answer them.
_EVERY = (
    select(
        *(Gpu.id, Gpu.minor, Gpu.model, Gpu.state),
        *(Host.id, Host.name, Host.enabled, Host.seen_at, Host.trouble),
        *(GpuNow.seen_at, GpuNow.trouble, GpuNow.values),
        *(func.jsonb_array_length(GpuNow.processes), GpuNow.strays, GpuNow.still_since, GpuNow.still_ms),
        *(_first.c.booking_id, _first.c.starts_at, _first.c.ends_at, _first.c.attached_at),
        *(User.id, User.username, User.full_name),
        *(_kept.c.now, _kept.c.next, spans.MARK.scalar_subquery()),
    )
    .select_from(Gpu)
    .join(Host, Host.id == Gpu.host_id)
    .outerjoin(GpuNow, GpuNow.gpu_id == Gpu.id)
    .outerjoin(_first, true())
    .outerjoin(User, User.id == _first.c.user_id)
    .outerjoin(_kept, _kept.c.gpu_id == Gpu.id)
    .order_by(Host.name, Gpu.minor)
)
_SOME = _EVERY.where(Gpu.id == any_(GPUS))
_own = select(func.array_agg(Instance.name)).where(
    Instance.host_id == Gpu.host_id, Instance.owner_id == bindparam("owner"), Instance.deleted_at.is_(None)
)
_OPENED = (
    select(Gpu.id, CURVES.c.at, CURVES.c.share, GpuNow.seen_at, GpuNow.processes, _own.scalar_subquery())
    .outerjoin(CURVES, CURVES.c.gpu_id == Gpu.id)
    .outerjoin(GpuNow, GpuNow.gpu_id == Gpu.id)
    .where(Gpu.id == any_(GPUS))
)


def gpus(gpu_ids: Collection[int] | None = None) -> list[Seen]:
    """These GPUs (else all) by host and number."""
    now = clock.now()
    values = {"now": now, "ahead": now + LOOK_AHEAD}
    connection = db.session.connection()
    if gpu_ids is None:
        return [Seen(*row) for row in connection.execute(_EVERY, values).all()]
    return [Seen(*row) for row in connection.execute(_SOME, values | {"gpu_ids": list(gpu_ids)}).all()]


def opened(gpu_ids: Collection[int], viewer: User) -> dict[int, Opened]:
    """What is shown of GPUs one by one, in one query."""
    if not gpu_ids:
        return {}
    now = clock.now()
    values = {"gpu_ids": list(gpu_ids), "owner": viewer.id} | activity.window(now)
    return {
        gpu_id: Opened(
            activity.curve(minutes, shares),
            running if running and is_fresh(seen_at, now) else (),
            frozenset(own or ()),
        )
        for gpu_id, minutes, shares, seen_at, running, own in db.session.connection().execute(_OPENED, values).all()
    }


def still(found: Iterable[Seen]) -> dict[int, tuple[datetime, int]]:
    """Since when GPUs have done nothing, as it was written down, by GPU; see services.activity.idle_since."""
    return {gpu.id: (gpu.still_since, gpu.still_ms or 0) for gpu in found if gpu.still_since is not None}


def throttled_by(values: Mapping[str, Any]) -> frozenset[str] | None:
    """What keeps a GPU of these values (see services.samples.Now) from its clocks, of THROTTLES; None: not known."""
    said = values.get("throttle")
    return None if said is None else frozenset(said.split(", ")).intersection(THROTTLES)
