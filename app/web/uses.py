"""What machines use, in words: bytes as GiB, CPUs, and since when one is up."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Flask
from flask_babel import format_decimal

from app.language import gettext as _

GIB = 1 << 30


def init_app(app: Flask) -> None:
    """The filters `gib` and `since_epoch`."""
    app.add_template_filter(gib)
    app.add_template_filter(since_epoch)


def gib(amount: float | None) -> str:
    """Bytes as GiB with one place, two where there is less than one tenth of it."""
    if amount is None:
        return _("not known")
    size = amount / GIB
    return _("%(size)s GiB", size=format_decimal(size, format="0.0" if size >= 0.1 else "0.00"))


def since_epoch(seconds: float) -> datetime:
    """The moment that so many seconds since 1970 are."""
    return datetime.fromtimestamp(seconds, UTC)
