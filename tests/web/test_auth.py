"""Signing in and out, asking for an account, and who may not come in yet."""

from datetime import timedelta

import pytest
from flask import Flask

from app import clock
from app.config import Settings
from app.extensions import db
from app.models import SignIn, User, UserState
from app.services import accounts, signins
from app.web.auth import safe_url
from tests.conftest import settings_for
from tests.factories import make_pending, make_user
from tests.page import PASSWORD, Client

REQUEST = {"Username": "liwei", "Full name": "Li Wei", "E-mail": "li.wei@example.org", "Password": "four words of mine"}


def test_signing_in_goes_where_one_wanted_to_go(client: Client) -> None:
    user = make_user()
    page = client.get("/quota?before=7")
    assert page.location == "/login?next=/quota?before%3D7"
    form = client.follow(page).form("Sign in").fill(Username=user.username, Password=PASSWORD)
    assert client.submit(form).location == "/quota?before=7"


def test_a_wrong_password_and_an_unknown_name_read_the_same(client: Client) -> None:
    user = make_user()
    wrong = client.post("/login", {"username": user.username, "password": "not the password"})
    unknown = client.post("/login", {"username": "nobody-here", "password": "not the password"})
    assert wrong.status == unknown.status == 422
    assert "Username or password is wrong." in wrong.text
    assert wrong.text == unknown.text
    assert wrong.all("//title")[0].text.startswith("Error: Sign in")


def test_asking_for_an_account_leads_to_a_sentence_not_to_an_error(client: Client) -> None:
    page = client.submit(client.get("/register").form("Ask for an account").fill(**REQUEST))
    assert page.h1 == "Your account waits for approval"
    page = client.post("/login", {"username": "liwei", "password": "four words of mine"})
    assert page.status == 200
    assert "An admin must approve you. Asked" in page.text
    assert client.get("/quota").location.startswith("/login")


def test_a_refused_person_reads_why_and_a_suspended_one_whom_to_ask(client: Client) -> None:
    person = make_pending()
    accounts.refuse(person.username, "Not a member <b>yet</b>", actor="ada")
    answer = client.post("/login", {"username": person.username, "password": PASSWORD})
    assert "The reason given: Not a member <b>yet</b>" in answer.text
    suspended = make_user(state=UserState.DISABLED)
    answer = client.post("/login", {"username": suspended.username, "password": PASSWORD})
    assert answer.h1 == "Your account is suspended"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("Username", "Li Wei", "Use 2 to 31 small letters"),
        ("Username", "root", "This username is taken"),
        ("Username", "", "Fill this in"),
        ("Full name", "x" * 121, "Use 120 characters at most"),
        ("E-mail", "nowhere", "Use an address such as"),
        ("Password", "short", "Use 12 characters or more"),
        ("Password", "liwei liwei liwei", "Leave your username out"),
        ("Password", "password1234!", "This password is one of the first"),
    ],
)
def test_a_mistake_is_named_beside_its_field(client: Client, field: str, value: str, words: str) -> None:
    page = client.submit(client.get("/register").form("Ask for an account").fill(**(REQUEST | {field: value})))
    assert page.status == 422
    summary = page.texts("//div[@class='summary']//a")
    wrong = page.all("//*[@aria-invalid='true']")
    assert len(summary) == len(wrong) == 1
    assert summary[0].startswith(f"{field}: {words}")
    described = wrong[0].get("aria-describedby").split()
    assert any(words in page.root.get_element_by_id(id_).text_content() for id_ in described)
    assert db.session.scalar(db.select(User).where(User.username == "liwei")) is None


def test_signing_out_makes_the_cookie_worthless(client: Client, app: Flask) -> None:
    user = make_user()
    client.login_as(user)
    kept = client.raw.get_cookie("session")
    assert kept is not None
    assert kept.http_only
    assert kept.same_site == "Lax"
    client.post("/logout")
    client.raw.set_cookie("session", kept.value)
    assert client.get("/quota").location.startswith("/login")


