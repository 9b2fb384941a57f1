"""What a booking costs: GPUs × seconds, weighted by model and by the hour of the day. Pure, in whole GPU-seconds.

The price is the one at which it was booked. What a change of its end costs is always the difference between two whole
costs, so that all holds and releases of a booking add up to its cost, to the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.models import Booking
from app.services.rules import periods
from app.services.rules.terms import Rules
from app.services.windows import Window

WHOLE = 100  # percent: an hour as it is


@dataclass(frozen=True)
class Peak:
    """`percent` for a second between two hours of these weekdays (0: Monday) by the clock of `zone`."""

    percent: int
    from_hour: int
    to_hour: int
    days: tuple[int, ...]
    zone: str

    def seconds(self, window: Window) -> int:
        """How much of the window lies in it."""
        zone = ZoneInfo(self.zone)
        day, last = (moment.astimezone(zone).date() for moment in (window.starts_at, window.ends_at))
        total = 0
        while day <= last:
            if day.weekday() in self.days:
                hours = Window(periods.midnight(day, zone, self.from_hour), periods.midnight(day, zone, self.to_hour))
                total += periods.shared(window, hours)
            day += timedelta(days=1)
        return total


@dataclass(frozen=True)
class Tariff:
    """`rate`: percent of all GPUs together; 200 for two that count as they are."""

    rate: int
    peak: Peak | None = None

    def cost(self, window: Window) -> int:
        """GPU-seconds for the window."""
        if window.ends_at <= window.starts_at:
            return 0
        weighted = window.seconds * WHOLE
        if self.peak is not None:
            weighted += self.peak.seconds(window) * (self.peak.percent - WHOLE)
        return (self.rate * weighted + WHOLE * WHOLE // 2) // (WHOLE * WHOLE)

    def between(self, start: datetime, end: datetime, later: datetime) -> int:
        """What it costs that a booking from `start` goes on from `end` to `later`."""
        return self.cost(Window(start, later)) - self.cost(Window(start, end))

    def affordable_until(self, start: datetime, end: datetime, budget: int, latest: datetime) -> datetime:
        """How late, up to `latest`, a booking from `start` to `end` could end for so many GPU-seconds more."""
        if budget < 0 or latest <= end:
            return end
        low, high = 0, int((latest - end).total_seconds())
        while low < high:  # the cost never falls as the end moves on
            middle = (low + high + 1) // 2
            if self.between(start, end, end + timedelta(seconds=middle)) <= budget:
                low = middle
            else:
                high = middle - 1
        return end + timedelta(seconds=low)

    def as_json(self) -> dict[str, Any]:
        """As it lies in the database beside its booking."""
        if self.peak is None:
            return {"rate": self.rate}
        peak = self.peak
        hours = [peak.percent, peak.from_hour, peak.to_hour, list(peak.days), peak.zone]
        return {"rate": self.rate, "peak": hours}


def price(rules: Rules, models: Iterable[str], zone: ZoneInfo) -> Tariff:
    """What GPUs of these models (one name a GPU) cost under these rules."""
    rate = sum(rules.weights.get(model, WHOLE) for model in models)
    if rules.peak_percent in {None, WHOLE} or not rules.peak_days:
        return Tariff(rate)
    return Tariff(rate, Peak(rules.peak_percent or 0, rules.peak_from, rules.peak_to, rules.peak_days, str(zone)))


def of(booking: Booking) -> Tariff:
    """The price at which it was booked; its allocations must be loaded where none was written down."""
    found: Mapping[str, Any] = booking.tariff or {}
    if "rate" not in found:
        return Tariff(len(booking.allocations) * WHOLE)
    if "peak" not in found:
        return Tariff(int(found["rate"]))
    percent, first, last, days, zone = found["peak"]
    return Tariff(int(found["rate"]), Peak(percent, first, last, tuple(days), zone))


def cost(booking: Booking) -> int:
    """What a booking's window costs, in GPU-seconds."""
    return of(booking).cost(Window(booking.starts_at, booking.ends_at))


def rest(booking: Booking, moment: datetime) -> int:
    """What the part of it after a moment costs."""
    since = min(max(moment, booking.starts_at), booking.ends_at)
    return of(booking).between(booking.starts_at, since, booking.ends_at)
