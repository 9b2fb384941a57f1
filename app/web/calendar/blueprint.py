"""What the calendar's pages share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

bp = Blueprint("calendar", __name__, url_prefix="/calendar")
short = Blueprint("short", __name__)  # addresses that stand on a page by the thousand
SAFE = "!$'()*,/:;?@"  # what `url_for` leaves as it is in a field
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Code(BaseConverter):
    """A booking's number in a short address, `/b/lfls`: the millionth takes four letters in place of seven digits."""

    regex = "[1-9a-z][0-9a-z]{0,11}"

    def to_python(self, value: str) -> int:
        """The number."""
        return int(value, 36)

    def to_url(self, value: int) -> str:
        """Its letters."""
        return code(value)


@short.record_once
def _know_codes(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["code"] = Code


def code(number: int) -> str:
    """A number in base 36."""
    found = ""
    while number:
        number, digit = divmod(number, len(DIGITS))
        found = DIGITS[digit] + found
    return found


def compact(moment: datetime) -> str:
    """A moment as a link carries it: `20261104T1200Z`. Not by strftime, which takes four times as long: there are
    hundreds."""
    utc = moment.astimezone(UTC)
    seconds = f"{utc.second:02}" if utc.second else ""
    return f"{utc.year:04}{utc.month:02}{utc.day:02}T{utc.hour:02}{utc.minute:02}{seconds}Z"


def address(page: str, **fields: Any) -> str:
    """A page's address with fields; empty ones are left out. The same as `url_for` makes, which takes three times as
    long, for pages that have dozens of them to the same place."""
    query = urlencode({name: value for name, value in fields.items() if value not in {"", None}}, safe=SAFE)
    return f"{page}?{query}" if query else page
