"""Find me a slot: so many GPUs for so long, the earliest or the nearest to a time, on one host or another.

The database says where on each GPU there is room enough, looking two days ahead at first and twice as far each time;
only while nothing is found does it come to look at all that is booked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app import clock
from app.errors import DomainError, InvalidInput, first_over
from app.language import gettext as _
from app.models import Gpu, User
from app.services import askers, bookings, claims, openings, refusals
from app.services.askers import Asker
from app.services.bookings import Ask
from app.services.gaps import Room, rooms, starts
from app.services.refusals import Offer
from app.services.windows import Window, ceil_to_grid, floor_to_grid

MOST = 4  # proposals
TRIED = 2 * MOST  # places, the best ones: the rules and the quota may refuse some
AGAIN = 2  # further looks, each from when on a rule is said not to be in the way any more
FIRST_LOOK = timedelta(days=2)
WIDER = 4  # times as far as before: each look reads anew what the one before has read
FAR_APART = timedelta(days=7)  # a proposal so much worse than the best one is not looked for
USUAL = timedelta(hours=4)


@dataclass(frozen=True)
class Wish:
    """`count` GPUs of one host (of `model`, on `host`, where named) for so many seconds: not before one moment and
    over by another, where given; as near to `near` as can be, or else as early. `account`: as in Ask."""

    count: int
    seconds: int
    model: str = ""
    host: str = ""
    not_before: datetime | None = None
    before: datetime | None = None
    near: datetime | None = None
    account: str = ""


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
    asker = askers.asker(user, wish.account)
    rules = asker.rules
    gpus = claims.enough_gpus(Ask(ends_at=now, count=wish.count, model=wish.model, host=wish.host), rules)
    slot, horizon = rules.slot(slot), now + timedelta(days=rules.horizon_days)
    length = timedelta(seconds=-(-wish.seconds // slot) * slot)
    first = max(wish.not_before or now, now + rules.notice)
    search = _Search(wish, length, now, first, min(wish.before or horizon, horizon), slot)
    offers, refused = _offers(asker, search, gpus)
    late = not offers and search.last < horizon
    if late:
        offers, other = _offers(asker, replace(search, last=horizon), gpus)
        refused = refused or other
    if refused is not None and not offers:
        raise refused
    return Found(offers, late)


def free_now(user: User, slot: int, model: str = "", host: str = "", account: str = "") -> list[Offer]:
    """One GPU from this minute on, on each host that has one, the longest first: four hours, or until it is taken, or
    as long as the rules and the quota allow. Raises what says why none can be had, where some are free."""
    now = clock.now()
    asker = askers.asker(user, account)
    rules = asker.rules
    slot = rules.slot(slot)
    gpus = claims.enough_gpus(Ask(ends_at=now, model=model, host=host), rules)
    longest = floor_to_grid(now + timedelta(hours=rules.max_hours), slot)
    next_line = floor_to_grid(now, slot) + timedelta(seconds=slot)
    latest = min(ceil_to_grid(now + USUAL, slot), max(longest, next_line))
    offers, refused = [], None
    for until, gpu in _free_until(gpus, Window(now, latest), slot):
        ask = Ask(ends_at=until, gpu_ids=(gpu.id,), account=account)
        try:
            offers.append(Offer("now", ask, bookings.propose_to(asker, ask, slot)))
        except DomainError as error:
            refused = refused or error
            offers += [one for one in refusals.instead(user, ask, error, slot) if one.kind == "shorter"][:1]
    if refused is not None and not offers:
        raise refused
    return offers


def _free_until(gpus: Sequence[Gpu], window: Window, slot: int) -> list[tuple[datetime, Gpu]]:
    """Of each host that has one, the GPU that is free the longest from the window's start on; the longest first."""
    now = window.starts_at
    room = rooms(gpus, window, min(timedelta(seconds=slot), window.ends_at - now))
    best: dict[int, tuple[datetime, Gpu]] = {}
    for gpu in gpus:
        until = next((floor_to_grid(one.ends_at, slot) for one in room[gpu.id] if one.starts_at <= now), now)
        if until > now and (gpu.host_id not in best or until > best[gpu.host_id][0]):
            best[gpu.host_id] = (until, gpu)
    return sorted(best.values(), key=lambda one: one[0], reverse=True)[:MOST]


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
            return found[:TRIED]
        look *= WIDER


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


def _offers(asker: Asker, search: _Search, gpus: Sequence[Gpu]) -> tuple[tuple[Offer, ...], DomainError | None]:
    """What can be booked, best first, and the first reason why a place cannot. Where a rule that time alone helps
    against refuses places, looked for again from then on."""
    found: dict[object, Offer] = {}
    why, ahead = None, search
    for _look in range(1 + AGAIN):
        offers, refused = _tried(asker, ahead, _best(gpus, ahead))
        found |= {(one.proposal.window, one.proposal.gpus): one for one in offers}
        why = why or next(iter(refused), None)
        if (later := first_over(refused, ahead.first)) is None:
            break
        ahead = replace(ahead, first=later)
    best = list(found.values())
    if ahead is not search:
        best.sort(key=lambda one: (_distance(one.proposal.window, search), one.proposal.gpus[0].host.name))
    return tuple(best[:MOST]), why


def _tried(asker: Asker, search: _Search, found: Sequence[_Place]) -> tuple[list[Offer], list[DomainError]]:
    offers: list[Offer] = []
    refused: list[DomainError] = []
    for place in found:
        window, wish = place.window, search.wish
        gpus = sorted(place.gpus, key=lambda gpu: gpu.id)
        start = None if window.starts_at == search.now else window.starts_at
        ask = Ask(window.ends_at, start, count=wish.count, model=wish.model, account=wish.account)
        named = replace(ask, gpu_ids=tuple(gpu.id for gpu in gpus))
        try:
            offers.append(Offer("slot", ask, bookings.propose_to(asker, named, search.slot, gpus)))
        except DomainError as error:
            refused.append(error)
        if len(offers) == MOST:
            break
    return offers, refused
