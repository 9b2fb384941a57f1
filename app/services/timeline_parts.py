"""What the calendar's arithmetic is given, and what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.models import GpuState

NOBODY = 0  # whose a time of maintenance is
SOMEBODY = -1  # whose a booking is that was not asked for: nobody sees it by itself, but it is held


class ShownHost(NamedTuple):
    """A host as the calendar needs it."""

    id: int
    name: str


class ShownGpu(NamedTuple):
    """One of its GPUs, likewise."""

    id: int
    model: str
    minor: int
    state: GpuState


class Span(NamedTuple):  # these are made by the thousand: a frozen dataclass takes four times as long
    """One allocation as the calendar needs it, or a time of maintenance (`booking_id`: its number, negative).
    `attached`: its GPU was seen in the machine; `offered`: it is the viewer's only once they take it."""

    gpu_id: int
    booking_id: int
    starts_at: datetime
    ends_at: datetime
    user_id: int
    owner: str
    note: str = ""  # what for, where the viewer may read it
    offered: bool = False
    attached: bool = True

    @property
    def is_maintenance(self) -> bool:
        """Whether the GPU is worked on, and nobody's."""
        return self.user_id == NOBODY


@dataclass(frozen=True)
class Waiting:
    """An exact time for which the viewer waits: `count` GPUs of a host, of a model and on it where named, or these."""

    wait_id: int
    starts_at: datetime
    ends_at: datetime
    count: int
    model: str
    host: str
    gpu_ids: frozenset[int]

    def fits(self, host: str, gpus: Sequence[ShownGpu]) -> bool:
        """Whether it could be given by these GPUs of a host."""
        if self.gpu_ids:
            return self.gpu_ids <= {gpu.id for gpu in gpus}
        return self.host in {"", host} and sum(self.model in {"", gpu.model} for gpu in gpus) >= self.count


Spans = Mapping[int, Sequence[Span]]
"""By GPU id, in order of start. Of one GPU, each is over when the next one begins: allocations by the overlap
constraint, times of maintenance as `maintenance.schedule` takes them, and the two by a trigger."""


class Bar(NamedTuple):
    """One booking on one GPU, cut to what is shown. `start`, `width` in units; `before`/`after`: it goes on outside.
    `state`: booked, attaching, in_use, ended, maintenance (see Span) or in_line (see Waiting)."""

    booking_id: int
    owner: str
    mine: bool
    starts_at: datetime
    ends_at: datetime
    start: int
    width: int
    before: bool
    after: bool
    state: str
    note: str
    offered: bool


class Gap(NamedTuple):
    """A free place on one GPU that can still be booked."""

    starts_at: datetime
    ends_at: datetime
    start: int
    width: int


class Cell(NamedTuple):
    """Some hours of one host: how many of its GPUs are free for all of them; None once they are over. Whether in some
    of them a GPU is the viewer's (`mine`) or worked on (`kept`), or the viewer waits for one (`waited`)."""

    starts_at: datetime
    ends_at: datetime
    free: int | None
    mine: bool = False
    kept: bool = False
    waited: bool = False
