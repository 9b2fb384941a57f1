"""One's own settings."""

from app.models import User
from app.services import tokens
from tests.factories import make_admin, make_user
from tests.page import PASSWORD, Client

NEW = "another berth for me"


def _change_password(client: Client, current: str, new: str):
    form = client.get("/settings").form("Change password")
    return client.submit(form.fill(**{"Current password": current, "New password": new}))


def test_the_profile_is_saved(client: Client) -> None:
    user = make_user()
    client.login_as(user)
    form = client.get("/settings").form("Save profile")
    values = {"Full name": "Li <Wei>", "E-mail": "li@example.org", "Time zone": "Europe/Berlin"}
    page = client.follow(client.submit(form.fill(**values)))
    assert "Profile saved." in page.text
    assert (user.full_name, user.email, user.timezone) == ("Li <Wei>", "li@example.org", "Europe/Berlin")
    assert "Times are in Europe/Berlin, your zone; the lab is in Asia/Shanghai." in page.text


def test_a_bad_profile_changes_nothing_and_keeps_what_was_typed(client: Client) -> None:
    user = make_user(full_name="Li Wei")
    client.login_as(user)
    form = client.get("/settings").form("Save profile")
    page = client.submit(form.fill(**{"Full name": "Somebody", "E-mail": "nowhere"}))
    assert page.status == 422
    assert page.all("//input[@name='profile-full_name']/@value") == ["Somebody"]
    assert user.full_name == "Li Wei"
    page = client.post("/settings/profile", {"profile-full_name": "A\nB", "profile-timezone": "Mars/Olympus"})
    assert page.status == 422


def test_a_new_password_needs_the_old_one_and_signs_out_other_browsers(client: Client, app) -> None:
    user = make_user()
    client.login_as(user)
    other = Client(app).login_as(user)
    assert "This is not your current password." in _change_password(client, "wrong", NEW).text
    assert "Use 12 characters or more" in _change_password(client, PASSWORD, "short").text
    assert other.get("/quota").status == 200
    page = client.follow(_change_password(client, PASSWORD, NEW))
    assert "Other browsers are signed out." in page.text
    assert other.get("/quota").status == 302
    assert client.get("/quota").status == 200
    Client(app).login_as(user, NEW)


def test_other_browsers_can_be_signed_out(client: Client, app) -> None:
    user = make_user()
    client.login_as(user)
    other = Client(app).login_as(user)
    client.submit(client.get("/settings").form("Sign out all other browsers"))
    assert other.get("/quota").status == 302
    assert client.get("/quota").status == 200


def _make_token(client: Client, **values):
    form = client.get("/settings").form("Make token")
    return client.submit(form.fill(**{"Name": "script", **values}))


def test_a_token_is_shown_once_works_and_can_be_revoked(client: Client) -> None:
    user = make_user()
    client.login_as(user)
    page = _make_token(client)
    text = page.all("//input[@id='token']/@value")[0]
    assert page.headers["Cache-Control"] == "no-store"
    assert tokens.authenticate(text).user.id == user.id
    page = client.get("/settings")
    assert text not in page.body
    page = client.get(page.link("Revoke script…"))
    page = client.follow(client.submit(page.form("Revoke token")))
    assert "Token script revoked." in page.text
    assert tokens.list_of(user) == []


def test_mistakes_with_tokens_are_named(client: Client) -> None:
    client.login_as(make_user())
    assert "A token may live from 1 to 365 days." in _make_token(client, **{"Days until it expires": "9999"}).text
    assert _make_token(client, **{"Days until it expires": "soon"}).status == 422
    assert "Choose at least one of the scopes." in _make_token(client, **{"see what you see (read)": False}).text
    forged = client.post("/settings/tokens", {"token-name": "x", "token-scopes": "admin", "token-days": "9"})
    assert forged.status == 422


def test_only_admins_are_offered_the_scope_admin(client: Client) -> None:
    def offered(user: User) -> list[str]:
        return client.login_as(user).get("/settings").all("//input[@type='checkbox']/@value")

    assert offered(make_user()) == ["read", "book"]
    assert offered(make_admin()) == ["read", "book", "admin"]


def test_somebody_elses_token_cannot_be_revoked(client: Client) -> None:
    other = make_user()
    token, _text = tokens.create(other, "theirs")
    client.login_as(make_user())
    assert client.post(f"/settings/tokens/{token.id}/revoke").status == 404
    assert len(tokens.list_of(other)) == 1
