"""One GPU as the live pages show it: who has it, what it is at, and what that makes of it in one word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app import clock
from app.models import Block, Gpu, GpuState, Host
from app.services.activity import Curve

PATIENCE = timedelta(minutes=1)  # after a booking's start, in which attaching is nothing to look at


@dataclass(frozen=True)
class Hold:
    """Who has a GPU now."""

    booking_id: int
    user_id: int
    username: str
    owner: str
    starts_at: datetime
    ends_at: datetime
    attached_at: datetime | None


@dataclass(frozen=True)
class Process:
    """A program on a GPU, for those who may see it: `memory` in MiB, `utilisation` in %, None where NVML has none.
    `pid`: the host's."""

    name: str
    instance: str
    pid: int
    booked: bool
    memory: int | None
    utilisation: int | None


@dataclass(frozen=True)
class Live:
    """One GPU. `seen_at`: of `values` (see services.samples.Now), None if it was never seen; `values` are empty where
    they are too old or could not be read. `free_until`: when somebody else has it, None for not within days.
    `idle`: measured time without work, 0 for less than IDLE. `processes`: those that the viewer may see, `others`: how
    many more there are. `fresh`: it was looked at just now; `trouble`: why nothing could be read then."""

    gpu: Gpu
    host: Host
    held: Hold | None
    kept: Block | None
    free_until: datetime | None
    seen_at: datetime | None
    trouble: str
    values: Mapping[str, Any]
    idle: timedelta
    processes: tuple[Process, ...]
    others: int
    unbooked: bool
    curve: Curve = ()
    fresh: bool = True

    @property
    def code(self) -> str:
        """What it is, in one word of app.web.states."""
        if self.unbooked:
            return "unbooked"
        if self.held is not None:
            if self.held.attached_at is None:
                return "not_attached" if self.late else "attaching"
            return "idle" if self.idle else "in_use"
        if self.gpu.state != GpuState.IN_SERVICE:
            return "quarantine" if self.gpu.state == GpuState.QUARANTINE else "out_of_service"
        if self.kept is not None:
            return "maintenance"
        return "free" if self.host.enabled else "not_offered"

    @property
    def late(self) -> bool:
        """Whether it is booked, and should have been attached some time ago."""
        return self.held is not None and clock.now() - self.held.starts_at > PATIENCE

    @property
    def known(self) -> bool:
        """Whether there is anything to say of what it is at now."""
        return bool(self.values)
