"""Limits of a single booking, and how many GPUs an account has at one moment. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.errors import RuleRefused
from app.language import gettext as _
from app.language import ngettext
from app.models import Policy
from app.services.rules.terms import Rules
from app.services.windows import Window, hours_text


@dataclass(frozen=True)
class Claim:
    """One booking of the account, as the rules see it. `unasked`: its owner never asked for it (models.Booking)."""

    window: Window
    gpus: int
    booking_id: int = 0
    user_id: int = 0
    unasked: bool = False


def of_window(rules: Policy | Rules, window: Window, now: datetime) -> Iterator[RuleRefused]:
    """Too long, or too far ahead."""
    if window.seconds > rules.max_hours * 3600:
        yield RuleRefused(
            _(
                "A booking may last %(max)s hours at most; this one lasts %(asked)s hours.",
                max=rules.max_hours,
                asked=hours_text(window.seconds),
            ),
            _("Make it shorter, or book a second one after it."),
            rule="max_hours",
            limit=rules.max_hours,
        )
    if window.ends_at > now + timedelta(days=rules.horizon_days):
        yield RuleRefused(
            _("A booking must end within %(days)s days from now.", days=rules.horizon_days),
            _("Choose an earlier day."),
            rule="horizon_days",
            limit=rules.horizon_days,
        )


def of_count(rules: Policy | Rules, count: int) -> Iterator[RuleRefused]:
    """More GPUs than one booking may take."""
    if count > rules.max_gpus:
        yield RuleRefused(
            ngettext(
                "One booking may take %(num)s GPU at most; you asked for %(count)s.",
                "One booking may take %(num)s GPUs at most; you asked for %(count)s.",
                rules.max_gpus,
                count=count,
            ),
            _("Take fewer GPUs."),
            rule="max_gpus",
            limit=rules.max_gpus,
        )


def most_at_once(window: Window, claims: Sequence[Claim]) -> tuple[int, datetime]:
    """The most GPUs that the claims have together at any moment of the window, and the first such moment.

    It can only begin where the window or a claim does, so only those moments are tried."""
    counts = _counts(window, claims)
    most = max(count for count, _moment in counts)
    return next((count, moment) for count, moment in counts if count == most)


def room_from(window: Window, claims: Sequence[Claim], most: int) -> datetime:
    """When so much of what the claims have at the window's last moment with more than `most` GPUs has ended that those
    are left. There is such a moment, and a window as long that starts before the answer has it too."""
    moment = max(moment for count, moment in _counts(window, claims) if count > most)
    held = [claim for claim in claims if claim.window.starts_at <= moment < claim.window.ends_at]
    ends = sorted(claim.window.ends_at for claim in held)
    return next(end for end in ends if sum(claim.gpus for claim in held if claim.window.ends_at > end) <= most)


def _counts(window: Window, claims: Sequence[Claim]) -> list[tuple[int, datetime]]:
    """How many GPUs the claims have together where the window or one of them begins, in order."""
    inside = [claim for claim in claims if claim.window.overlaps(window)]
    moments = sorted({window.starts_at, *(max(claim.window.starts_at, window.starts_at) for claim in inside)})
    return [
        (sum(claim.gpus for claim in inside if claim.window.starts_at <= moment < claim.window.ends_at), moment)
        for moment in moments
    ]
