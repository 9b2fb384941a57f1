"""What the booking pages share."""

from __future__ import annotations

import secrets
from datetime import datetime

from flask import Blueprint
from flask_babel import format_datetime

from app.extensions import settings

bp = Blueprint("bookings", __name__, url_prefix="/bookings")

ID = "<int(min=1, max=9223372036854775807):booking_id>"


def slot() -> int:
    """The grid that bookings snap to, in seconds."""
    return settings().slot


@bp.app_template_global()
def new_key() -> str:
    """A key for one form: sent twice, it books once."""
    return secrets.token_urlsafe(16)


@bp.app_template_filter()
def clock_time(when: datetime) -> str:
    """`20:03:10`."""
    return format_datetime(when, "HH:mm:ss")


@bp.app_template_filter()
def clock_length(seconds: float) -> str:
    """`90:00`: minutes and seconds."""
    return "{}:{:02}".format(*divmod(round(seconds), 60))
