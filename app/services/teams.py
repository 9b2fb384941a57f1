"""Teams: people who book on one account. An admin makes them; an owner sees and limits who is in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.extensions import db, lab_zone
from app.language import gettext as _
from app.models import Account, TeamMember, User, UserState
from app.models.accounts import TEAM
from app.services import audit, quota
from app.services.rules import amounts, classes, gate, periods
from app.services.windows import Window

NAME = re.compile(r"\w[\w .-]{0,38}\w")
MOST_HOURS = 1_000_000


@dataclass(frozen=True)
class Part:
    """A member and what they have booked on the team's account in this month, in GPU-seconds."""

    member: TeamMember
    booked: int


def create(actor: User, name: str, owner: str, hours: float) -> Account:
    """A team with its first owner and so many hours a month. Raises InvalidInput, NotAllowed but for admins."""
    if not actor.is_admin:
        raise NotAllowed(_("Only admins make teams."))
    name = name.strip()
    if not NAME.fullmatch(name):
        raise InvalidInput(_("Use 2 to 40 letters, digits, spaces, dots and hyphens."), field="name")
    if db.session.scalar(select(Account.id).where(Account.name == TEAM + name)):
        raise InvalidInput(_("There is a team of this name already."), field="name")
    person = _person(owner, "owner")
    account = Account(name=TEAM + name)
    db.session.add(account)
    db.session.flush()
    db.session.add(TeamMember(account_id=account.id, user_id=person.id, is_owner=True))
    quota.set_monthly(account, hours, lab_zone(), actor=actor.username)
    audit.record(actor.username, "team.created", _target(account), owner=person.username)
    return account


def of(user: User) -> list[Account]:
    """The teams that a person is in, by name."""
    query = select(Account).join(TeamMember, TeamMember.account_id == Account.id)
    return list(db.session.scalars(query.where(TeamMember.user_id == user.id).order_by(Account.name)))


def every() -> list[Account]:
    """All teams, by name."""
    return list(db.session.scalars(select(Account).where(Account.name.startswith(TEAM)).order_by(Account.name)))


def run_by(user: User) -> list[Account]:
    """The teams that a person is an owner of, by name."""
    query = select(Account).join(TeamMember, TeamMember.account_id == Account.id).order_by(Account.name)
    return list(db.session.scalars(query.where(TeamMember.user_id == user.id, TeamMember.is_owner)))


def owners(account: Account) -> list[User]:
    """Who runs a team, by username."""
    query = select(User).join(TeamMember, TeamMember.user_id == User.id).order_by(User.username)
    return list(db.session.scalars(query.where(TeamMember.account_id == account.id, TeamMember.is_owner)))


def get(user: User, account_id: int) -> Account:
    """A team that a person is in; any, for an admin. Raises NotFound."""
    account = db.session.get(Account, account_id)
    if account is None or not account.is_team or not (user.is_admin or member(account.id, user.id)):
        raise NotFound(_("There is no team %(id)s of yours.", id=account_id))
    return account


def member(account_id: int, user_id: int) -> TeamMember | None:
    """A person's place in a team, if they have one."""
    query = select(TeamMember).where(TeamMember.account_id == account_id, TeamMember.user_id == user_id)
    return db.session.scalar(query)


def runs(user: User, account: Account) -> bool:
    """Whether this person may say who is in the team and how much they may book."""
    if user.is_admin:
        return True
    place = member(account.id, user.id)
    return place is not None and place.is_owner


def parts(account: Account) -> list[Part]:
    """Who is in, the owners first, with what each has booked this month."""
    query = (
        select(TeamMember)
        .join(User)
        .where(TeamMember.account_id == account.id)
        .options(joinedload(TeamMember.user))
        .order_by(TeamMember.is_owner.desc(), User.username)
    )
    month = month_of(account, clock.now())
    claims = gate.claims_of(account.id, month.starts_at)
    return [
        Part(one, amounts.booked_in(month, [claim for claim in claims if claim.user_id == one.user_id]))
        for one in db.session.scalars(query)
    ]


def month_of(account: Account, now: datetime) -> Window:
    """The month in which members' hours count, by the rules of the team's class."""
    return periods.period(now, "month", classes.rules_for(account.id), lab_zone())


def add(actor: User, account: Account, username: str) -> TeamMember:
    """Take somebody in. Raises InvalidInput, Conflict."""
    _must_run(actor, account)
    person = _person(username, "username")
    if member(account.id, person.id) is not None:
        raise InvalidInput(_("%(name)s is in this team already.", name=person.display_name), field="username")
    place = TeamMember(account_id=account.id, user_id=person.id, user=person)
    db.session.add(place)
    db.session.flush()
    audit.record(actor.username, "team.member_added", _target(account), user=person.username)
    return place


def limit(actor: User, account: Account, username: str, hours: int | None, *, owner: bool) -> None:
    """How much somebody may book a month (None: no limit), and whether they run the team. Raises as `remove` does."""
    _must_run(actor, account)
    if hours is not None and not 0 <= hours <= MOST_HOURS:
        raise InvalidInput(_("Write a number of hours from 0 to %(max)s.", max=MOST_HOURS), field="hours")
    place = _place(account, username)
    if place.is_owner and not owner:
        _leave_an_owner(account, place)
    before = [place.cap_hours, place.is_owner]
    place.cap_hours, place.is_owner = hours, owner
    db.session.flush()
    after = [hours, owner]
    audit.record(actor.username, "team.member_changed", _target(account), user=username, before=before, after=after)


def remove(actor: User, account: Account, username: str) -> None:
    """Take somebody out; what they booked stays. Raises NotFound, NotAllowed, and Conflict for the last owner."""
    _must_run(actor, account)
    place = _place(account, username)
    _leave_an_owner(account, place)
    db.session.delete(place)
    db.session.flush()
    audit.record(actor.username, "team.member_removed", _target(account), user=username)


def _must_run(actor: User, account: Account) -> None:
    quota.lock(account.id)  # two owners who act at once do so one after the other
    if not runs(actor, account):
        raise NotAllowed(_("Only an owner of the team or an admin can do this."))


def _place(account: Account, username: str) -> TeamMember:
    query = select(TeamMember).join(User).where(TeamMember.account_id == account.id, User.username == username)
    place = db.session.scalar(query)
    if place is None:
        raise NotFound(_("There is nobody called %(name)s.", name=username[:64]))
    return place


def _leave_an_owner(account: Account, place: TeamMember) -> None:
    query = select(TeamMember.id).where(TeamMember.account_id == account.id, TeamMember.is_owner)
    owners: Sequence[int] = db.session.scalars(query).all()
    if list(owners) == [place.id]:
        raise Conflict(_("A team needs an owner."), _("Make somebody else an owner first."))


def _person(username: str, field: str) -> User:
    query = select(User).where(User.username == username.strip(), User.state == UserState.ACTIVE)
    person = db.session.scalar(query)
    if person is None:
        raise InvalidInput(_("There is nobody called %(name)s.", name=username.strip()[:64]), field=field)
    return person


def _target(account: Account) -> str:
    return f"account:{account.name}"
