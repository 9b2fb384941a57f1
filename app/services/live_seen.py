"""GPUs as they are now, out of the database in one query of plain columns: every reader's page asks for all of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Integer, Text, any_, bindparam, cast, func, select, true
from sqlalchemy.dialects.postgresql import JSONPATH

from app import clock
from app.extensions import db
from app.models import Allocation, Block, Booking, Gpu, GpuNow, GpuState, Host, User
from app.models.base import UtcDateTime
from app.services import spans

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
    maintenance: whether it is `kept` for that now, and when the next begins. `programs`: JSON, read where it is shown;
    `strays`: how many of them run in machines that have not booked it, or are the host's own and compute."""

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
    programs: str | None
    strays: int | None
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
        return self.seen_at is not None and abs(now - self.seen_at) <= OLD

    @property
    def processes(self) -> list[dict[str, Any]]:
        """What ran on it when it was last seen; see services.samples.Now."""
        return json.loads(self.programs or "[]")


_NOW = bindparam("now", type_=UtcDateTime())
# Bookings of one GPU never overlap, so that the first to end is the one that runs, or else the next to begin. One step
# in an index for each GPU, whatever is booked.
_first = (
    select(Allocation.booking_id, Allocation.starts_at, Allocation.ends_at, Allocation.attached_at)
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
# The host's own desktop is no use of it: see workers.unbooked.
STRAY = cast('$[*] ? ((@.instance != "" || @.computes == true) && (@.booking == null || @.booking == 0))', JSONPATH)
# Put together once: that takes longer than to answer them.
_EVERY = (
    select(
        *(Gpu.id, Gpu.minor, Gpu.model, Gpu.state),
        *(Host.id, Host.name, Host.enabled, Host.seen_at, Host.trouble),
        *(GpuNow.seen_at, GpuNow.trouble, GpuNow.values, cast(GpuNow.processes, Text)),
        func.jsonb_array_length(func.jsonb_path_query_array(GpuNow.processes, STRAY)),
        *(_first.c.booking_id, _first.c.starts_at, _first.c.ends_at, _first.c.attached_at),
        *(User.id, User.username, User.full_name),
        *(_kept.c.now, _kept.c.next, spans.MARK.scalar_subquery()),
    )
    .select_from(Gpu)
    .join(Host, Host.id == Gpu.host_id)
    .outerjoin(GpuNow, GpuNow.gpu_id == Gpu.id)
    .outerjoin(_first, true())
    .outerjoin(Booking, Booking.id == _first.c.booking_id)
    .outerjoin(User, User.id == Booking.user_id)
    .outerjoin(_kept, _kept.c.gpu_id == Gpu.id)
    .order_by(Host.name, Gpu.minor)
)
_SOME = _EVERY.where(Gpu.id == any_(bindparam("gpu_ids", type_=ARRAY(Integer))))


def gpus(gpu_ids: Collection[int] | None = None) -> list[Seen]:
    """These GPUs (else all) by host and number."""
    now = clock.now()
    values = {"now": now, "ahead": now + LOOK_AHEAD}
    connection = db.session.connection()
    if gpu_ids is None:
        return [Seen(*row) for row in connection.execute(_EVERY, values)]
    return [Seen(*row) for row in connection.execute(_SOME, values | {"gpu_ids": list(gpu_ids)})]


def throttled_by(values: Mapping[str, Any]) -> frozenset[str] | None:
    """What keeps a GPU of these values (see services.samples.Now) from its clocks, of THROTTLES; None: not known."""
    said = values.get("throttle")
    return None if said is None else frozenset(said.split(", ")).intersection(THROTTLES)
