"""A span's GPU-hours beside those of the time before. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.services.reports.numbers import Numbers

WHAT = {"booked": "reserved", "attached": "attached", "busy": "busy", "wasted": "wasted"}


@dataclass(frozen=True)
class Compared:
    """One of WHAT in a span and in the one before, in GPU-seconds."""

    what: str
    now: float
    before: float

    @property
    def changed(self) -> int | None:
        """By how many per cent of what was before it is more, or less; None where nothing was."""
        return round(100 * (self.now - self.before) / self.before) if self.before > 0 else None


def of(now: Numbers, before: Numbers) -> tuple[Compared, ...]:
    """All of WHAT, in its order."""
    return tuple(Compared(what, getattr(now, name), getattr(before, name)) for what, name in WHAT.items())
