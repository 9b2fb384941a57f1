"""Times in the API: ISO-8601 with a zone comes in, UTC with a Z goes out."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.language import gettext as _

DAY = 86400
YEARS = range(1971, 2971)  # what arithmetic with zones and grids can bear; the rules are far stricter


def iso_z(moment: datetime | None) -> str | None:
    """`2026-11-24T20:00:00Z`: how the API writes every time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _moment(value: object) -> datetime:
    """An aware moment from ISO-8601 text; nothing else is one."""
    if not isinstance(value, str):
        raise PydanticCustomError("moment", _("This must be a time as text, such as 2026-11-24T20:00:00Z."))
    if "T" in value:
        value = value.replace(" ", "+")  # a plus that an address had unescaped
    try:
        moment = datetime.fromisoformat(value) if len(value) <= 40 else None
    except ValueError:
        moment = None
    if moment is None or moment.year not in YEARS:
        raise PydanticCustomError("moment", _("This is not an ISO-8601 time such as 2026-11-24T20:00:00Z."))
    if moment.tzinfo is None:
        raise PydanticCustomError(
            "naive", _('This time has no time zone: end it with "Z" for UTC or an offset such as +08:00.')
        )
    return moment.astimezone(UTC)


def _day(value: object) -> date:
    """`2026-11-24` and nothing else."""
    try:
        found = date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else None
    except ValueError:
        found = None
    if found is None or found.year not in YEARS:
        raise PydanticCustomError("day", _("This is not a day such as 2026-11-24."))
    return found


def _clock_time(value: object) -> int:
    """`20:00` as seconds since midnight; `24:00` is the day's end."""
    match = re.fullmatch(r"([01][0-9]|2[0-4]):([0-5][0-9])", value) if isinstance(value, str) else None
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 if match else DAY + 1
    if seconds > DAY:
        raise PydanticCustomError("clock", _("This is not a time of a day such as 20:00."))
    return seconds


DayIn = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"}, mode="validation")]
ClockTime = Annotated[
    int,
    BeforeValidator(_clock_time),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$"}, mode="validation"),
]
MomentIn = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
MomentOut = Annotated[
    datetime,
    PlainSerializer(iso_z, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
