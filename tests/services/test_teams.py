"""Teams share an account: who may book on it, how much, and who says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, QuotaExceeded, RuleRefused
from app.models import Account, Gpu, User
from app.services import audit, bookings, changes, quota, refusals, room, teams
from app.services.claims import Ask
from app.services.rules import classes
from tests.factories import gpus_of, make_admin, make_host, make_user

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOT = 900

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture(autouse=True)
def _at(app: Flask, freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def boss() -> User:
    return make_admin("boss")


@pytest.fixture
def owner() -> User:
    return make_user("owner", hours=0)


@pytest.fixture
def member() -> User:
    return make_user("member", hours=0)


@pytest.fixture
def gpus() -> list[Gpu]:
    return gpus_of(make_host("lab01"))


@pytest.fixture
def team(boss: User, owner: User, member: User) -> Account:
    account = teams.create(boss, "Vision", "owner", 20)
    teams.add(owner, account, "member")
    return account


def ask(gpus: list[Gpu], start: float, hours: float, account: str = "team:Vision") -> Ask:
    begin = NOW + start * HOUR
    ids = tuple(gpu.id for gpu in gpus)
    return Ask(starts_at=begin, ends_at=begin + hours * HOUR, gpu_ids=ids, account=account)


def test_the_team_pays_and_the_person_has_the_booking(team: Account, member: User, gpus: list[Gpu]) -> None:
    booking = bookings.create(member, ask(gpus[:2], 1, 4), SLOT)
    assert (booking.user_id, booking.account_id) == (member.id, team.id)
    assert quota.free(team.id) == 12 * 3600
    with pytest.raises(QuotaExceeded):
        bookings.create(member, ask(gpus[2:], 1, 4, account=""), SLOT)
    with pytest.raises(QuotaExceeded, match="you have 12 left"):
        bookings.create(member, ask(gpus[2:], 1, 7), SLOT)
    changes.cancel(member, booking.id)
    assert quota.free(team.id) == 20 * 3600


def test_nobody_else_books_on_it(team: Account, boss: User, gpus: list[Gpu]) -> None:
    for person in (make_user(), boss):
        with pytest.raises(InvalidInput) as refused:
            bookings.create(person, ask(gpus[:1], 1, 1), SLOT)
        assert refused.value.field == "account"
        with pytest.raises(InvalidInput):
            bookings.create(person, ask(gpus[:1], 1, 1, account="owner"), SLOT)


def test_a_member_keeps_to_their_limit_and_the_others_are_free_of_it(
    team: Account, owner: User, member: User, gpus: list[Gpu]
) -> None:
    teams.limit(owner, team, "member", 5, owner=False)
    booking = bookings.create(member, ask(gpus[:1], 1, 4), SLOT)
    error, offers = refusals.offers(member, ask(gpus[1:2], 1, 3), SLOT)
    assert isinstance(error, RuleRefused)
    assert error.brief.startswith("Your team lets you book 5 GPU-hours a month")
    assert {offer.kind: offer.proposal.cost for offer in offers} == {"shorter": 3600, "later": 3 * 3600}
    found = room.after(booking, SLOT)
    assert found is not None
    assert [step.refused == "" for step in found.steps] == [True, False]
    with pytest.raises(RuleRefused, match="Your team lets you book 5"):
        changes.move_end(member, booking.id, NOW + 7 * HOUR, SLOT)
    bookings.create(owner, ask(gpus[1:2], 1, 8), SLOT)
    assert {part.member.user.username: part.booked for part in teams.parts(team)} == {"owner": 28_800, "member": 14_400}


def give_rules(boss: User, team: Account, rules: dict[str, int]) -> None:
    found = classes.create(boss, "Project")
    classes.change(boss, found.id, rules)
    classes.assign(boss, team, found.id)


def test_the_class_of_the_team_counts_for_all_of_it(
    team: Account, boss: User, owner: User, member: User, gpus: list[Gpu]
) -> None:
    give_rules(boss, team, {"gpus_at_once": 2})
    bookings.create(owner, ask(gpus[:2], 1, 2), SLOT)
    with pytest.raises(RuleRefused, match="2 GPUs at once"):
        bookings.create(member, ask(gpus[2:3], 2, 2), SLOT)


def test_a_gap_lies_between_the_bookings_of_one_person(
    team: Account, boss: User, owner: User, member: User, gpus: list[Gpu]
) -> None:
    give_rules(boss, team, {"gap_minutes": 60})
    bookings.create(owner, ask(gpus[:1], 1, 2), SLOT)
    mine = bookings.create(member, ask(gpus[1:2], 1, 2), SLOT)
    changes.move_end(member, mine.id, NOW + 4 * HOUR, SLOT)
    with pytest.raises(RuleRefused, match="Between two bookings of yours"):
        bookings.create(member, ask(gpus[2:3], 4, 2), SLOT)


def test_who_is_taken_out_books_no_more_but_keeps_what_is_booked(
    team: Account, owner: User, member: User, gpus: list[Gpu]
) -> None:
    booking = bookings.create(member, ask(gpus[:1], 1, 2), SLOT)
    teams.remove(owner, team, "member")
    with pytest.raises(InvalidInput):
        bookings.create(member, ask(gpus[1:2], 1, 2), SLOT)
    with pytest.raises(RuleRefused, match="not in this team any more"):
        changes.move_end(member, booking.id, NOW + 4 * HOUR, SLOT)
    found = room.after(bookings.get(member, booking.id), SLOT)
    assert found is not None
    assert found.reasons == ["You are not in this team any more."]
    changes.move_end(member, booking.id, NOW + 2 * HOUR, SLOT)
    with pytest.raises(NotFound):
        teams.get(member, team.id)


def test_only_owners_and_admins_say_who_is_in(team: Account, boss: User, member: User) -> None:
    make_user("third")
    for call in (
        lambda: teams.add(member, team, "third"),
        lambda: teams.limit(member, team, "member", None, owner=True),
        lambda: teams.remove(member, team, "owner"),
        lambda: teams.create(member, "Mine", "member", 100),
    ):
        with pytest.raises(NotAllowed):
            call()
    teams.add(boss, team, "third")
    assert [part.member.user.username for part in teams.parts(team)] == ["owner", "member", "third"]


def test_a_team_has_an_owner_always(team: Account, owner: User) -> None:
    for call in (
        lambda: teams.remove(owner, team, "owner"),
        lambda: teams.limit(owner, team, "owner", None, owner=False),
    ):
        with pytest.raises(Conflict):
            call()
    teams.limit(owner, team, "member", 3, owner=True)
    teams.remove(owner, team, "owner")
    (event, *_rest) = audit.recent(target="account:team:Vision")
    assert (event.action, event.details) == ("team.member_removed", {"user": "owner"})


@pytest.mark.parametrize("name", ["", "x", "team:x", "a/b", "Vision", "x" * 41])
def test_names_that_are_none(team: Account, boss: User, name: str) -> None:
    with pytest.raises(InvalidInput):
        teams.create(boss, name, "owner", 10)


def test_a_person_named_like_a_team_gets_an_account_of_their_own(team: Account, boss: User) -> None:
    teams.create(boss, "vision", "owner", 10)
    person = make_user("vision")
    assert person.account_id not in {account.id for account in teams.every()}
    assert teams.of(person) == []
