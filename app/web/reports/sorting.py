"""In which order a report's rows stand: by any of its numbers, the largest or the least first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.services.reports.report import RANKED, Row

KEYS: dict[str, Callable[[Row], float]] = {
    "booked": lambda row: row.numbers.reserved,
    "attached": lambda row: row.numbers.attached,
    "busy": lambda row: row.numbers.busy,
    "not-given": lambda row: row.numbers.not_given,
    "not-attached": lambda row: row.numbers.not_attached,
    "idle": lambda row: row.numbers.idle,
    "no-data": lambda row: row.numbers.no_data,
    "wasted": lambda row: row.numbers.wasted,
    "wasted-share": lambda row: row.wasted_share,
    "energy": lambda row: row.numbers.energy,
    "memory": lambda row: row.numbers.memory,
}
LEAST = "-"  # before a key: the least first


def read(text: str) -> str:
    """The order that an address names; "" for the usual one."""
    return text if text.removeprefix(LEAST) in KEYS else ""


def ordered(rows: Sequence[Row], by: str) -> list[Row]:
    """Rows in this order; those of which too little was booked to say a share come last where that is asked for."""
    if not by:
        return list(rows)
    name, sign = by.removeprefix(LEAST), 1 if by.startswith(LEAST) else -1
    last = (lambda row: row.numbers.reserved < RANKED) if name == "wasted-share" else (lambda _row: False)
    return sorted(rows, key=lambda row: (last(row), sign * KEYS[name](row), row.name))


def turned(by: str, name: str) -> str:
    """What a click on a heading asks for: the largest first, and if so it is already, the least."""
    return f"{LEAST}{name}" if by == name else name
