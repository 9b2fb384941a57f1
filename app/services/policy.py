"""The lab's rules: read, and changed by an admin. What a class of accounts has of its own: services.rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Any, NamedTuple

from app import clock
from app.errors import InvalidInput
from app.extensions import db
from app.language import gettext as _
from app.models import Charge, Policy, Reclaim, User
from app.services import audit

DAY = 24 * 60  # minutes
LIMITS = {  # what an admin may set: field → (lowest, highest)
    "horizon_days": (1, 365),
    "max_hours": (1, 24 * 31),
    "max_gpus": (1, 64),
    "default_hours": (0, 100_000),
    "max_instances": (1, 100),
    "max_cpus": (1, 1024),
    "max_memory_gib": (1, 16_384),
    "max_disk_gib": (1, 65_536),
    "max_snapshots": (0, 100),
    "delete_days": (0, 365),
    "grace_seconds": (0, 600),
    "minute_days": (2, 400),
    "hour_days": (32, 3660),
    "offer_minutes": (5, DAY),
    "idle_minutes": (10, DAY),
    "idle_held_minutes": (0, 7 * DAY),
    "idle_percent": (1, 50),
    "idle_grace": (5, 4 * 60),
    "keeps": (0, 20),
    "keep_minutes": (10, DAY),
}
CHOICES: dict[str, type[StrEnum]] = {"reclaim": Reclaim, "charge": Charge}


def current() -> Policy:
    """The rules as they are now."""
    policy = db.session.get(Policy, 1)
    assert policy is not None, "the first migration makes the one row"
    return policy


class Kept(NamedTuple):
    """From when on it is kept by the minute, and by the hour, what GPUs did."""

    minutes: datetime
    hours: datetime


def kept_from() -> Kept:
    """As the rules are now."""
    rules, now = current(), clock.now()
    return Kept(now - timedelta(days=rules.minute_days), now - timedelta(days=rules.hour_days))


def change(
    actor: User,
    *,
    self_service: bool,
    force_stop: bool | None = None,
    choices: Mapping[str, str] | None = None,
    **limits: int,
) -> Policy:
    """Set new rules; what is not named stays. `choices`: by a name of CHOICES, one of its values.

    Raises InvalidInput naming the first field that is out of its bounds."""
    policy = current()
    for name, value in limits.items():
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise InvalidInput(
                _("This must be a whole number from %(low)s to %(high)s.", low=low, high=high), field=name
            )
    _fit(policy, limits)
    values: dict[str, Any] = {**limits, **_chosen(choices or {})}
    if force_stop is not None:
        values["force_stop"] = force_stop
    changed = {name: [getattr(policy, name), value] for name, value in values.items() if getattr(policy, name) != value}
    for name, value in values.items():
        setattr(policy, name, value)
    policy.self_service = self_service
    db.session.flush()
    audit.record(actor.username, "policy.changed", "policy", self_service=self_service, changed=changed)
    return policy


def _fit(policy: Policy, limits: Mapping[str, int]) -> None:
    """What GPUs did has to be kept by the minute for a day longer than it takes to be idle with memory held. Without
    that it takes a day at most, in a class too, and two days are always kept."""
    days = limits.get("minute_days", policy.minute_days)
    held = limits.get("idle_held_minutes", policy.idle_held_minutes)
    if held <= (days - 1) * DAY:
        return
    if held != policy.idle_held_minutes:
        most = (days - 1) * DAY
        raise InvalidInput(
            _("At most %(most)s minutes: what GPUs did is kept by the minute for %(days)s days.", most=most, days=days),
            field="idle_held_minutes",
        )
    if days != policy.minute_days:
        least = 1 + ceil(held / DAY)
        raise InvalidInput(
            _("At least %(days)s days: GPUs with memory held are idle after %(held)s minutes.", days=least, held=held),
            field="minute_days",
        )


def _chosen(choices: Mapping[str, str]) -> dict[str, StrEnum]:
    for name, value in choices.items():
        if value not in set(CHOICES[name]):
            raise InvalidInput(_("Choose one of these."), field=name)
    return {name: CHOICES[name](value) for name, value in choices.items()}
