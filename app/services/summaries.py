"""The month that is over, told once: to people of their bookings, to owners of their teams', to admins of all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from app import clock
from app.extensions import db, lab_zone
from app.models import Account, AuditEvent, Event, User, UserState
from app.services import audit, notices, people, teams
from app.services.notices import Telling
from app.services.periods import midnight
from app.services.reports import periods, report, waiting
from app.services.reports.numbers import Numbers, total
from app.services.reports.periods import Choice, Range
from app.services.reports.pieces import Key, Scope
from app.services.reports.report import Group, Row
from app.services.reports.waiting import Waits

AFTER = timedelta(hours=8)  # of a new month, when agents have delivered the last minutes and nobody is woken
LATE = 7  # days into a month, after which the last one is no news any more
TOP = 5  # those who wasted most


def of_last_month(*, mail: bool) -> int:
    """Tell of it, unless it was told; how many notices are new."""
    zone, now = lab_zone(), clock.now()
    today = now.astimezone(zone).date()
    month = periods.of(Choice.LAST_MONTH, today)
    key = f"summary:{month.first:%Y-%m}"
    if now < midnight(today.replace(day=1), zone) + AFTER:
        return 0
    if today.day > LATE or db.session.scalar(select(AuditEvent.id).where(AuditEvent.key == key)):
        return 0
    span = month.span(zone, now)
    rows = report.rows(span, Group.PERSON, Scope())
    waited, each = waiting.of(span, Key.PERSON, Scope())
    query = select(User).where(User.id.in_([row.key for row in rows]), User.state == UserState.ACTIVE)
    users = {user.id: user for user in db.session.scalars(query)}
    facts = {row.key: _facts(month, row.numbers, each.get(row.key)) for row in rows if row.key in users}
    told = sum(notices.tell(users[one], Telling(Event.SUMMARY, key, own), mail=mail) for one, own in facts.items())
    if rows:
        everybody = Telling(Event.SUMMARY, f"{key}:all", _of_all(month, rows, waited))
        told += sum(notices.tell(admin, everybody, mail=mail) for admin in people.admins())
    told += sum(_of_team(team, month, key, mail=mail) for team in teams.every())
    audit.record(audit.SYSTEM, "report.summarised", f"report:{month.first:%Y-%m}", key=key, people=len(rows))
    return told


def _of_team(team: Account, month: Range, key: str, *, mail: bool) -> int:
    """Tell a team's owners, unless nobody booked on it; how many notices are new."""
    span, scope = month.span(lab_zone(), clock.now()), Scope(account_id=team.id)
    owners = [user for user in teams.owners(team) if user.state == UserState.ACTIVE]
    rows = report.rows(span, Group.PERSON, scope) if owners else []
    if not rows:
        return 0
    facts = _of_all(month, rows, waiting.of(span, Key.NOTHING, scope)[0])
    telling = Telling(Event.SUMMARY, f"{key}:team-{team.id}", facts | {"team": team.title, "account": team.id})
    return sum(notices.tell(owner, telling, mail=mail) for owner in owners)


def _of_all(month: Range, rows: Iterable[Row], waited: Waits) -> dict[str, Any]:
    found = list(rows)
    most = [[row.name, row.numbers.wasted] for row in found[:TOP] if row.numbers.wasted > 0]
    return _facts(month, total(row.numbers for row in found), waited) | {"people": len(found), "most": most}


def _facts(month: Range, found: Numbers, waited: Waits | None) -> dict[str, Any]:
    """What a notice keeps, in GPU-seconds; of the waiting list places, and seconds that they waited."""
    names = ("reserved", "attached", "busy", "idle", "not_given", "not_attached", "no_data", "wasted", "kwh")
    days = {"first": month.first.isoformat(), "last": month.last.isoformat()}
    facts = days | {name: round(getattr(found, name), 3) for name in names}
    if waited is None or not waited.places:
        return facts
    times = {"median": waited.median, "longest": waited.longest}
    return facts | {"places": waited.places, "served": waited.booked} | times
