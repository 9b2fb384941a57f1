"""What a change of a booking's time costs, in words."""

from __future__ import annotations

from app.language import gettext as _
from app.services.rules import classes
from app.services.windows import hours_text


def more(seconds: int) -> str:
    """What its hours cost more than before, in GPU-seconds; below 0: what is given back."""
    if seconds > 0:
        return _("Costs %(hours)s GPU-hours more.", hours=hours_text(seconds))
    return given_back(-seconds) if seconds else _("Costs the same.")


def of_what_is_left(seconds: int, free: int, fee: int = 0) -> str:
    """The same where it costs more, with what of the account's `free` GPU-seconds is left then, less a fee."""
    if seconds <= 0:
        return more(seconds)
    return _(
        "Costs %(hours)s GPU-hours more; %(after)s of %(before)s left after.",
        hours=hours_text(seconds),
        after=hours_text(max(free - seconds - fee, 0)),
        before=hours_text(max(free, 0)),
    )


def given_back(seconds: int) -> str:
    """GPU-seconds that are given back."""
    return _("%(hours)s GPU-hours are given back.", hours=hours_text(seconds))


def late(account_id: int, fee: int) -> str:
    """What is charged for giving back late, in GPU-seconds, and by what rule."""
    rules = classes.rules_for(account_id)
    return _(
        "%(hours)s GPU-hours are charged: %(percent)s%% of what is given back less than %(limit)s hours ahead.",
        hours=hours_text(fee),
        percent=rules.late_percent,
        limit=rules.late_hours,
    )
