"""What may still be booked on an account, said on the form before one asks."""

from __future__ import annotations

from flask import url_for

from app.errors import DomainError
from app.language import gettext as _
from app.models import Account, User
from app.services import payers, quota, teams
from app.services.rules import classes
from app.services.windows import hours_text
from app.web.bookings.blueprint import bp
from app.web.quota import limits_of
from app.web.sessions import me, this_sign_in
from app.web.times import moment_text


def payer(user: User, name: str) -> int | None:
    """The account that a form speaks of; one's own where it speaks of none that one may book on."""
    try:
        return payers.account_id(user, name)
    except DomainError:
        return user.account_id


def _teams() -> list[Account]:
    """The reader's teams; that they are in none came with the sign-in."""
    return teams.of(me()) if this_sign_in().in_a_team else []


@bp.app_template_global()
def team_accounts() -> list[tuple[str, str]]:
    """What the reader may book on beside their own account: names, with their titles."""
    return [(team.name, team.title) for team in _teams()]


@bp.app_template_global()
def account_with_hours() -> tuple[str, str] | None:
    """The reader's own account ("", without a title) while it has hours, else the first team's that has some, with its
    title; None where none has."""
    own = me().account_id
    if own is not None and quota.free(own) > 0:
        return "", ""
    return next(((team.name, team.title) for team in _teams() if quota.free(team.id) > 0), None)


@bp.app_template_global()
def usual_account() -> str:
    """The account that a form or link begins with, as in Ask: "" for one's own."""
    found = account_with_hours() if this_sign_in().in_a_team else None
    return found[0] if found is not None else ""


@bp.app_template_global()
def now_url() -> str:
    """What "Get a GPU now" leads to."""
    return url_for("bookings.new", now=1, check=1, account=usual_account() or None)


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
