"""Limits of how much an account may book: by day, week and month, and of what lies far ahead. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from flask_babel import format_datetime

from app.errors import RuleRefused
from app.language import gettext as _
from app.services.rules import periods
from app.services.rules.limits import Claim
from app.services.rules.terms import Rules
from app.services.windows import LONGEST, Window, hours_text


@dataclass(frozen=True)
class Use:
    """How much of a limit is booked: `kind` of periods.KINDS, GPU-seconds; `window` is the day, week or month."""

    rule: str
    window: Window
    booked: int
    limit: int


def booked_in(window: Window, claims: Sequence[Claim]) -> int:
    """GPU-seconds that the claims have within the window."""
    return sum(periods.shared(claim.window, window) * claim.gpus for claim in claims)


def uses(moment: datetime, claims: Sequence[Claim], rules: Rules, zone: ZoneInfo) -> list[Use]:
    """Where the account stands with each of its limits in the day, week and month of a moment."""
    found = []
    for rule, kind in periods.KINDS.items():
        if (limit := getattr(rules, rule)) is not None:
            span = periods.period(moment, kind, rules, zone)
            found.append(Use(rule, span, booked_in(span, claims), limit * 3600))
    return found


def of_periods(
    whole: Window, new: Window, gpus: int, claims: Sequence[Claim], rules: Rules, zone: ZoneInfo
) -> Iterator[RuleRefused]:
    """More than may be booked in a day, a week or a month that the new part touches; the first of each kind."""
    for rule, kind in periods.KINDS.items():
        if (limit := getattr(rules, rule)) is None:
            continue
        for span in periods.touched(new, kind, rules, zone):
            others = booked_in(span, claims)
            total = others + periods.shared(whole, span) * gpus
            if total > limit * 3600:
                yield _over(rule, span, total, limit, max(limit * 3600 - others, 0), zone)
                break


def of_a_member(
    whole: Window, new: Window, gpus: int, claims: Sequence[Claim], cap: int, rules: Rules, zone: ZoneInfo
) -> Iterator[RuleRefused]:
    """More than a team lets a member book in a month on its account; `claims` are the member's."""
    for span in periods.touched(new, "month", rules, zone):
        others = booked_in(span, claims)
        total = others + periods.shared(whole, span) * gpus
        if total > cap * 3600:
            yield _over("member_hours", span, total, cap, max(cap * 3600 - others, 0), zone)
            return


def of_the_far(
    whole: Window, new: Window, gpus: int, claims: Sequence[Claim], rules: Rules, now: datetime
) -> Iterator[RuleRefused]:
    """More than may be held of what lies many days ahead; what lies nearer is free of this rule."""
    if rules.far_days is None or rules.far_hours is None:
        return
    since = now + timedelta(days=rules.far_days)
    far = Window(since, since + 2 * LONGEST)
    if not periods.shared(new, far):
        return
    others = booked_in(far, claims)
    total = others + periods.shared(whole, far) * gpus
    if total > rules.far_hours * 3600:
        yield RuleRefused(
            _(
                "Of what lies more than %(days)s days ahead you may hold %(max)s GPU-hours; it would be %(hours)s.",
                days=rules.far_days,
                max=rules.far_hours,
                hours=hours_text(total),
            ),
            _("Choose an earlier time: what lies nearer is not limited by this."),
            rule="far_hours",
            limit=rules.far_hours,
            latest=since.astimezone(UTC).isoformat(),
        )


def _over(rule: str, span: Window, total: int, limit: int, left: int, zone: ZoneInfo) -> RuleRefused:
    numbers = {"max": limit, "hours": hours_text(total), "start": lab_time(span.starts_at, zone)}
    brief = {
        "hours_day": _(
            "You may book %(max)s GPU-hours a day; on the day from %(start)s it would be %(hours)s.", **numbers
        ),
        "hours_week": _(
            "You may book %(max)s GPU-hours a week; in the week from %(start)s it would be %(hours)s.", **numbers
        ),
        "member_hours": _(
            "Your team lets you book %(max)s GPU-hours a month; in the month from %(start)s it would be %(hours)s.",
            **numbers,
        ),
        "hours_month": _(
            "You may book %(max)s GPU-hours a month; in the month from %(start)s it would be %(hours)s.", **numbers
        ),
    }[rule]
    hint = _(
        "%(left)s are left there. It counts anew from %(reset)s (%(zone)s).",
        left=hours_text(left),
        reset=lab_time(span.ends_at, zone),
        zone=str(zone),
    )
    return RuleRefused(brief, hint, rule=rule, limit=limit, left=left, resets=span.ends_at.isoformat())


def lab_time(moment: datetime, zone: ZoneInfo) -> str:
    """A moment by the lab's clock, whatever the reader's: rules are the same for everybody."""
    return format_datetime(moment.astimezone(zone).replace(tzinfo=None), _("EEE d MMM HH:mm"), rebase=False)
