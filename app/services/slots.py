"""Find me a slot: so many GPUs for so long, the earliest or the nearest to a time, on one host or another.

The database says where on each GPU there is room enough, looking two days ahead at first and twice as far each time;
only while nothing is found does it come to look at all that is booked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask_babel import gettext as _

from app import clock
from app.errors import DomainError, InvalidInput, RuleRefused
from app.models import Gpu, User
from app.services import bookings, openings
from app.services.bookings import Ask
from app.services.gaps import Room, rooms, starts
from app.services.refusals import Offer
from app.services.rules import classes
from app.services.windows import Window, ceil_to_grid, floor_to_grid

MOST = 4  # proposals
FIRST_LOOK = timedelta(days=2)
FAR_APART = timedelta(days=7)  # a proposal so much worse than the best one is not looked for
USUAL = timedelta(hours=4)


@dataclass(frozen=True)
class Wish:
    """`count` GPUs of one host (of `model`, on `host`, where named) for so many seconds: not before one moment and
    over by another, where given; as near to `near` as can be, or else as early."""

    count: int
    seconds: int
    model: str = ""
    host: str = ""
    not_before: datetime | None = None
    before: datetime | None = None
    near: datetime | None = None


@dataclass(frozen=True)
class Found:
    """What could be booked, best first. `late`: none of it is over by the moment that was wished."""

    offers: tuple[Offer, ...]
    late: bool


@dataclass(frozen=True)
class _Search:
    """A wish with what it is bound by: nothing starts before `first` or ends after `last`."""

    wish: Wish
    length: timedelta
    now: datetime
    first: datetime
    last: datetime
    slot: int


@dataclass(frozen=True)
class _Place:
    """A window and the GPUs that are free in it; `further`: how many on that host are better."""

    window: Window
    gpus: list[Gpu]
    further: int = 0


def find(user: User, wish: Wish, slot: int) -> Found:
    """Proposals, first one for each host that has room, each tried before it is offered; none if nobody has.

    Raises InvalidInput for what cannot be meant, and what `bookings.propose` raises where that refuses all of them.
    """
    now = clock.now()
    if wish.count < 1:
        raise InvalidInput(_("Ask for at least one GPU."), field="count")
    if wish.seconds <= 0:
        raise InvalidInput(_("Give a duration in hours, such as 6 or 1.5."), field="hours")
    gpus = openings.usable_gpus(wish.model, wish.host)
    _require_a_host(gpus, wish.count)
    rules = classes.rules_for(user.account_id)
    slot, horizon = rules.slot(slot), now + timedelta(days=rules.horizon_days)
    length = timedelta(seconds=-(-wish.seconds // slot) * slot)
    first = max(wish.not_before or now, now + rules.notice)
    search = _Search(wish, length, now, first, min(wish.before or horizon, horizon), slot)
    offers = _tried(user, search, _best(gpus, search))
    if offers or wish.before is None or wish.before >= horizon:
        return Found(offers, late=False)
    later = _Search(wish, length, now, first, horizon, slot)
    return Found(_tried(user, later, _best(gpus, later)), late=True)


def free_now(user: User, slot: int, model: str = "", host: str = "") -> list[Offer]:
    """One GPU from this minute on, on each host that has one, the longest first: four hours, or until it is taken."""
    now = clock.now()
    gpus = openings.usable_gpus(model, host)
    usual = ceil_to_grid(now + USUAL, slot)
    room = rooms(gpus, Window(now, usual), timedelta(seconds=slot))
    best: dict[int, tuple[datetime, Gpu]] = {}
    for gpu in gpus:
        until = next((floor_to_grid(one.ends_at, slot) for one in room[gpu.id] if one.starts_at <= now), now)
        if until > now and (gpu.host_id not in best or until > best[gpu.host_id][0]):
            best[gpu.host_id] = (until, gpu)
    offers = []
    for until, gpu in sorted(best.values(), key=lambda one: one[0], reverse=True)[:MOST]:
        ask = Ask(ends_at=until, gpu_ids=(gpu.id,))
        try:
            offers.append(Offer("now", ask, bookings.propose(user, ask, slot)))
        except DomainError:
            continue
    return offers


def _best(gpus: Sequence[Gpu], search: _Search) -> list[_Place]:
    """Each host's best window, then further ones, best first; fewer where one would have to look far for more."""
    by_host = [group for group in openings.by_host(gpus).values() if len(group) >= search.wish.count]
    members = [gpu for group in by_host for gpu in group]
    look = max(FIRST_LOOK, 2 * search.length)
    while True:
        window = _looked_at(search, look)
        found: list[_Place] = []
        if window.ends_at > window.starts_at:
            room = rooms(members, window, search.length)
            found = [one for group in by_host for one in _on_host(group, room, search)]
        found.sort(key=lambda one: (one.further, _distance(one.window, search), one.gpus[0].host.name))
        everything = window.starts_at <= search.first and window.ends_at >= search.last
        far = bool(found) and look > _distance(found[0].window, search) + FAR_APART
        if everything or far or len({one.gpus[0].host_id for one in found}) >= min(MOST, len(by_host)):
            return found[:MOST]
        look *= 2