def test_the_cookie_holds_a_key_and_the_database_only_its_hash(client: Client) -> None:
    client.login_as(make_user())
    with client.raw.session_transaction() as session:
        key = session["_user_id"]
    row = db.session.scalars(db.select(SignIn)).one()
    assert key not in row.key_hash
    assert signins.find(key) is not None


@pytest.mark.parametrize(("after", "ends"), [(timedelta(hours=7), False), (timedelta(hours=9), True)])
def test_an_idle_session_ends(client: Client, freeze, after: timedelta, ends: bool) -> None:
    client.login_as(make_user())
    freeze(clock.now() + after)
    assert (client.get("/quota").status == 302) is ends


def test_a_session_ends_after_a_week_however_busy(client: Client, freeze) -> None:
    client.login_as(make_user())
    start = clock.now()
    for hours in range(7, 24 * 7, 7):
        freeze(start + timedelta(hours=hours))
        assert client.get("/quota").status == 200, f"after {hours} hours"
    freeze(start + timedelta(days=7, minutes=1))
    assert client.get("/quota").status == 302


def test_polling_is_no_sign_of_life(client: Client, freeze) -> None:
    client.login_as(make_user())
    start = clock.now()
    for hours in (4, 7):
        freeze(start + timedelta(hours=hours))
        assert client.get("/quota", htmx=True).status == 200
    freeze(start + timedelta(hours=9))
    gone = client.get("/quota", htmx=True)
    assert (gone.status, gone.headers["HX-Redirect"]) == (204, "/login")


def test_signing_in_changes_the_key_and_keeps_nothing_of_the_old_session(client: Client) -> None:
    user = make_user()
    token = client.csrf_token()
    client.post("/login", {"username": user.username, "password": PASSWORD, "csrf_token": token})
    with client.raw.session_transaction() as session:
        assert session.keys() == {"_user_id", "csrf_token"}
        assert session["csrf_token"].endswith(f".{user.id}")  # a new one, that says whose its forms are
    answer = client.post("/settings/sign-out-others", {"csrf_token": token})
    assert (answer.status, answer.h1) == (400, "This form is no longer valid.")


def test_loading_who_is_signed_in_costs_one_query(client: Client, count_queries) -> None:
    client.login_as(make_user())
    with count_queries() as queries:
        client.get("/settings/tokens/1/revoke")
    assert len([q for q in queries if "sign_ins" in q]) == 1


@pytest.mark.parametrize(
    "url",
    [
        "//evil.example/x",
        "https://evil.example/",
        "/\\evil.example",
        "\\/evil.example",
        "javascript:alert(1)",
        "/a\r\nSet-Cookie: x=1",
        "/\t/evil.example",
        "evil",
        "",
    ],
)
def test_next_never_leads_to_another_site(url: str) -> None:
    assert safe_url(url) == "/"


@pytest.mark.parametrize("url", ["/", "/quota", "/calendar?week=2026-11-02#lab01"])
def test_next_leads_to_our_own_pages(url: str) -> None:
    assert safe_url(url) == url


class TestLimits:
    @pytest.fixture
    def settings(self, shared_db: str, tmp_path) -> Settings:
        return settings_for(shared_db, tmp_path, BERTH_RATE_LIMITS="1")

    def test_guessing_is_stopped_with_a_sentence_and_others_go_on(self, client: Client) -> None:
        user, other = make_user(), make_user()
        guess = {"username": user.username, "password": "guess after guess"}
        assert [client.post("/login", guess).status for _ in range(11)] == [422] * 10 + [429]
        page = client.post("/login", guess | {"password": PASSWORD})
        assert page.status == 429
        assert page.h1 == "Too many attempts."
        assert "Try again in 5 minutes." in page.text
        assert 0 < int(page.headers["Retry-After"]) <= 301, "the limiter rounds its window up"
        client.login_as(other)

    def test_one_address_cannot_ask_for_accounts_for_ever(self, client: Client) -> None:
        names = [f"asker{n}" for n in range(6)]
        sent = {"full_name": "A", "email": "a@example.org", "password": "four words of mine"}
        answers = [client.post("/register", sent | {"username": name}).status for name in names]
        assert answers == [200] * 5 + [429]
