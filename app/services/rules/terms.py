"""A set of rules as a value: its names, its bounds, and how it lies in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

from app.errors import InvalidInput
from app.language import gettext as _

BOUNDS = {  # whole numbers: name → (lowest, highest)
    "max_hours": (1, 24 * 31),
    "horizon_days": (1, 365),
    "max_gpus": (1, 64),
    "min_minutes": (1, 24 * 60),
    "grid_minutes": (1, 24 * 60),
    "notice_minutes": (1, 30 * 24 * 60),
    "gpus_at_once": (1, 1024),
    "bookings_ahead": (1, 1000),
    "hours_day": (1, 24_576),
    "hours_week": (1, 172_032),
    "hours_month": (1, 761_856),
    "week_day": (0, 6),
    "month_day": (1, 28),
    "gap_minutes": (1, 30 * 24 * 60),
    "far_days": (1, 365),
    "far_hours": (0, 100_000),
    "peak_percent": (0, 1000),
    "peak_from": (0, 23),
    "peak_to": (1, 24),
    "late_hours": (1, 30 * 24),
    "late_percent": (1, 100),
    "noshow_minutes": (5, 24 * 60),
    "idle_minutes": (10, 24 * 60),
}
WEIGHT_BOUNDS = (0, 1000)  # percent
LISTS = ("models", "hosts", "peak_days")
TOGETHER = (("far_days", "far_hours"), ("late_hours", "late_percent"))  # one makes no sense without the other
MOST_NAMES = 64


@dataclass(frozen=True)
class Rules:
    """What a class may do. None and empty mean that there is no such rule.

    `week_day`: the weekday (0: Monday) and `month_day`: the day of the month on which booked hours count anew, at 0:00
    in the lab's zone. `peak_percent`: what an hour between `peak_from` and `peak_to` o'clock on `peak_days` costs;
    `weights`: what an hour on a model costs, both with 100 for an hour as it is. `late_percent` is charged of what is
    given back less than `late_hours` before its time. `models`, `hosts`: what may be used; empty: everything.
    """

    max_hours: int = 72
    horizon_days: int = 28
    max_gpus: int = 8
    min_minutes: int | None = None
    grid_minutes: int | None = None
    notice_minutes: int | None = None
    gpus_at_once: int | None = None
    bookings_ahead: int | None = None
    hours_day: int | None = None
    hours_week: int | None = None
    hours_month: int | None = None
    week_day: int = 0
    month_day: int = 1
    gap_minutes: int | None = None
    far_days: int | None = None
    far_hours: int | None = None
    peak_percent: int | None = None
    peak_from: int = 9
    peak_to: int = 18
    peak_days: tuple[int, ...] = (0, 1, 2, 3, 4)
    weights: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    late_hours: int | None = None
    late_percent: int | None = None
    noshow_minutes: int | None = None
    idle_minutes: int = 60

    def slot(self, lab: int) -> int:
        """The grid that this class books on, in seconds; never finer than the lab's."""
        return max(self.grid_minutes * 60, lab) if self.grid_minutes else lab

    @property
    def notice(self) -> timedelta:
        """How long before its start a booking has to be made."""
        return timedelta(minutes=self.notice_minutes or 0)

    def permits(self, model: str, host: str) -> bool:
        """Whether this class may use GPUs of this model on this host."""
        return (not self.models or model in self.models) and (not self.hosts or host in self.hosts)

    @property
    def looks_at_others(self) -> bool:
        """Whether what the account has booked already matters to any rule."""
        numbers = (self.gpus_at_once, self.bookings_ahead, self.hours_day, self.hours_week, self.hours_month)
        return any(number is not None for number in (*numbers, self.gap_minutes, self.far_hours))


NAMES = tuple(one.name for one in fields(Rules))


def over(lab: Rules, values: Mapping[str, Any]) -> Rules:
    """The lab's rules with those that a class sets itself; names that no version of Berth knows are left out."""
    known: dict[str, Any] = {
        name: tuple(value) if name in LISTS else value for name, value in values.items() if name in NAMES
    }
    return replace(lab, **known)


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """A class's own rules as they are stored: only what is set. Raises InvalidInput naming the field."""
    kept: dict[str, Any] = {}
    for name, (low, high) in BOUNDS.items():
        if (value := values.get(name)) is not None:
            kept[name] = _whole(name, value, low, high)
    for name in ("models", "hosts"):
        if names := sorted({str(one)[:120] for one in values.get(name) or ()}):
            kept[name] = names[:MOST_NAMES]
    if "peak_days" in values:
        kept["peak_days"] = sorted({_whole("peak_days", day, 0, 6) for day in values["peak_days"]})
    weights = dict(list((values.get("weights") or {}).items())[:MOST_NAMES])
    if weights := {str(model)[:120]: _whole(f"weight:{model}", one, *WEIGHT_BOUNDS) for model, one in weights.items()}:
        kept["weights"] = weights
    _fit(kept)
    return kept


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What differs between two sets as they are stored: name → [before, after]; None where it is not set."""
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


def _whole(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInput(_("This must be a whole number from %(low)s to %(high)s.", low=low, high=high), field=name)
    return value


def _fit(kept: dict[str, Any]) -> None:
    """Rules that need each other."""
    for one, other in TOGETHER:
        _both(kept, one, other)
        _both(kept, other, one)
    if kept.get("peak_to", 18) <= kept.get("peak_from", 9):
        raise InvalidInput(_("The peak hours must end after they begin."), field="peak_to")
    if "min_minutes" in kept and kept["min_minutes"] > kept.get("max_hours", 24 * 31) * 60:
        raise InvalidInput(_("The shortest booking would be longer than the longest."), field="min_minutes")


def _both(kept: Mapping[str, Any], one: str, other: str) -> None:
    if one in kept and other not in kept:
        raise InvalidInput(_("Fill in both numbers of this rule, or none."), field=other)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return _(", ").join(names)
