"""What may still be booked on an account, said on the form before one asks."""

from __future__ import annotations

from flask_babel import gettext as _

from app.errors import DomainError
from app.models import User
from app.services import payers, quota
from app.services.rules import classes
from app.services.windows import hours_text
from app.web.quota import limits_of
from app.web.times import moment_text


def payer(user: User, name: str) -> int | None:
    """The account that a form speaks of; one's own where it speaks of none that one may book on."""
    try:
        return payers.account_id(user, name)
    except DomainError:
        return user.account_id


def left(account_id: int | None) -> list[str]:
    """The balance, and what is left of each limit of the day, the week and the month that it is now."""
    if account_id is None:
        return []
    free = hours_text(max(quota.free(account_id), 0))
    lines = [_("You have %(hours)s GPU-hours left to book.", hours=free)]
    lines += [
        _(
            "%(span)s %(booked)s of %(limit)s GPU-hours are booked; it counts anew %(reset)s.",
            span=name,
            booked=hours_text(use.booked),
            limit=hours_text(use.limit),
            reset=moment_text(use.window.ends_at),
        )
        for name, use in limits_of(account_id, classes.rules_for(account_id))
    ]
    return lines
