"""How much longer a booking could go on, and what stands in the way: for buttons that say where they lead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app import clock
from app.errors import RuleRefused
from app.extensions import lab_zone
from app.language import gettext as _
from app.models import Allocation, Block, Booking, Phase
from app.services import changes, openings, quota
from app.services.rules import check, classes, gate, tariff
from app.services.rules.check import Standing
from app.services.rules.terms import Rules
from app.services.windows import Window, floor_to_grid, hours_text
from app.services.words import when

STEPS = (1, 2)  # hours


class Why(StrEnum):
    """What kind of thing is in the way."""

    BOOKED = "booked"
    MAINTENANCE = "maintenance"
    QUOTA = "quota"
    RULE = "rule"


@dataclass(frozen=True)
class Bar:
    """What is in the way, in words; `at`: from when on, of what others have booked and of maintenance."""

    why: Why
    text: str
    at: datetime | None = None


@dataclass(frozen=True)
class Step:
    """One later end. `bar`: why it cannot be, None if it can."""

    hours: int
    ends_at: datetime
    bar: Bar | None = None

    @property
    def refused(self) -> str:
        """Why it cannot be, "" if it can."""
        return self.bar.text if self.bar else ""


@dataclass(frozen=True)
class Room:
    """What a booking's end can be moved to. `at_most`: the latest end, where the steps do not all fit."""

    steps: tuple[Step, ...]
    at_most: datetime | None = None

    @property
    def latest(self) -> datetime | None:
        """The latest of the ends that it offers, if any."""
        fitting = [step.ends_at for step in self.steps if not step.bar]
        return max([*fitting, *([self.at_most] if self.at_most else [])], default=None)

    @property
    def reasons(self) -> list[str]:
        """Why steps are missing, each reason once."""
        return list(dict.fromkeys(step.refused for step in self.steps if step.refused))


def after(booking: Booking, slot: int) -> Room | None:
    """How much later a booking could end; None for one that cannot change any more. Its allocations must be loaded."""
    now = clock.now()
    if booking.phase(now) not in {Phase.UPCOMING, Phase.RUNNING}:
        return None
    bounds = _bounds(booking, now)
    last = booking.ends_at + timedelta(hours=max(STEPS))
    gpu_ids = [allocation.gpu_id for allocation in booking.allocations]
    rest = Window(booking.ends_at, last)
    following = openings.overlapping(gpu_ids, rest, ignore_booking=booking.id)
    blocks = openings.blocked(gpu_ids, rest)
    steps = tuple(
        Step(hours, end, _kept(blocks, end) or _refused(booking, end, bounds, following))
        for hours in STEPS
        for end in [booking.ends_at + timedelta(hours=hours)]
    )
    if not any(step.refused for step in steps):
        return Room(steps)
    price = tariff.of(booking)
    affordable = price.affordable_until(booking.starts_at, booking.ends_at, max(bounds.free, 0), last)
    latest = min(changes.longest_extension(booking, bounds.rules, now), affordable, last)
    latest = floor_to_grid(latest, bounds.rules.slot(slot))
    fitting = max((step.ends_at for step in steps if not step.refused), default=booking.ends_at)
    return Room(steps, latest if latest > fitting and not _refused(booking, latest, bounds, following) else None)


def _kept(blocks: list[Block], end: datetime) -> Bar | None:
    if blocks and (start := blocks[0].starts_at) < end:
        return Bar(Why.MAINTENANCE, _("In maintenance from %(start)s.", start=when(start)), start)
    return None


@dataclass(frozen=True)
class _Bounds:
    """What a later end is held against, read once for all steps."""

    rules: Rules
    standing: Standing
    free: int
    shut: str = ""  # why it cannot go on at all


def _bounds(booking: Booking, now: datetime) -> _Bounds:
    rules = classes.rules_for(booking.account_id)
    asked, free = changes.longer(booking, booking.ends_at, now), quota.free(booking.account_id)
    try:
        standing = gate.standing_of(booking.account_id, asked, rules, ignore_booking=booking.id)
    except RuleRefused as error:
        return _Bounds(rules, Standing(), free, error.brief)
    return _Bounds(rules, standing, free)


def _refused(booking: Booking, end: datetime, bounds: _Bounds, following: list[Allocation]) -> Bar | None:
    if bounds.shut:
        return Bar(Why.RULE, bounds.shut)
    asked = changes.longer(booking, end, clock.now())
    for refusal in check.broken(asked, bounds.standing, bounds.rules, lab_zone()):
        return Bar(Why.RULE, refusal.brief)
    for allocation in following:
        if (start := allocation.starts_at) < end:
            owner = allocation.booking.user.display_name
            return Bar(Why.BOOKED, _("Taken from %(start)s by %(owner)s.", start=when(start), owner=owner), start)
    needed = tariff.of(booking).between(booking.starts_at, booking.ends_at, end)
    if needed > bounds.free:
        text = _(
            "To %(end)s costs %(needed)s GPU-hours more and you have %(free)s left.",
            end=when(end),
            needed=hours_text(needed),
            free=hours_text(max(bounds.free, 0)),
        )
        return Bar(Why.QUOTA, text)
    return None
