"""A report's rows as cells, for files and programs."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from app.services.reports.numbers import percent
from app.services.reports.report import RANKED, Row, WaitRow

AMOUNTS: dict[str, type] = {  # in GPU-hours where nothing else is said
    "reserved_hours": float,
    "attached_hours": float,
    "busy_hours": float,
    "not_given_hours": float,
    "not_attached_hours": float,
    "idle_hours": float,
    "no_data_hours": float,
    "wasted_hours": float,
    "wasted_percent": int,  # none: too little was booked to say
    "energy_kwh": float,
    "peak_memory_mib": int,
}


def amounts(row: Row, digits: int = 4) -> dict[str, Any]:
    """A row's numbers by their names, with so many decimals."""
    one = row.numbers
    parts = (one.reserved, one.attached, one.busy, one.not_given, one.not_attached, one.idle, one.no_data, one.wasted)
    share = percent(one.wasted, one.reserved) if one.reserved >= RANKED else None
    values = [*(round(part / 3600, digits) for part in parts), share, round(one.kwh, digits), one.memory]
    return dict(zip(AMOUNTS, values, strict=True))


WAITS: dict[str, type] = {  # places on the waiting list
    "places": int,
    "booked": int,
    "offered": int,
    "not_taken": int,
    "in_vain": int,
    "left": int,
    "waiting": int,
    "median_wait_hours": float,
    "longest_wait_hours": float,
}


def waited(row: WaitRow, digits: int = 4) -> dict[str, Any]:
    """Of one who waited, the same."""
    *counts, median, longest = astuple(row.waits)
    return dict(zip(WAITS, [*counts, round(median / 3600, digits), round(longest / 3600, digits)], strict=True))
