"""Whole numbers as addresses and forms carry them."""

from __future__ import annotations

ID_DIGITS = 18  # of an id of what there may be very many of; of all else nine do


def whole(text: str, digits: int = 9) -> int | None:
    """The number of these digits, 0 to 9, if there are one to `digits` of them; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None
