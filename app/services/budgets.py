"""As much of a refused request as the quota and the rules leave room for; each is tried before it is offered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from app import clock
from app.errors import QuotaExceeded, RuleRefused
from app.services.claims import Ask
from app.services.windows import ceil_to_grid, floor_to_grid


def affordable(ask: Ask, error: QuotaExceeded, slot: int) -> Iterator[tuple[str, Ask]]:
    """As long as the quota lasts, or with fewer GPUs for as long as asked."""
    free, needed = (int(str(error.details.get(name, 0))) for name in ("free", "needed"))
    yield from _part(ask, free, max(needed, 1), slot)


def within(ask: Ask, error: RuleRefused, slot: int) -> Iterator[tuple[str, Ask]]:
    """What keeps a rule of the account's class."""
    details, start = error.details, ask.starts_at or clock.now()
    length = ask.ends_at - start
    count = len(ask.gpu_ids) or ask.count
    if "left" in details:  # of a day's, a week's or a month's hours
        seconds = max(int(length.total_seconds()), 1)
        yield from _part(ask, int(str(details["left"])), seconds * count, slot)
    elif "latest" in details:
        end = floor_to_grid(datetime.fromisoformat(str(details["latest"])), slot)
        yield "sooner", replace(ask, starts_at=end - length, ends_at=end)
    elif details.get("rule") == "gpus_at_once" and (spare := int(str(details.get("spare", 0)))):
        yield "fewer", replace(ask, gpu_ids=ask.gpu_ids[:spare], count=spare)
    elif details.get("rule") == "min_minutes":
        end = start + timedelta(minutes=int(str(details["limit"])))
        yield "longer", replace(ask, ends_at=ceil_to_grid(end, slot))
    elif details.get("rule") in {"models", "hosts"}:
        yield "elsewhere", replace(ask, gpu_ids=(), count=count, model="", host="")
    if error.over_at is not None:
        yield "later", _from(ask, error.over_at, length, slot)


def until(ask: Ask, end: datetime, slot: int) -> Ask:
    """The same with an earlier end, on a whole hour or half hour from the start if that is not too small."""
    start = ask.starts_at or clock.now()
    for step in (3600, 1800, slot):
        seconds = int((end - start).total_seconds())
        rounded = floor_to_grid(start + timedelta(seconds=seconds - seconds % step), slot)
        if rounded > start:
            return replace(ask, ends_at=rounded)
    return replace(ask, ends_at=end)


def _part(ask: Ask, free: int, needed: int, slot: int) -> Iterator[tuple[str, Ask]]:
    """So much of a request as `free` of the `needed` GPU-seconds allow: shorter, or with fewer GPUs."""
    start = ask.starts_at or clock.now()
    seconds = int((ask.ends_at - start).total_seconds())
    yield "shorter", until(ask, start + timedelta(seconds=seconds * free // needed), slot)
    count = len(ask.gpu_ids) or ask.count
    if 0 < (fewer := count * free // needed) < count:
        yield "fewer", replace(ask, gpu_ids=ask.gpu_ids[:fewer], count=fewer)


def _from(ask: Ask, start: datetime, length: timedelta, slot: int) -> Ask:
    start = ceil_to_grid(start, slot)
    return replace(ask, starts_at=start, ends_at=start + length)
