"""Which GPUs of its host a booking could have at a time, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from app.extensions import db
from app.language import gettext as _
from app.models import Booking, Gpu
from app.services import openings
from app.services.rules import check, classes
from app.services.rules.terms import Rules
from app.services.windows import Window
from app.services.words import when


@dataclass(frozen=True)
class Choice:
    """One GPU. `own`: the booking has it now; `why_not`: why it cannot have it then, "" where it can."""

    gpu: Gpu
    own: bool
    why_not: str


def of(booking: Booking, window: Window) -> list[Choice]:
    """All GPUs of its host, by their numbers, as they are for its account in the window; its own time is in nobody's
    way. Its allocations must be loaded."""
    query = select(Gpu).where(Gpu.host_id == booking.host_id).options(joinedload(Gpu.host)).order_by(Gpu.minor)
    gpus = db.session.scalars(query).all()
    own = {allocation.gpu_id for allocation in booking.allocations}
    rules, taken = classes.rules_for(booking.account_id), _taken(booking, gpus, window)
    return [Choice(gpu, gpu.id in own, _out(gpu, rules, own) or taken.get(gpu.id, "")) for gpu in gpus]


def _out(gpu: Gpu, rules: Rules, own: set[int]) -> str:
    """Why it cannot be booked at any time. What a booking has already it may keep."""
    if gpu.id in own:
        return ""
    if not openings.is_usable(gpu):
        return _("out of service")
    return next((refusal.brief for refusal in check.of_gpus(rules, frozenset({gpu.model}), gpu.host.name)), "")


def _taken(booking: Booking, gpus: Sequence[Gpu], window: Window) -> dict[int, str]:
    """By GPU id, who or what has it then; the first where several do."""
    ids, found = [gpu.id for gpu in gpus], dict[int, str]()
    for one in openings.overlapping(ids, window, ignore_booking=booking.id):
        times = {"start": when(one.starts_at), "end": when(one.ends_at)}
        found.setdefault(
            one.gpu_id, _("taken %(start)s to %(end)s (%(owner)s)", owner=one.booking.user.display_name, **times)
        )
    for block in openings.blocked(ids, window):
        times = {"start": when(block.starts_at), "end": when(block.ends_at)}
        found.setdefault(block.gpu_id, _("in maintenance %(start)s to %(end)s", **times))
    return found
