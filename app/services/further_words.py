"""Why a booking that ends soon cannot go on, or as which other one it does, in a sentence."""

from __future__ import annotations

from typing import Any

from app.language import gettext as _
from app.services.room import Why
from app.services.words import gpu_numbers


def why_not(why: str, at: str, text: str) -> str:
    """`at`: from when on something is in the way, on the reader's clock; `text`: what a rule says."""
    if why == Why.BOOKED:
        return _("It cannot be extended: its GPUs are booked from %(start)s on.", start=at)
    if why == Why.MAINTENANCE:
        return _("It cannot be extended: its GPUs are in maintenance from %(start)s on.", start=at)
    if why == Why.QUOTA:
        return _("It cannot be extended: not enough GPU-hours are left.")
    return _("It cannot be extended. %(why)s", why=text)


def goes_on(rest: dict[str, Any]) -> str:
    """`rest`: as in services.further."""
    return _(
        "It goes on as booking %(id)s on %(gpus)s of %(host)s.",
        id=rest["booking"],
        gpus=gpu_numbers(rest["gpus"]),
        host=rest["host"],
    )
