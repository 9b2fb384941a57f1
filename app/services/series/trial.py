"""A series tried: each of it is booked with those before it booked already, so that rules and quota count them.

Locks are taken once for all of it, in the order of everybody: the account, the GPUs by id, the bookings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select

from app.errors import Conflict, DomainError, InvalidInput
from app.extensions import db
from app.language import gettext as _
from app.language import ngettext
from app.models import Booking, Gpu, User
from app.services import askers, bookings, openings, payers
from app.services.claims import Ask
from app.services.openings import Busy
from app.services.rules import classes, tariff
from app.services.rules.terms import Rules
from app.services.series import patterns, places
from app.services.series.patterns import Pattern
from app.services.windows import Window, ceil_to_grid, floor_to_grid

OF_ONE = frozenset({"starts_at", "ends_at"})  # what may be wrong with one of them and right with the next
Plan = Mapping[datetime, tuple[int, ...]]
"""By its start, the GPUs that a booking is to have."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants again and again; the moments in `ask` do not matter."""

    pattern: Pattern
    ask: Ask


@dataclass(frozen=True)
class Occurrence:
    """One booking of a series, or why there is none. `cost` in GPU-seconds."""

    window: Window
    gpus: tuple[Gpu, ...] = ()
    cost: int = 0
    refused: DomainError | None = None
    booking: Booking | None = None


class NotAll(Conflict):
    """Some of what was to be booked or moved together cannot be, so nothing was. `refused`: why, one for each."""

    code = "series"

    def __init__(self, refused: Sequence[DomainError], total: int) -> None:
        brief = ngettext(
            "%(num)s of %(total)s bookings is not possible.",
            "%(num)s of %(total)s bookings are not possible.",
            len(refused),
            total=total,
        )
        super().__init__(brief, refused[0].brief)
        self.refused = tuple(refused)


def tried(
    user: User, wish: Wish, slot: int, since: datetime, *, series_id: int | None = None, plan: Plan | None = None
) -> list[Occurrence]:
    """Each that begins after `since` booked, in order; the refused ones say why. The account must be locked.

    `plan`: only those, with these GPUs. Raises InvalidInput for what suits none, Conflict for a plan of other days."""
    rules = classes.rules_for(payers.account_id(user, wish.ask.account))
    grid, days = rules.slot(slot), wish.pattern.days()
    windows = [window for window in (_snapped(wish.pattern.on(day), grid) for day in days) if window.starts_at > since]
    if not windows:
        raise InvalidInput(_("None of these days lies ahead."), _("Choose a later last day."), field="until")
    if plan:
        by_start = {window.starts_at: window for window in windows}
        if not plan.keys() <= by_start.keys():
            raise Conflict(_("The days are not what they were when you looked."), _("Look again, then book."))
        chosen = [(by_start[start], plan[start]) for start in sorted(plan)]
        lock_gpus(number for gpu_ids in plan.values() for number in gpu_ids)
    else:
        chosen = list(zip(windows, _places(user, wish.ask, windows, rules), strict=True))
    return [_one(user, replace(wish.ask, gpu_ids=gpu_ids), window, slot, series_id) for window, gpu_ids in chosen]


def require_sense(wish: Wish) -> None:
    """Raise InvalidInput for what makes no sense at any time."""
    patterns.checked(wish.pattern)
    bookings.require_sense(wish.ask)


def lock_gpus(gpu_ids: Iterable[int]) -> None:
    """Their rows, in the order in which everybody locks them."""
    query = select(Gpu.id).where(Gpu.id.in_(sorted(set(gpu_ids)))).order_by(Gpu.id)
    db.session.execute(query.with_for_update(key_share=True))


def _one(user: User, ask: Ask, window: Window, slot: int, series_id: int | None) -> Occurrence:
    ask = replace(ask, starts_at=window.starts_at, ends_at=window.ends_at, request_key=None)
    try:
        with db.session.begin_nested():
            booking = bookings.create(user, ask, slot, series_id=series_id)
    except DomainError as error:
        if isinstance(error, InvalidInput) and error.field not in OF_ONE:
            raise
        return Occurrence(window, refused=error)
    gpus = tuple(allocation.gpu for allocation in booking.allocations)
    return Occurrence(Window(booking.starts_at, booking.ends_at), gpus, tariff.cost(booking), booking=booking)


def _places(user: User, ask: Ask, windows: Sequence[Window], rules: Rules) -> list[tuple[int, ...]]:
    """The GPUs for each window: those that were named, else what is free; () where `bookings` is to say why not."""
    if ask.gpu_ids:
        lock_gpus(ask.gpu_ids)
        return [ask.gpu_ids] * len(windows)
    gpus = [gpu for gpu in openings.usable_gpus(ask.model, ask.host) if rules.permits(gpu.model, gpu.host.name)]
    machines, count = askers.machine_hosts(user.id), max(ask.count, 1)
    while True:  # each turn sees what the last one lost to
        picked = places.chosen(gpus, _busy(gpus, windows), windows, count, machines)
        own = {number for gpu_ids in picked for number in gpu_ids}
        attempt = db.session.begin_nested()
        lock_gpus(own)
        taken = _busy([gpu for gpu in gpus if gpu.id in own], windows)
        pairs = list(zip(windows, picked, strict=True))
        if not any(span.overlaps(window) for window, ids in pairs for number in ids for span in taken.get(number, ())):
            attempt.commit()
            return picked
        attempt.rollback()  # lets go of the locks: taken in two turns, they would be out of order


def _busy(gpus: Sequence[Gpu], windows: Sequence[Window]) -> Busy:
    return openings.busy(gpus, windows[0].starts_at, max(window.ends_at for window in windows))


def _snapped(window: Window, grid: int) -> Window:
    return Window(floor_to_grid(window.starts_at, grid), ceil_to_grid(window.ends_at, grid))