def _looked_at(search: _Search, look: timedelta) -> Window:
    near = search.wish.near
    start = search.first if near is None else min(max(search.first, near - look), search.last)
    end = (search.first if near is None else max(near, search.first)) + look + search.length
    return Window(start, min(end, search.last))


def _on_host(gpus: Sequence[Gpu], room: Room, search: _Search) -> list[_Place]:
    """The best start, and the best of each other time between bookings at which there is one."""
    count, near = search.wish.count, search.wish.near
    windows = []
    if near is None and search.first == search.now:
        at_once = Window(search.now, ceil_to_grid(search.now + search.length, search.slot))
        if len(_free(gpus, room, at_once)) >= count:
            windows.append(at_once)
    wanted = floor_to_grid(near, search.slot) if near is not None else search.first
    spans = starts({gpu.id: room[gpu.id] for gpu in gpus}, count, search.length, search.slot)
    best = sorted((min(max(wanted, first), last) for first, last in spans), key=lambda moment: abs(moment - wanted))
    for start in best:
        window = Window(start, start + search.length)
        if not any(window.overlaps(other) for other in windows):
            windows.append(window)
    return [_Place(one, _free(gpus, room, one)[:count], further) for further, one in enumerate(windows[:MOST])]


def _free(gpus: Sequence[Gpu], room: Room, window: Window) -> list[Gpu]:
    """Those free for all of the window, first those with the least room around it, so that long bookings find some."""
    fitting = [
        (one.seconds, gpu.minor, gpu)
        for gpu in gpus
        for one in room[gpu.id]
        if one.starts_at <= window.starts_at and one.ends_at >= window.ends_at
    ]
    return [gpu for _room, _minor, gpu in sorted(fitting, key=lambda one: one[:2])]


def _distance(window: Window, search: _Search) -> timedelta:
    return abs(window.starts_at - (search.wish.near or search.first))


def _tried(user: User, search: _Search, found: Sequence[_Place]) -> tuple[Offer, ...]:
    offers, refused = [], None
    for place in found:
        window, gpus = place.window, place.gpus
        start = None if window.starts_at == search.now else window.starts_at
        ask = Ask(ends_at=window.ends_at, starts_at=start, count=search.wish.count, model=search.wish.model)
        named = Ask(ends_at=window.ends_at, starts_at=start, gpu_ids=tuple(gpu.id for gpu in gpus))
        try:
            offers.append(Offer("slot", ask, bookings.propose(user, named, search.slot)))
        except DomainError as error:
            refused = refused or error
    if refused is not None and not offers:
        raise refused
    return tuple(offers)


def _require_a_host(gpus: Sequence[Gpu], count: int) -> None:
    most = max((len(group) for group in openings.by_host(gpus).values()), default=0)
    if not most:
        raise InvalidInput(_("There is no such GPU to book."), _("Choose another model or host."), field="model")
    if most < count:
        raise RuleRefused(
            _("No host has %(count)s such GPUs; the most on one host is %(most)s.", count=count, most=most),
            _("Take fewer GPUs."),
            rule="host_size",
            limit=most,
        )
