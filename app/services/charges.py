"""What a booking that is over is charged, by the lab's rules as they are then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.models import Allocation, Booking, Charge
from app.services import policy
from app.services.rules import fees, tariff
from app.services.windows import Window

ATTACHED, GIVEN = "attached", "given"


@dataclass(frozen=True)
class Charged:
    """GPU-seconds as they cost. `note`: what it was for, for `explained`; "" for all that was reserved."""

    seconds: int
    note: str = ""


def of(booking: Booking) -> Charged:
    """What a booking is charged beside any fee; never more than it costs. Its allocations must be loaded.

    By whatever rule: the time in which Berth did not give a GPU yet, through no fault of its owner's, costs nothing;
    and so does the rest of another booking that they never asked for, where no machine ever took it."""
    whole, price, number = tariff.cost(booking), tariff.of(booking), len(booking.allocations)
    if fees.untaken(booking):
        return Charged(0, f"{ATTACHED}:0/{whole}")
    # GPUs of one booking count alike: what each weighs is not written down, and the sum of all is right.
    if policy.current().charge == Charge.ATTACHED:
        kind = ATTACHED
        shares = sum(price.cost(window) for window in map(attached, booking.allocations) if window is not None)
    else:
        kind = GIVEN
        lost = (price.cost(Window(booking.starts_at, fees.given_from(one))) for one in booking.allocations)
        shares = whole * number - sum(lost)
    used = min(whole, (shares + number // 2) // number)
    return Charged(used, f"{kind}:{used}/{whole}") if used < whole else Charged(whole)


def attached(allocation: Allocation) -> Window | None:
    """For how long of its time a GPU was attached, as passes over its host saw it."""
    if allocation.attached_at is None:
        return None
    start = max(allocation.starts_at, allocation.attached_at.replace(microsecond=0))
    end = min(allocation.ends_at, _whole(allocation.detached_at) or allocation.ends_at)
    return Window(start, end) if start < end else None


def explained(note: str) -> tuple[str, int, int] | None:
    """What a note says: ATTACHED or GIVEN, the GPU-seconds charged for that, and those reserved; None if nothing."""
    kind, _colon, numbers = note.partition(":")
    used, _slash, whole = numbers.partition("/")
    return (kind, int(used), int(whole)) if kind in {ATTACHED, GIVEN} and used.isdigit() and whole.isdigit() else None


def _whole(moment: datetime | None) -> datetime | None:
    return moment.replace(microsecond=0) if moment is not None else None
