"""What a booking's page says of GPUs that do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.language import gettext as _
from app.language import ngettext
from app.models import Booking, Idling, Phase, Reclaim
from app.services import policy
from app.services.idle import keeping, sight, steps
from app.services.rules.terms import Rules
from app.services.windows import hours_text
from app.web.times import moment_text


@dataclass(frozen=True)
class Warned:
    """That the rest is given back soon. `button`: to keep it; "" where that was said too often. `key`: which one."""

    text: str
    button: str
    key: str


def warned(booking: Booking, now: datetime) -> Warned | None:
    """What its owner was told, as long as it can be answered."""
    found = keeping.warning(booking) if booking.phase(now) == Phase.RUNNING else None
    if found is None:
        return None
    text = _doing_nothing(len(booking.allocations), found)
    if found.held:
        held = _("Memory is held, which counts for longer, but not for ever.")
        text = f"{text} {held}"
    if fee := steps.fee_of(found, booking):
        paid = _("By the lab's rules %(hours)s GPU-hours of it are charged then.", hours=hours_text(fee))
        text = f"{text} {paid}"
    left = sight.keeps_left(booking.id)
    if not left:
        last = _("You have kept it as often as the rules allow; only using the GPUs keeps it now.")
        return Warned(f"{text} {last}", "", f"idle{found.id}")
    button = ngettext(
        "Keep for %(minutes)s min (%(num)s more time)",
        "Keep for %(minutes)s min (%(num)s more times)",
        left,
        minutes=policy.current().keep_minutes,
    )
    return Warned(text, button, f"idle{found.id}")


def banner(found: Idling) -> str:
    """The same for every page; its booking, host and allocations must be loaded."""
    where = found.booking.host.name
    return _("On %(host)s: %(text)s", host=where, text=_doing_nothing(len(found.booking.allocations), found))


def line(found: Idling) -> str:
    """The moment that matters of it, in a list."""
    due_at = moment_text(found.due_at, "HH:mm")
    return _("Does nothing; at %(time)s the rest of the time is given back.", time=due_at)


def _doing_nothing(gpus: int, found: Idling) -> str:
    due_at = moment_text(found.due_at, "HH:mm")
    if found.absent:
        return ngettext(
            "This %(num)s GPU was not used yet; at %(time)s the rest of the time is given back.",
            "These %(num)s GPUs were not used yet; at %(time)s the rest of the time is given back.",
            gpus,
            time=due_at,
        )
    return ngettext(
        "This %(num)s GPU did nothing since %(since)s; at %(time)s the rest of the time is given back.",
        "These %(num)s GPUs did nothing since %(since)s; at %(time)s the rest of the time is given back.",
        gpus,
        since=moment_text(found.since),
        time=due_at,
    )


def lines(booking: Booking, now: datetime) -> Iterator[str]:
    """That it is kept, or why it ended by itself."""
    if booking.phase(now) == Phase.RUNNING and (until := keeping.kept_until(booking)) is not None:
        yield _("Kept: whatever its GPUs do, nothing is given back before %(time)s.", time=moment_text(until))
    if booking.released_at is not None and (found := keeping.reclaimed(booking)) is not None:
        since = _("It ended by itself: its GPUs did nothing since %(since)s.", since=moment_text(found.since))
        yield _("It ended by itself: its GPUs were never used.") if found.absent else since


def rule(rules: Rules) -> Iterator[str]:
    """What those who book should know of it, by the rules of their class."""
    lab = policy.current()
    if lab.reclaim == Reclaim.ON:
        yield _(
            "GPUs that do nothing for %(minutes)s minutes are given back %(grace)s minutes after you are told.",
            minutes=rules.idle_minutes,
            grace=lab.idle_grace,
        )
        if (rules.noshow_minutes or rules.idle_minutes) < rules.idle_minutes:
            yield _(
                "Of GPUs that were never used you are told %(minutes)s minutes after they were attached.",
                minutes=rules.noshow_minutes,
            )
