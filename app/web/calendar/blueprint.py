"""What the calendar's pages share."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint

bp = Blueprint("calendar", __name__, url_prefix="/calendar")
short = Blueprint("short", __name__)  # addresses that stand on a page by the thousand


def compact(moment: datetime) -> str:
    """A moment as a link carries it: `20261104T1200Z`."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M{'%S' if moment.second else ''}Z}"
