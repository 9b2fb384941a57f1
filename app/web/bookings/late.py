"""What a booking's page says of GPUs that Berth gave late or not at all: when they came, and who pays for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from app.language import gettext as _
from app.models import Allocation, Booking, Phase
from app.services.rules import fees
from app.services.words import gpu_list
from app.web.times import moment_text


def lines(booking: Booking, now: datetime) -> list[str]:
    """A sentence for those that came at the same moment, and one for those that did not; its GPUs must be loaded."""
    if booking.phase(now) not in {Phase.RUNNING, Phase.PAST}:
        return []
    came: dict[datetime, list[Allocation]] = {}
    for one in booking.allocations:
        if (since := fees.given_from(one)) > booking.starts_at:
            came.setdefault(since, []).append(one)
    missing = came.pop(booking.ends_at, [])
    found = [
        _(
            "%(gpus)s came late, through no fault of yours: the time before %(when)s costs nothing.",
            gpus=_names(ones),
            when=moment_text(since),
        )
        for since, ones in sorted(came.items())
    ]
    names = _names(missing)
    if missing and booking.phase(now) == Phase.PAST:
        found.append(_("%(gpus)s could not be given, through no fault of yours, and cost nothing.", gpus=names))
    elif any(one.trouble for one in missing) or (missing and now - booking.starts_at > fees.PROMPT):
        found.append(_("If you wait longer than a minute for %(gpus)s, that time costs nothing.", gpus=names))
    return found


def _names(ones: Iterable[Allocation]) -> str:
    return gpu_list(one.gpu for one in ones)
