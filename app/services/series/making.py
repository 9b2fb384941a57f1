"""Series are shown before they are booked, and booked as they were shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from app import clock
from app.extensions import db
from app.models import Booking, Series, User
from app.services import askers, audit, payers, quota
from app.services.series import reading, trial
from app.services.series.trial import NotAll, Occurrence, Plan, Wish
from app.services.windows import LATE_BY


@dataclass(frozen=True)
class Outcome:
    """All of them in order, and what the account had left before, in GPU-seconds."""

    occurrences: tuple[Occurrence, ...]
    free: int
    machines: frozenset[int]  # hosts where the person has a machine

    @property
    def fitting(self) -> list[Occurrence]:
        """Those that can be booked."""
        return [one for one in self.occurrences if one.refused is None]

    @property
    def no_machine(self) -> list[str]:
        """The hosts of GPUs that the person has no machine to attach them to."""
        hosts = {gpu.host for one in self.fitting for gpu in one.gpus}
        return sorted(host.name for host in hosts if host.id not in self.machines)

    @property
    def cost(self) -> int:
        """What those cost together, in GPU-seconds."""
        return sum(one.cost for one in self.fitting)


@dataclass(frozen=True)
class Made:
    """A series with its bookings, in order, and those that could not be made."""

    series: Series
    bookings: list[Booking]
    refused: list[Occurrence]


def preview(user: User, wish: Wish, slot: int) -> Outcome:
    """What would be booked if those that fit were: the same as booking them, taken back.

    Raises InvalidInput for what suits none of them."""
    trial.require_sense(wish)
    attempt = db.session.begin_nested()
    try:
        free = quota.lock(payers.account_id(user, wish.ask.account))
        found = tuple(trial.tried(user, wish, slot, clock.now()))
        return Outcome(found, free, askers.machine_hosts(user.id))
    finally:
        attempt.rollback()


def create(user: User, wish: Wish, slot: int, *, partial: bool = False, plan: Plan | None = None) -> Made:
    """Book all of it or nothing; `partial`: those that fit; `plan`: exactly those that a page showed, or nothing.

    Raises NotAll, Conflict or InvalidInput, and then has changed nothing."""
    trial.require_sense(wish)
    account_id = payers.account_id(user, wish.ask.account)
    quota.lock(account_id)
    key = f"{user.id}:{wish.ask.request_key[:64]}" if wish.ask.request_key else None
    if key and (twin := db.session.scalar(select(Series).where(Series.request_key == key))) is not None:
        return Made(twin, reading.members(twin.id), [])
    since = clock.now() - LATE_BY if plan else clock.now()
    with db.session.begin_nested():
        series = _insert(user, account_id, wish, key)
        found = trial.tried(user, wish, slot, since, series_id=series.id, plan=plan)
        refused = [one for one in found if one.refused is not None]
        if refused and (plan or not partial or len(refused) == len(found)):
            raise NotAll([one.refused for one in refused if one.refused is not None], len(found))
        made = [one.booking for one in found if one.booking is not None]
        audit.record(user.username, "series.created", reading.target(series), **summary(made))
    return Made(series, made, refused)


def summary(made: list[Booking]) -> dict[str, Any]:
    """What the audit and the notice say of several bookings of a series; in order, their allocations loaded."""
    return {
        "bookings": [booking.id for booking in made],
        "gpus": len(made[0].allocations),
        "starts_at": made[0].starts_at.isoformat(),
        "last_at": made[-1].starts_at.isoformat(),
    }


def _insert(user: User, account_id: int, wish: Wish, key: str | None) -> Series:
    pattern, ask = wish.pattern, wish.ask
    series = Series(
        user_id=user.id,
        account_id=account_id,
        zone=pattern.zone,
        weekdays=list(pattern.weekdays),
        opens=pattern.opens,
        closes=pattern.closes,
        first_day=pattern.first_day,
        until=pattern.until,
        gpu_ids=list(ask.gpu_ids),
        count=len(set(ask.gpu_ids)) or ask.count,
        model=ask.model,
        host=ask.host,
        note=ask.note,
        request_key=key,
    )
    db.session.add(series)
    db.session.flush()
    return series
