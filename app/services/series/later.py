"""One of a series and all that come later: given back, or moved to other hours of their days."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.errors import Conflict, DomainError, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Allocation, Booking, Gpu, Series, User
from app.services import audit, changes, priced, quota, rescheduling
from app.services.rules import classes
from app.services.series import making, patterns, reading, trial
from app.services.series.patterns import Pattern
from app.services.series.trial import NotAll
from app.services.windows import Window, floor_to_grid
from app.services.words import when


@dataclass(frozen=True)
class Move:
    """One booking's way to other hours, or why it stays. In GPU-seconds, `more`: what that costs, below 0 what it gives
    back; `fee`: what its owner pays beside that for giving back late."""

    booking_id: int
    before: Window
    after: Window
    more: int = 0
    fee: int = 0
    refused: DomainError | None = None

    @property
    def changed(self) -> bool:
        """Whether it is at other hours than before: a rest may stay where it is."""
        return self.after != self.before


def upcoming(series: Series, since: datetime) -> list[Booking]:
    """What of it has not started, from a moment on, in order of start; all that changes need is loaded."""
    query = (
        select(Booking)
        .where(
            Booking.series_id == series.id,
            Booking.cancelled_at.is_(None),
            Booking.starts_at >= since,
            Booking.starts_at > clock.now(),
        )
        .options(
            selectinload(Booking.allocations).joinedload(Allocation.gpu).joinedload(Gpu.host),
            joinedload(Booking.host),
            joinedload(Booking.user),
        )
        .order_by(Booking.starts_at, Booking.id)
        .execution_options(populate_existing=True)
    )
    return list(db.session.scalars(query))


def cancel(user: User, series: Series, since: datetime) -> list[Booking]:
    """Give back all of it that begins at a moment or later; what the rules charge late is charged for each.

    Raises RuleRefused where nothing is left to give back."""
    found = _locked(series, since)
    for booking in found:
        fee = changes.late_fee(user, booking, booking.starts_at, booking.ends_at)
        changes.withdraw(user.username, booking, fee=fee, series=str(series.id))
    audit.record(user.username, "series.cancelled", reading.target(series), **making.summary(found))
    return found


def preview(user: User, series: Series, since: datetime, hours: tuple[int, int], slot: int) -> list[Move]:
    """What `move` would do if those that can did; nothing stays of it."""
    attempt = db.session.begin_nested()
    try:
        return _moved(user, series, _locked(series, since), hours, slot)
    finally:
        attempt.rollback()


def move(
    user: User, series: Series, since: datetime, hours: tuple[int, int], slot: int, only: Collection[int]
) -> tuple[Series, list[Move]]:
    """Move those of `only` to other hours (`opens`, `closes`) of their days, on their own GPUs: all of them or none.

    They are a series of their own from then on, so that each one says truly when it is; a rest only ends at another
    time, and stays with the one of which it is the rest. Raises NotAll, or Conflict where they are not what they were.
    """
    found = [booking for booking in _locked(series, since) if booking.id in only]
    if not found or len(found) != len(set(only)):
        raise Conflict(_("The bookings are not what they were when you looked."), _("Look again, then change them."))
    with db.session.begin_nested():
        moves = _moved(user, series, found, hours, slot)
        if refused := [one.refused for one in moves if one.refused is not None]:
            raise NotAll(refused, len(moves))
        made = _apart(series, found, hours, slot)
        changed = {one.booking_id for one in moves if one.changed}
        if told := [booking for booking in found if booking.id in changed]:
            what = making.summary(told)
            audit.record(user.username, "series.changed", reading.target(made), before=series.id, **what)
    return made, moves


def _moved(user: User, series: Series, found: list[Booking], hours: tuple[int, int], slot: int) -> list[Move]:
    was = reading.pattern_of(series)
    pattern = patterns.checked(replace(was, opens=hours[0], closes=hours[1]))
    grid, begun_at = classes.rules_for(series.account_id).slot(slot), reading.begun_at(series)
    ways = []
    for booking in found:
        after = pattern.on(_day(was, begun_at.get(booking.id, booking.starts_at), grid))
        is_rest = booking.id in begun_at
        ways.append((booking, replace(after, starts_at=booking.starts_at) if is_rest else after))
    # So that one that moves makes room for the next that follows it.
    onwards = any(after.starts_at > booking.starts_at for booking, after in ways)
    moves = [_one(user, booking, after, slot, series.id) for booking, after in (ways[::-1] if onwards else ways)]
    return moves[::-1] if onwards else moves


def _day(pattern: Pattern, start: datetime, grid: int) -> date:
    """The day that a start is for: the next one where the grid, in seconds, pulled its start over midnight."""
    day = pattern.day_of(start)
    following = day + timedelta(days=1)
    return following if floor_to_grid(pattern.on(following).starts_at, grid) == start else day


def _one(user: User, booking: Booking, after: Window, slot: int, series_id: int) -> Move:
    before = Window(booking.starts_at, booking.ends_at)
    try:
        if booking.rest_of_id is not None and after.ends_at <= after.starts_at:
            raise _over_before(after)
        _none, price = priced.made(booking.id, lambda: rescheduling.move(user, booking, after, slot, series=series_id))
    except DomainError as error:
        return Move(booking.id, before, after if after.ends_at > after.starts_at else before, refused=error)
    return Move(booking.id, before, Window(booking.starts_at, booking.ends_at), price.more, price.fee)


def _over_before(after: Window) -> RuleRefused:
    return RuleRefused(
        _("These hours end before the rest of this booking begins, %(start)s.", start=when(after.starts_at)),
        _("To give all of it back, cancel it."),
        rule="phase",
    )


def _apart(series: Series, found: list[Booking], hours: tuple[int, int], slot: int) -> Series:
    """The series of those that were moved: itself where all were."""
    found = [booking for booking in found if booking.rest_of_id is None]
    if not found:
        return series
    if len(found) == len(reading.members(series.id)):
        series.opens, series.closes = hours
        db.session.flush()
        return series
    pattern = replace(reading.pattern_of(series), opens=hours[0], closes=hours[1])
    first = _day(pattern, found[0].starts_at, classes.rules_for(series.account_id).slot(slot))
    kept = ("user_id", "account_id", "zone", "weekdays", "until", "gpu_ids", "count", "model", "host", "note")
    values = {name: getattr(series, name) for name in kept}
    made = Series(**values, first_day=min(first, series.until), opens=hours[0], closes=hours[1])
    db.session.add(made)
    db.session.flush()
    for booking in found:
        booking.series_id = made.id
    db.session.flush()
    return made


def _locked(series: Series, since: datetime) -> list[Booking]:
    """What is left of it, the account, the GPUs and the bookings locked in that order. Raises RuleRefused for none."""
    quota.lock(series.account_id)
    while True:
        attempt = db.session.begin_nested()
        gpu_ids = _gpus_of(found := upcoming(series, since))
        trial.lock_gpus(gpu_ids)
        ids = [booking.id for booking in found]
        db.session.execute(select(Booking.id).where(Booking.id.in_(ids)).order_by(Booking.id).with_for_update())
        found = upcoming(series, since)
        if _gpus_of(found) <= gpu_ids:
            attempt.commit()
            break
        attempt.rollback()  # one was given another GPU meanwhile: to lock that now would be out of order
    if not found:
        raise RuleRefused(
            _("Nothing of this series is to come from there on."), _("See what became of it."), rule="phase"
        )
    return found


def _gpus_of(found: list[Booking]) -> set[int]:
    return {allocation.gpu_id for booking in found for allocation in booking.allocations}
