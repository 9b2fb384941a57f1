"""Giving what is free to the first in line who can use it.

All of a turn is decided by one look at what is booked, so that nobody gets what one before them could have had.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import select

from app import clock
from app.errors import DomainError, SlotTaken, first_over
from app.extensions import db, lab_zone
from app.models import Booking, Gpu, Instance, Wait, WaitState
from app.services import audit, bookings, gaps, openings, payers, policy, quota
from app.services.bookings import Ask
from app.services.openings import Busy
from app.services.rules import classes, tariff
from app.services.rules.terms import Rules
from app.services.waits import line
from app.services.windows import Window, ceil_to_grid

TRIED = 4  # windows for one wish in one turn: the first ones, which the rules may refuse
LOOKS = 2  # for one wish in one turn: the second one from when on a rule is said not to be in the way any more
BEFORE_START = timedelta(minutes=1)  # an offer is over so long before it begins: nothing is attached unasked
SHORTEST = timedelta(minutes=5)  # of an offer
LOST = 2  # times that somebody else is quicker with what one wish was to get, in one turn


@dataclass(frozen=True)
class Place:
    """A window and the free GPUs in it."""

    window: Window
    gpus: Sequence[Gpu]


@dataclass(frozen=True)
class Payer:
    """An account and the rules that it books by."""

    id: int
    rules: Rules


@dataclass(frozen=True)
class Sight:
    """What is free, as it was at one moment, and what does not change within a turn."""

    now: datetime
    slot: int
    minutes: int
    gpus: list[Gpu]
    taken: Busy
    free: dict[int, list[Window]]
    machines: dict[int, frozenset[int]]
    payers: dict[tuple[int, str], Payer | None] = field(default_factory=dict)


def serve_next(slot: int) -> Booking | None:
    """Give the first in line who can use what is free a booking, or the offer of one; None when nobody can.

    In a transaction of its own: nobody may hold two accounts and GPUs."""
    line.take()
    lost: Counter[int] = Counter()
    while True:
        try:
            return _turn(slot, lost)
        except SlotTaken:  # by somebody outside the line; the look is not true any more
            db.session.expire_all()


def _turn(slot: int, lost: Counter[int]) -> Booking | None:
    waiting = [wait for wait in line.waiting() if lost[wait.id] < LOST]
    if not waiting:
        return None
    sight = _look(waiting, slot)
    for wait in waiting:
        try:
            if (booking := _served(wait, sight)) is not None:
                return booking
        except SlotTaken:
            lost[wait.id] += 1
            raise
    return None


def _served(wait: Wait, sight: Sight) -> Booking | None:
    """The booking or the offer, in the first place that is allowed; where a rule that time alone helps against refuses
    all, one after that. None where their rules or their quota refuse those too: passed over, the place kept."""
    since: datetime | None = sight.now
    for _ in range(LOOKS):
        if since is None:
            break
        refused: list[DomainError] = []
        for place in _places(wait, sight, since):
            try:
                with db.session.begin_nested():
                    return _given(wait, place, sight)
            except SlotTaken:
                raise
            except DomainError as error:
                refused.append(error)
        since = first_over(refused, since)
    return None


def _look(waiting: Sequence[Wait], slot: int) -> Sight:
    now, gpus = clock.now(), openings.usable_gpus()
    theirs = (Instance.owner_id.in_({wait.user_id for wait in waiting}), Instance.takes_gpus)
    machines: dict[int, set[int]] = defaultdict(set)
    for owner_id, host_id in db.session.execute(select(Instance.owner_id, Instance.host_id).where(*theirs)):
        machines[owner_id].add(host_id)
    whole = Window(now, max(now, *(wait.ends_at for wait in waiting)))
    taken = openings.busy(gpus, now, whole.ends_at)
    return Sight(
        now=now,
        slot=slot,
        minutes=policy.current().offer_minutes,
        gpus=gpus,
        taken=taken,
        free={gpu.id: _room(taken.get(gpu.id, ()), whole) for gpu in gpus},
        machines={owner_id: frozenset(hosts) for owner_id, hosts in machines.items()},
    )


def _places(wait: Wait, sight: Sight, since: datetime) -> Iterator[Place]:
    """The first windows from `since` on in which the wish can be had, by what is booked and by which GPUs the account
    may use."""
    gpus = line.matching(wait, sight.gpus)
    if next(_free(wait, gpus, sight, sight.slot), None) is None:
        return  # as for nearly everybody at nearly every turn: without a look at their rules
    account = _account(wait, sight)
    if account is None:
        return
    gpus = [gpu for gpu in gpus if account.rules.permits(gpu.model, gpu.host.name)]
    slot, notice = account.rules.slot(sight.slot), max(account.rules.notice, since - sight.now)
    for place in islice(_free(wait, gpus, sight, slot, notice), TRIED):
        price = tariff.price(account.rules, (gpu.model for gpu in place.gpus), lab_zone())
        if price.cost(place.window) <= quota.free(account.id):  # else nothing needs to be locked for it
            yield place


def _free(wait: Wait, gpus: Sequence[Gpu], sight: Sight, slot: int, notice: timedelta = timedelta()) -> Iterator[Place]:
    own = sight.machines.get(wait.user_id, frozenset())
    for window in _windows(wait, gpus, sight, slot, notice):
        if chosen := openings.choose(gpus, sight.taken, window, wait.count, own):
            yield Place(window, chosen)


def _windows(wait: Wait, gpus: Sequence[Gpu], sight: Sight, slot: int, notice: timedelta) -> Iterator[Window]:
    """When it could be: the one window, or at once and then wherever enough GPUs of a host are free for so long. Not
    before the `notice` that the account has to give is over."""
    lead = timedelta() if wait.by_itself else SHORTEST if wait.is_exact else timedelta(minutes=sight.minutes)
    if not wait.by_itself:
        lead += BEFORE_START
    earliest, length = max(wait.starts_at, sight.now + max(lead, notice)), timedelta(seconds=wait.seconds)
    if wait.is_exact:
        if earliest <= wait.starts_at:
            yield Window(wait.starts_at, wait.ends_at)
        return
    if earliest <= sight.now:
        at_once = Window(sight.now.replace(microsecond=0), ceil_to_grid(sight.now + length, slot))
        if at_once.ends_at <= wait.ends_at:
            yield at_once
    room = {gpu.id: _within(sight.free[gpu.id], earliest, wait.ends_at, length) for gpu in gpus}
    moments = {ceil_to_grid(one.starts_at, slot) for free in room.values() for one in free}
    starts = {
        start
        for group in openings.by_host(gpus).values()
        for first, last in gaps.starts({gpu.id: room[gpu.id] for gpu in group}, wait.count, length, slot)
        for start in (first, *(moment for moment in moments if first < moment <= last))
    }
    for start in sorted(starts):
        yield Window(start, start + length)


def _within(free: Sequence[Window], start: datetime, end: datetime, least: timedelta) -> list[Window]:
    """What of the free time lies between two moments, where that is long enough."""
    cut = ((max(one.starts_at, start), min(one.ends_at, end)) for one in free)
    return [Window(first, last) for first, last in cut if last - first >= least]


def _room(taken: Sequence[Window], within: Window) -> list[Window]:
    """The free time of one GPU within a window; `taken` in order of start."""
    found, cursor = [], within.starts_at
    for span in taken:
        if span.starts_at > cursor:
            found.append(Window(cursor, min(span.starts_at, within.ends_at)))
        cursor = max(cursor, span.ends_at)
        if cursor >= within.ends_at:
            return found
    return [*found, Window(cursor, within.ends_at)]


def _account(wait: Wait, sight: Sight) -> Payer | None:
    """The account that pays; None where this person may not book on it any more."""
    key = (wait.user_id, wait.account)
    if key not in sight.payers:
        try:
            account_id = payers.account_id(wait.user, wait.account)
            sight.payers[key] = Payer(account_id, classes.rules_for(account_id))
        except DomainError:
            sight.payers[key] = None
    return sight.payers[key]


def _given(wait: Wait, place: Place, sight: Sight) -> Booking:
    window, now = place.window, sight.now
    ask = Ask(
        starts_at=window.starts_at if window.starts_at > now else None,
        ends_at=window.ends_at,
        gpu_ids=tuple(gpu.id for gpu in place.gpus),
        note=wait.note,
        account=wait.account,
    )
    booking = bookings.create(wait.user, ask, sight.slot)
    until = now + timedelta(minutes=sight.minutes)
    wait.booking_id, wait.granted_at = booking.id, now
    if wait.by_itself:
        wait.state, wait.closed_at, wait.decide_by = WaitState.GRANTED, now, until
    else:
        wait.state, wait.decide_by = WaitState.OFFERED, min(until, booking.starts_at - BEFORE_START)
    db.session.flush()
    action = "wait.granted" if wait.by_itself else "wait.offered"
    audit.record(audit.SYSTEM, action, f"wait:{wait.id}", booking=booking.id)
    return booking
