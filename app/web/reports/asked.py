"""What a report was asked for: of whom, of which days, and by what; all of it in the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from flask import request

from app import clock
from app.errors import InvalidInput, NotFound
from app.extensions import lab_zone
from app.language import gettext as _
from app.models import Account, User
from app.services import teams
from app.services.reports import periods
from app.services.reports.periods import Choice, Range
from app.services.reports.pieces import Scope
from app.services.reports.report import Group, Row
from app.services.reports.spans import Span
from app.web import local_times
from app.web.numbers import ID_DIGITS, whole
from app.web.reports import sorting

ALL, MINE, OF_TEAM = "all", "me", "team-"
MOST_DAYS = 1100


@dataclass(frozen=True)
class Asked:
    """A report that can be made."""

    of: str
    scope: Scope
    team: Account | None
    choice: Choice
    shown: Range
    group: Group
    sort: str
    now: datetime

    @cached_property
    def span(self) -> Span:
        """Its days as moments, as far as they are past."""
        return self.shown.span(lab_zone(), self.now)

    @property
    def groups(self) -> tuple[Group, ...]:
        """What it can be grouped by."""
        return groups_of(self.of)

    def ordered(self, rows: Sequence[Row]) -> list[Row]:
        """The table's rows in the order asked for."""
        return sorting.ordered(rows, self.sort)

    def args(self, **changes: str) -> dict[str, str]:
        """Its address's fields, with changes."""
        dates = {"from": self.shown.first.isoformat(), "to": self.shown.last.isoformat()}
        found = {"of": self.of, "period": self.choice.value, "group": self.group.value}
        found |= {"sort": self.sort} if self.sort else {}
        found |= dates if self.choice == Choice.CUSTOM else {}
        found |= changes
        return found if found["period"] == Choice.CUSTOM else {k: v for k, v in found.items() if k not in dates}


def read(user: User) -> Asked:
    """From the request. Raises NotFound for what this person may not see, InvalidInput for days that cannot be."""
    values, now = request.args, clock.now()
    of = values.get("of", ALL if user.is_admin else MINE)
    scope, team = _scope(user, of)
    groups = groups_of(of)
    group = next((one for one in groups if one == values.get("group", "")), groups[0])
    choice = next((one for one in Choice if one == values.get("period", "")), Choice.THIS_MONTH)
    today = now.astimezone(lab_zone()).date()
    shown = _custom(values) if choice == Choice.CUSTOM else periods.of(choice, today)
    return Asked(of, scope, team, choice, shown, group, sorting.read(values.get("sort", "")), now)


def groups_of(of: str) -> tuple[Group, ...]:
    """What a report of these can be grouped by, the usual one first."""
    times_ = (Group.DAY, Group.WEEK, Group.MONTH)
    things = (Group.HOST, Group.GPU, Group.MODEL)
    if of == MINE:
        return (Group.BOOKING, Group.TEAM, *things, *times_)
    return (Group.PERSON, Group.TEAM, *things, *times_) if of == ALL else (Group.PERSON, *things, *times_)


def choices(user: User) -> list[tuple[str, str]]:
    """Of whom this person may have a report: the address's word, and the name."""
    found = [(ALL, _("Everybody"))] if user.is_admin else []
    run = teams.every() if user.is_admin else teams.run_by(user)
    found += [(f"{OF_TEAM}{team.id}", _("Team %(name)s", name=team.title)) for team in run]
    return [*found, (MINE, _("Only mine"))]


def _scope(user: User, of: str) -> tuple[Scope, Account | None]:
    if of == MINE:
        return Scope(user_id=user.id), None
    if of == ALL and user.is_admin:
        return Scope(), None
    number = whole(of.removeprefix(OF_TEAM), ID_DIGITS) if of.startswith(OF_TEAM) else None
    if number is not None:
        team = teams.get(user, number)
        if teams.runs(user, team):
            return Scope(account_id=team.id, reader_id=None if user.is_admin else user.id), team
    raise NotFound(_("There is no such report for you."))


def _custom(values: Mapping[str, str]) -> Range:
    first, last = (local_times.parse_date(values.get(name, ""), name) for name in ("from", "to"))
    if last < first:
        raise InvalidInput(_("The last day must not lie before the first."), field="to")
    if (last - first).days >= MOST_DAYS:
        raise InvalidInput(_("A report covers %(days)s days at most.", days=MOST_DAYS), field="from")
    return Range(first, last)
