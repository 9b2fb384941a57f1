"""What one may still book, said on the form before one asks."""

from __future__ import annotations

from flask_babel import gettext as _

from app.models import User
from app.services import quota
from app.services.rules import classes
from app.services.rules.terms import Rules
from app.services.windows import hours_text
from app.web.quota import limits_of
from app.web.times import moment_text


def left(user: User, rules: Rules) -> list[str]:
    """The balance, and what is left of each limit of the day, the week and the month that it is now."""
    if user.account_id is None:
        return []
    free = hours_text(max(quota.free(user.account_id), 0))
    lines = [_("You have %(hours)s GPU-hours left to book.", hours=free)]
    lines += [
        _(
            "%(span)s %(booked)s of %(limit)s GPU-hours are booked; it counts anew %(reset)s.",
            span=name,
            booked=hours_text(use.booked),
            limit=hours_text(use.limit),
            reset=moment_text(use.window.ends_at),
        )
        for name, use in limits_of(user.account_id, rules)
    ]
    return lines


def rules_of(user: User) -> Rules:
    """The rules that a person books by."""
    return classes.rules_for(user.account_id)
