"""Teams on their pages: made by an admin, run by an owner, booked on by members."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.extensions import db, lab_zone
from app.models import Account, Booking, User
from app.services import quota, teams
from tests.factories import make_admin, make_host, make_user
from tests.page import Client


@pytest.fixture
def owner(client: Client) -> User:
    return make_user("owner", full_name="Wang Fang", hours=0)


@pytest.fixture
def team(owner: User) -> Account:
    make_user("member", full_name="Li Wei", hours=0)
    account = teams.create(make_admin("boss"), "Vision", "owner", 20)
    teams.add(owner, account, "member")
    return account


def test_an_admin_makes_a_team_and_sets_its_hours(client: Client, owner: User) -> None:
    client.login_as(make_admin())
    page = client.get(client.get("/people").link("Teams: people who share an account"))
    values = {"Name of the team": "Vision", "Username of its owner": "nobody", "Hours per month": "50"}
    wrong = client.submit(page.form("Add team").fill(**values))
    assert wrong.status == 422
    assert wrong.form("Add team").values["name"] == "Vision"
    page = client.follow(client.submit(wrong.form("Add team").fill(**{"Username of its owner": "owner"})))
    assert page.h1 == "Team Vision"
    assert "0 of 50 GPU-hours used" in page.text
    page = client.follow(client.submit(page.form("Save hours and class").fill(**{"Hours per month for Vision": "70"})))
    assert "0 of 70 GPU-hours used" in page.text


def test_an_owner_takes_people_in_limits_them_and_takes_them_out(client: Client, team: Account, owner: User) -> None:
    make_user("third", full_name="Zhao Min")
    client.login_as(owner)
    page = client.get(client.get("/quota").link("Vision"))
    assert "Save hours and class" not in page.body
    assert client.submit(page.form("Take in").fill(Username="nobody")).status == 422
    page = client.follow(client.submit(page.form("Take in").fill(Username="third")))
    form = page.form("Set for Zhao Min").fill(**{"Hours a month for Zhao Min": "12"})
    page = client.follow(client.submit(form))
    assert "Booked for this month: 0 of 12 GPU-hours." in page.text
    wrong = client.submit(page.form("Set for Zhao Min").fill(**{"Hours a month for Zhao Min": "many"}))
    assert wrong.status == 422
    assert wrong.form("Set for Zhao Min").values["hours"] == "many"
    last = client.submit(page.form("Set for Wang Fang").fill(**{"Wang Fang runs the team": False}))
    assert last.status == 409
    assert "A team needs an owner." in last.text
    client.follow(client.submit(client.get(page.link("Take Zhao Min out…")).form("Take out")))
    assert teams.member(team.id, owner.id) is not None
    assert [part.member.user.username for part in teams.parts(team)] == ["owner", "member"]


def test_a_member_books_on_the_teams_account(client: Client, team: Account) -> None:
    make_host("lab01")
    member = next(part.member.user for part in teams.parts(team) if not part.member.is_owner)
    client.login_as(member)
    page = client.get("/quota")
    assert "Set for" not in client.get(page.link("Vision")).body
    start = (clock.now() + timedelta(days=1)).astimezone(lab_zone())
    form = client.get("/bookings/new").form("Check")
    values = {"Account": "team:Vision", "Start date": f"{start:%Y-%m-%d}", "Start time": "10:00", "End time": "14:00"}
    checked = client.submit(form.fill(**values))
    assert "Costs 4 GPU-hours; 16 of 20 left after." in checked.text
    assert "You have 20 GPU-hours left to book." in checked.text
    page = client.follow(client.submit(checked.form("Book")))
    assert page.texts("//dt[.='Team']/following-sibling::dd[1]") == ["Vision"]
    assert quota.free(team.id) == 16 * 3600
    assert "member" in client.get(f"/teams/{team.id}").texts("//table//td[2]")[0]


def test_a_refusal_on_a_team_is_kept_and_offered_on_its_account(client: Client, team: Account, owner: User) -> None:
    make_host("lab01")
    start = (clock.now() + timedelta(days=1)).astimezone(lab_zone())
    query = f"check=1&count=2&account=team:Vision&start_date={start:%Y-%m-%d}&start_time=0:00&end_time=12:00"
    page = client.login_as(owner).get(f"/bookings/new?{query}")
    assert "This costs 24 GPU-hours and you have 20 left." in page.text
    client.follow(client.submit(page.form("Book 1 GPU on lab01 instead")))
    assert quota.free(team.id) == 8 * 3600


def test_a_team_is_for_those_who_are_in_it(client: Client, team: Account) -> None:
    stranger = make_user()
    client.login_as(stranger)
    assert client.get(f"/teams/{team.id}").status == 404
    assert client.get(f"/teams/{stranger.account_id}").status == 404, "a person's own account is no team"
    for path, values in {
        f"/teams/{team.id}/members": {"username": stranger.username},
        f"/teams/{team.id}/members/member": {"hours": "1"},
        f"/teams/{team.id}/members/member/remove": {},
        f"/teams/{team.id}/account": {"hours": "1000"},
    }.items():
        assert client.post(path, values).status == 404
    assert client.post("/teams", {"name": "Mine", "owner": stranger.username, "hours": "9"}).status == 403
    assert "Vision" not in client.get("/teams").body


def test_an_owner_cannot_give_the_team_hours(client: Client, team: Account, owner: User) -> None:
    assert client.login_as(owner).post(f"/teams/{team.id}/account", {"hours": "1000"}).status == 403
    assert quota.free(team.id) == 20 * 3600


def test_who_has_hours_only_in_a_team_gets_a_gpu_as_easily(client: Client, team: Account) -> None:
    make_host("lab01", gpus=1)
    client.login_as(db.session.scalars(db.select(User).where(User.username == "member")).one())
    home = client.get("/")
    assert "It costs hours of Vision" in home.text
    assert "of 20 left after" in client.submit(home.form("Get a GPU now")).text
    for page in ("/calendar", "/bookings"):
        assert "This is free" in client.get(client.get(page).link("Get a GPU now")).text
    find = client.get("/find")
    assert find.form("Find").values["account"] == team.name
    assert "Book now, until" in " ".join(find.buttons())
    found = client.submit(find.form("Find"))
    client.submit(found.form("Book 1 GPU on lab01"))
    booking = db.session.scalars(db.select(Booking)).one()
    assert booking.account_id == team.id
    quick = client.get("/calendar").form("Book")
    assert quick.values["account"] == team.name
    own = client.submit(find.form("Find").fill(Account=""))
    assert "you have 0 left" in own.text
    assert client.get("/find?find=1&count=1&hours=1&account=team:Other").status == 422
    client.login_as(make_user("alone"))
    assert "account" not in client.get("/find").form("Find").values
    assert "account" not in client.get("/calendar").form("Book").values
