"""Requests that were refused: kept to be read again, and what would work instead, tried before it is offered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select

from app import clock
from app.errors import Alternative, DomainError, InvalidInput, NotFound, QuotaExceeded, RuleRefused, SlotTaken
from app.extensions import db
from app.language import gettext as _
from app.models import Refusal, User
from app.services import bookings, budgets, openings, payers
from app.services.bookings import Ask, Proposal
from app.services.rules import classes
from app.services.windows import Window, floor_to_grid

KEPT = 50  # of one person; older ones make room


@dataclass(frozen=True)
class Offer:
    """A request that would be accepted now. `kind`: same, elsewhere, later, sooner, longer, shorter or fewer."""

    kind: str
    ask: Ask
    proposal: Proposal


def store(user: User, ask: Ask, error: DomainError) -> Refusal:
    """Keep a refused request with the words it was refused in."""
    refusal = Refusal(user_id=user.id, reason=error.code, brief=error.brief, hint=error.hint, request=_as_json(ask))
    db.session.add(refusal)
    db.session.flush()
    newest = select(Refusal.id).where(Refusal.user_id == user.id).order_by(Refusal.id.desc()).limit(KEPT)
    db.session.execute(delete(Refusal).where(Refusal.user_id == user.id, Refusal.id.not_in(newest)))
    return refusal


def mine(user: User, limit: int = 10) -> list[Refusal]:
    """A person's refused requests, newest first."""
    query = select(Refusal).where(Refusal.user_id == user.id).order_by(Refusal.id.desc()).limit(limit)
    return list(db.session.scalars(query))


def get(user: User, refusal_id: int) -> Refusal:
    """One refused request of this person. Raises NotFound."""
    refusal = db.session.scalar(select(Refusal).where(Refusal.id == refusal_id, Refusal.user_id == user.id))
    if refusal is None:
        raise NotFound(_("There is no refused request %(id)s of yours.", id=refusal_id))
    return refusal


def ask_of(refusal: Refusal) -> Ask:
    """What was asked for."""
    values = dict(refusal.request)
    starts_at = values["starts_at"]
    values["starts_at"] = datetime.fromisoformat(starts_at) if starts_at else None
    values["ends_at"] = datetime.fromisoformat(values["ends_at"])
    values["gpu_ids"] = tuple(values["gpu_ids"])
    return Ask(**values)


def offers(user: User, ask: Ask, slot: int) -> tuple[DomainError | None, list[Offer]]:
    """Whether the request would be accepted now (then it is the one offer), else why not and what would be."""
    now = clock.now()
    slot = _slot(user, ask, slot)
    if ask.starts_at is not None and ask.starts_at < now:  # its time has passed: as long, from now on
        ask = replace(ask, starts_at=None, ends_at=max(now + (ask.ends_at - ask.starts_at), ask.ends_at))
    try:
        return None, [Offer("same", ask, bookings.propose(user, ask, slot))]
    except DomainError as error:
        return error, instead(user, ask, error, slot)


def instead(user: User, ask: Ask, error: DomainError, slot: int) -> list[Offer]:
    """What would work in place of a request that was refused: each is tried before it is offered."""
    if isinstance(error, InvalidInput):
        return []
    found: list[Offer] = []
    slot = _slot(user, ask, slot)
    for kind, other in _candidates(ask, error, slot):
        try:
            proposal = bookings.propose(user, other, slot)
        except DomainError:
            continue
        window = proposal.window
        if not any(_same(offer.proposal, proposal) for offer in found):
            found.append(Offer(kind, replace(other, starts_at=_start(other, window), ends_at=window.ends_at), proposal))
    return found


def _slot(user: User, ask: Ask, slot: int) -> int:
    try:
        return classes.rules_for(payers.account_id(user, ask.account)).slot(slot)
    except DomainError:  # in the team no more: the request itself is refused for it
        return slot


def _candidates(ask: Ask, error: DomainError, slot: int) -> Iterator[tuple[str, Ask]]:
    if isinstance(error, SlotTaken):
        yield from ((found.kind, _at(ask, found)) for found in error.alternatives)
        if not ask.gpu_ids and (until := _free_until(ask, slot)) is not None:
            yield "shorter", replace(ask, ends_at=until)
        if not ask.gpu_ids and (count := _most_free(ask)) and count < ask.count:
            yield "fewer", replace(ask, count=count)
    elif isinstance(error, QuotaExceeded):
        yield from budgets.affordable(ask, error, slot)
    elif isinstance(error, RuleRefused):
        yield from budgets.within(ask, error, slot)
        yield from _within(ask, error, slot)


def _within(ask: Ask, error: RuleRefused, slot: int) -> Iterator[tuple[str, Ask]]:
    """As much as the rule allows."""
    rule, limit, start = (
        error.details.get("rule"),
        int(str(error.details.get("limit", 0))),
        ask.starts_at or clock.now(),
    )
    if rule == "max_hours":
        yield "shorter", budgets.until(ask, start + timedelta(hours=limit), slot)
    elif rule == "horizon_days":
        latest = floor_to_grid(clock.now() + timedelta(days=limit), slot)
        if latest > start:
            yield "shorter", replace(ask, ends_at=latest)
        length = ask.ends_at - start
        yield "sooner", replace(ask, starts_at=floor_to_grid(latest - length, slot), ends_at=latest)
    elif rule in {"max_gpus", "host_size"} and limit > 0:
        yield "fewer", replace(ask, gpu_ids=ask.gpu_ids[:limit], count=limit)
    elif rule == "out_of_service":
        yield "elsewhere", replace(ask, gpu_ids=(), count=len(ask.gpu_ids) or ask.count)


def _free_until(ask: Ask, slot: int) -> datetime | None:
    """The latest end with which `count` GPUs of one host are free from the start on."""
    start = ask.starts_at or clock.now()
    gpus = openings.usable_gpus(ask.model, ask.host)
    taken = openings.busy(gpus, start, ask.ends_at)
    ends = {span.starts_at for spans in taken.values() for span in spans if span.starts_at > start}
    for end in sorted({floor_to_grid(end, slot) for end in ends}, reverse=True):
        if end > start and openings.choose(gpus, taken, Window(start, end), ask.count, frozenset()):
            return end
    return None


def _most_free(ask: Ask) -> int:
    """The most GPUs that one host has free for the whole window."""
    gpus = openings.usable_gpus(ask.model, ask.host)
    window = Window(ask.starts_at or clock.now(), ask.ends_at)
    free = openings.free_gpus(gpus, openings.busy(gpus, window.starts_at, window.ends_at), window)
    return max((len(group) for group in openings.by_host(free).values()), default=0)


def _at(ask: Ask, found: Alternative) -> Ask:
    return replace(ask, gpu_ids=found.gpu_ids, starts_at=found.starts_at, ends_at=found.ends_at)


def _start(ask: Ask, window: Window) -> datetime | None:
    """What was to start now still does."""
    return window.starts_at if ask.starts_at is not None and window.starts_at > clock.now() else None


def _same(one: Proposal, other: Proposal) -> bool:
    return one.window == other.window and one.gpus == other.gpus


def _as_json(ask: Ask) -> dict[str, Any]:
    values = asdict(ask)
    values["starts_at"] = ask.starts_at.astimezone(UTC).isoformat() if ask.starts_at else None
    values["ends_at"] = ask.ends_at.astimezone(UTC).isoformat()
    values["gpu_ids"] = list(ask.gpu_ids)
    values["request_key"] = None  # an offer taken up later is a request of its own
    return values
