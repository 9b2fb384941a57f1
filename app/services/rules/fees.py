"""What giving back late costs, where the rules say so; and what Berth gave late, which costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Charge, Host, Wait, WaitState
from app.services import inventory, policy
from app.services.rules import classes, tariff
from app.services.rules.tariff import Tariff
from app.services.rules.terms import Rules
from app.services.windows import Window

# What its owner can mend: see services.plan.Trouble.
OWN_TROUBLE = frozenset({"no_machine", "stopped", "frozen"})
PROMPT = timedelta(seconds=60)  # what the passes and those who leave a GPU may take of its time


def late(booking: Booking, start: datetime, end: datetime, now: datetime) -> int:
    """What is charged, in GPU-seconds, when the part of a booking from `start` to `end` is given back at `now`.

    Only of what would have run within the next hours, which others cannot plan for any more. The same for a booking
    that is cancelled, shortened or ended now: nobody gains by waiting or by taking another way. Nothing for a GPU that
    Berth could not give, nor what runs on a host that is away, nor for what the waiting list gave them a moment ago,
    nor for the rest of another one for which they never asked. Its allocations must be loaded."""
    rules = classes.rules_for(booking.account_id)
    if rules.late_hours is None or spared(booking, now) or _is_cut_off(booking):
        return 0
    return amount(rules, tariff.of(booking), booking.starts_at, Window(start, end), now)


def unused(booking: Booking, start: datetime, end: datetime, now: datetime) -> int:
    """What is charged, in GPU-seconds, when Berth takes that part back at `now` because nobody uses it: all of it where
    the lab charges what is reserved, else as if its owner had given it back. Its allocations must be loaded."""
    if policy.current().charge != Charge.RESERVED:
        return late(booking, start, end, now)
    return 0 if spared(booking, now) else tariff.of(booking).between(booking.starts_at, start, end)


def amount(rules: Rules, price: Tariff, began: datetime, given_back: Window, now: datetime) -> int:
    """The same under these rules and for this price, of a booking that starts at `began`. Pure."""
    if rules.late_hours is None or rules.late_percent is None:
        return 0
    until = min(now + timedelta(hours=rules.late_hours), given_back.ends_at)
    if until <= given_back.starts_at:
        return 0
    return price.between(began, given_back.starts_at, until) * rules.late_percent // 100


def spared(booking: Booking, now: datetime) -> bool:
    """Whether nothing is charged for giving it back at a moment; its allocations must be loaded."""
    return spared_anyway(booking, now) or any(until > now for until in undecided([booking.id]).get(booking.id, ()))


def spared_anyway(booking: Booking, now: datetime) -> bool:
    """The same, but for what the waiting list booked or offers."""
    return booking.unasked or not_given(booking) or _is_late(booking, now)


def _is_cut_off(booking: Booking) -> bool:
    """Whether it runs on a host that is away as it seems now, so that nobody knows whether its GPUs are of any use."""
    return booking.starts_at <= clock.now() and inventory.is_lost(db.session.get_one(Host, booking.host_id))


def undecided(booking_ids: Sequence[int]) -> dict[int, list[datetime]]:
    """Until when somebody may still say no to those that the waiting list booked by itself, or offers."""
    kinds = or_(Wait.by_itself, Wait.state == WaitState.OFFERED)
    query = select(Wait).where(Wait.booking_id.in_(booking_ids), kinds)
    found: dict[int, list[datetime]] = {}
    for wait in db.session.scalars(query):
        if wait.booking_id is not None and wait.decide_by is not None:
            found.setdefault(wait.booking_id, []).append(wait.decide_by)
    return found


def not_given(booking: Booking) -> bool:
    """Whether it lacks a GPU through no fault of its owner's; its allocations must be loaded."""
    return any(one.trouble and one.trouble not in OWN_TROUBLE for one in booking.allocations)


def _is_late(booking: Booking, now: datetime) -> bool:
    """Whether Berth should have given a GPU of it by now, and could not even say why it has not: nobody looks."""
    nobody_looked = (one.starts_at for one in booking.allocations if not (one.attached_at or one.ready_at))
    return any(now - start > PROMPT for start in nobody_looked)


def never_given(allocation: Allocation) -> bool:
    """Whether its owner never had this GPU, and could do nothing about it."""
    return allocation.attached_at is None and bool(allocation.trouble) and allocation.trouble not in OWN_TROUBLE


def untaken(booking: Booking) -> bool:
    """Whether it is the rest of another one, for which its owner never asked and which no machine ever took: nobody
    pays for it, and nobody wasted it. `services.reports.pieces` says the same in SQL.

    Its allocations must be loaded."""
    return booking.unasked and all(one.attached_at is None for one in booking.allocations)


def given_from(allocation: Allocation) -> datetime:
    """From when on its owner had this GPU, or would have had it but for their machine: what was before costs nothing.

    Its start where Berth was PROMPT, its end where it never came. `services.reports.pieces` says the same in SQL."""
    if never_given(allocation):
        return allocation.ends_at
    moments = [allocation.attached_at, allocation.ready_at, allocation.ends_at]
    since = min(moment for moment in moments if moment is not None)
    return since.replace(microsecond=0) if since - allocation.starts_at > PROMPT else allocation.starts_at
