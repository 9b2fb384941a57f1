"""How much longer a booking could go on, and what stands in the way: for buttons that say where they lead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from flask_babel import gettext as _

from app import clock
from app.errors import DomainError
from app.models import Allocation, Block, Booking, Phase, Policy
from app.services import changes, openings, policy, quota
from app.services.windows import Window, floor_to_grid, hours_text
from app.services.words import when

STEPS = (1, 2)  # hours


@dataclass(frozen=True)
class Step:
    """One later end. `refused`: why it cannot be, "" if it can."""

    hours: int
    ends_at: datetime
    refused: str = ""


@dataclass(frozen=True)
class Room:
    """What a booking's end can be moved to. `at_most`: the latest end, where the steps do not all fit."""

    steps: tuple[Step, ...]
    at_most: datetime | None = None

    @property
    def reasons(self) -> list[str]:
        """Why steps are missing, each reason once."""
        return list(dict.fromkeys(step.refused for step in self.steps if step.refused))


def after(booking: Booking, slot: int) -> Room | None:
    """How much later a booking could end; None for one that cannot change any more. Its allocations must be loaded."""
    now = clock.now()
    if booking.phase(now) not in {Phase.UPCOMING, Phase.RUNNING}:
        return None
    rules, free = policy.current(), quota.free(booking.account_id)
    last = booking.ends_at + timedelta(hours=max(STEPS))
    gpu_ids = [allocation.gpu_id for allocation in booking.allocations]
    rest = Window(booking.ends_at, last)
    following = openings.overlapping(gpu_ids, rest, ignore_booking=booking.id)
    blocks = openings.blocked(gpu_ids, rest)
    steps = tuple(
        Step(hours, end, _kept(blocks, end) or _refused(booking, end, rules, free, following))
        for hours in STEPS
        for end in [booking.ends_at + timedelta(hours=hours)]
    )
    if not any(step.refused for step in steps):
        return Room(steps)
    affordable = booking.ends_at + timedelta(seconds=max(free, 0) // len(gpu_ids))
    latest = floor_to_grid(min(changes.longest_extension(booking, rules, now), affordable, last), slot)
    fitting = max((step.ends_at for step in steps if not step.refused), default=booking.ends_at)
    return Room(steps, latest if latest > fitting else None)


def _kept(blocks: list[Block], end: datetime) -> str:
    if blocks and blocks[0].starts_at < end:
        return _("In maintenance from %(start)s.", start=when(blocks[0].starts_at))
    return ""


def _refused(booking: Booking, end: datetime, rules: Policy, free: int, following: list[Allocation]) -> str:
    try:
        policy.check_window(rules, Window(booking.starts_at, end), clock.now())
    except DomainError as error:
        return error.brief
    for allocation in following:
        if allocation.starts_at < end:
            return _(
                "Taken from %(start)s by %(owner)s.",
                start=when(allocation.starts_at),
                owner=allocation.booking.user.display_name,
            )
    needed = len(booking.allocations) * Window(booking.ends_at, end).seconds
    if needed > free:
        return _(
            "To %(end)s costs %(needed)s GPU-hours more and you have %(free)s left.",
            end=when(end),
            needed=hours_text(needed),
            free=hours_text(max(free, 0)),
        )
    return ""
