"""Whether a request keeps a set of rules. Pure: what it is held against comes in, refusals come out, each with its
reason, its number and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from app.errors import RuleRefused
from app.language import gettext as _
from app.language import ngettext
from app.services.rules import amounts, limits
from app.services.rules.limits import Claim
from app.services.rules.terms import Rules, listed
from app.services.windows import Window
from app.services.words import when


@dataclass(frozen=True)
class Asked:
    """A request as the rules see it. `added`: the part that is new where an end of a booking is moved, else None.

    `models`, `host`: the GPUs that were chosen, where they are known."""

    window: Window
    gpus: int
    now: datetime
    added: Window | None = None
    models: frozenset[str] = frozenset()
    host: str = ""
    member_id: int | None = None  # whose share of a team's account it is

    @property
    def new(self) -> Window:
        """What is not booked yet."""
        return self.added or self.window


@dataclass(frozen=True)
class Standing:
    """What the account has booked: all that is not cancelled and could matter, without the booking that is changed."""

    claims: Sequence[Claim] = field(default=())
    cap: int | None = None  # GPU-hours a month that the team gives the member


def broken(asked: Asked, standing: Standing, rules: Rules, zone: ZoneInfo) -> Iterator[RuleRefused]:
    """Each rule that the request breaks, the plainest first."""
    yield from limits.of_window(rules, asked.window, asked.now)
    yield from limits.of_count(rules, asked.gpus)
    if asked.added is None:
        yield from _of_a_new_one(asked, standing, rules)
    if asked.new.starts_at == asked.window.starts_at:  # of a new one, or of one that is to begin earlier
        yield from _notice(asked, rules)
    yield from of_gpus(rules, asked.models, asked.host)
    yield from _at_once(asked, standing, rules)
    yield from _gap(asked, standing, rules)
    yield from amounts.of_periods(asked.window, asked.new, asked.gpus, standing.claims, rules, zone)
    if asked.member_id is not None and standing.cap is not None:
        own = _of_the_person(asked, standing)
        yield from amounts.of_a_member(asked.window, asked.new, asked.gpus, own, standing.cap, rules, zone)
    yield from amounts.of_the_far(asked.window, asked.new, asked.gpus, standing.claims, rules, asked.now)


def of_gpus(rules: Rules, models: frozenset[str], host: str) -> Iterator[RuleRefused]:
    """Models and hosts that this class may not use."""
    if rules.models and (others := sorted(models - set(rules.models))):
        yield RuleRefused(
            _("Your account may not use %(model)s.", model=others[0]),
            _("It may use: %(models)s.", models=listed(rules.models)),
            rule="models",
        )
    if rules.hosts and host and host not in rules.hosts:
        yield RuleRefused(
            _("Your account may not use GPUs of %(host)s.", host=host),
            _("It may use those of: %(hosts)s.", hosts=listed(rules.hosts)),
            rule="hosts",
        )


def _of_a_new_one(asked: Asked, standing: Standing, rules: Rules) -> Iterator[RuleRefused]:
    window, now = asked.window, asked.now
    if rules.min_minutes is not None and window.seconds < rules.min_minutes * 60:
        yield RuleRefused(
            _("A booking lasts %(min)s minutes at least.", min=rules.min_minutes),
            _("Make it longer."),
            rule="min_minutes",
            limit=rules.min_minutes,
        )
    asked_for = (claim.window for claim in standing.claims if not claim.unasked)
    ahead = sorted(window.starts_at for window in asked_for if window.starts_at > now)
    if rules.bookings_ahead is not None and window.starts_at > now and len(ahead) >= rules.bookings_ahead:
        yield RuleRefused(
            ngettext(
                "You may have %(num)s booking that has not started; you have %(count)s.",
                "You may have %(num)s bookings that have not started; you have %(count)s.",
                rules.bookings_ahead,
                count=len(ahead),
            ),
            _("Cancel one of them, or wait: the next one starts %(start)s.", start=when(ahead[0]))
            if ahead
            else _("Book what starts now."),
            rule="bookings_ahead",
            limit=rules.bookings_ahead,
        )


def _notice(asked: Asked, rules: Rules) -> Iterator[RuleRefused]:
    earliest = asked.now + rules.notice
    if rules.notice_minutes is not None and asked.window.starts_at < earliest:
        yield RuleRefused(
            _("A booking must be made %(notice)s minutes before it starts.", notice=rules.notice_minutes),
            _("The earliest start is %(start)s.", start=when(earliest)),
            rule="notice_minutes",
            limit=rules.notice_minutes,
            earliest=earliest.isoformat(),
        )


def _of_the_person(asked: Asked, standing: Standing) -> list[Claim]:
    """What is booked by whoever asks; somebody's own account has nobody else's."""
    return [claim for claim in standing.claims if asked.member_id in {None, claim.user_id}]


def _at_once(asked: Asked, standing: Standing, rules: Rules) -> Iterator[RuleRefused]:
    if rules.gpus_at_once is None:
        return
    most, moment = limits.most_at_once(asked.new, standing.claims)
    if most + asked.gpus > rules.gpus_at_once:
        left = rules.gpus_at_once - asked.gpus  # below zero, no end of a booking helps
        later = {"earliest": limits.room_from(asked.new, standing.claims, left).isoformat()} if left >= 0 else {}
        yield RuleRefused(
            ngettext(
                "You may have %(num)s GPU at once; from %(start)s it would be %(count)s.",
                "You may have %(num)s GPUs at once; from %(start)s it would be %(count)s.",
                rules.gpus_at_once,
                count=most + asked.gpus,
                start=when(moment),
            ),
            _("Take fewer GPUs, or a time at which you have none."),
            rule="gpus_at_once",
            limit=rules.gpus_at_once,
            spare=max(rules.gpus_at_once - most, 0),
            **later,
        )


def _gap(asked: Asked, standing: Standing, rules: Rules) -> Iterator[RuleRefused]:
    if rules.gap_minutes is None:
        return
    gap, new = timedelta(minutes=rules.gap_minutes), asked.new
    near = [
        claim.window
        for claim in _of_the_person(asked, standing)  # a team's members do not wait for each other
        if not claim.unasked  # it is where maintenance left it
        and claim.window.ends_at + gap > new.starts_at
        and claim.window.starts_at < new.ends_at + gap
    ]
    if near:
        after = max(window.ends_at for window in near) + gap
        yield RuleRefused(
            _("Between two bookings of yours must lie %(gap)s minutes.", gap=rules.gap_minutes),
            _("After the one before it, you may book from %(start)s on.", start=when(after)),
            rule="gap_minutes",
            limit=rules.gap_minutes,
            earliest=after.isoformat(),
        )
