"""Why a booking cannot be changed, or not by who saw it as it was."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from app.errors import Conflict, RuleRefused
from app.language import gettext as _
from app.models import Booking, Phase
from app.services.waits import line


def why_not(booking: Booking, now: datetime) -> RuleRefused:
    """Why it cannot, now."""
    phase = booking.phase(now)
    if phase == Phase.CANCELLED:
        return RuleRefused(_("This booking was cancelled."), _("Make a new one."), rule="phase")
    if phase == Phase.PAST:
        return RuleRefused(_("This booking is over; past bookings cannot change."), _("Make a new one."), rule="phase")
    if phase == Phase.RUNNING:
        return RuleRefused(
            _("This booking has started; it cannot be cancelled any more."),
            _('Use "End now" to give the rest of it back.'),
            rule="phase",
        )
    return RuleRefused(_("This booking has not started yet."), _('Use "Cancel" to give all of it back.'), rule="phase")


def refuse_an_offer(booking: Booking) -> None:
    """Raise RuleRefused for one that the waiting list offers: at another time it could begin before it is answered, and
    would still go back for nothing. To be asked with the booking locked."""
    if line.offered(booking) is not None:
        raise RuleRefused(_("This is only offered to you yet."), _("Take it first."), rule="offered")


def refuse_if_changed(moment: datetime, seen: datetime | None) -> None:
    """Raise Conflict where a booking begins or ends at another moment than the one that was seen (in whole minutes)."""
    if seen is not None and moment.replace(second=0, microsecond=0) != seen.replace(second=0, microsecond=0):
        raise Conflict(_("The booking has changed meanwhile."), _("Look at it as it is now, then change it again."))


def refuse_other_gpus(gpu_ids: Collection[int], seen: Collection[int] | None) -> None:
    """Raise Conflict where a booking has other GPUs than those that were seen."""
    if seen is not None and set(gpu_ids) != set(seen):
        raise Conflict(_("The booking has other GPUs by now."), _("Look at it as it is now, then change it again."))
