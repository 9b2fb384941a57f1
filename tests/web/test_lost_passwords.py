"""An admin gives somebody who forgot theirs a new password: shown once, and by no reload a second one."""

from flask import Flask

from app.extensions import db
from app.models import AuditEvent, User, UserState
from app.services import accounts, passwords
from tests.factories import make_pending, make_user
from tests.page import PASSWORD, Client, Form, Page


def _asked(client: Client, name: str = "liwei") -> Form:
    return client.get(client.get(f"/people/{name}").link("New password…")).form("Set a new password")


def _shown(page: Page) -> str:
    (text,) = page.all("//*[@id='password']/@value")
    return str(text)


def _times() -> int:
    query = db.select(AuditEvent.id).where(AuditEvent.action == "user.password_set")
    return len(db.session.scalars(query).all())


def test_from_a_forgotten_password_to_one_of_ones_own(client: Client, admin: User, app: Flask) -> None:
    user = make_user("liwei", full_name="Li Wei")
    theirs = Client(app).login_as(user)
    page = client.submit(_asked(client))
    assert (page.status, page.h1) == (200, "New password for Li Wei")
    assert page.headers["Cache-Control"] == "no-store"
    assert "Give it to them in person; they change it in Settings." in page.text
    assert "Copy password" in page.buttons()
    new = _shown(page)
    passwords.check(new, "liwei")
    for where in ("/people/liwei", "/people/liwei/password", "/audit"):
        assert new not in client.get(where).body, where
    assert theirs.get("/quota").status == 302, "signed out"
    assert theirs.post("/login", {"username": "liwei", "password": PASSWORD}).status == 422
    theirs.login_as(user, new)
    form = theirs.get("/settings").form("Change password")
    assert theirs.submit(form.fill(**{"Current password": new, "New password": "a berth of my own"})).status == 303


def test_sent_again_it_sets_no_other_one_and_asks_anew(client: Client, admin: User) -> None:
    user = make_user("liwei", full_name="Li Wei")
    form = _asked(client)
    new = _shown(client.submit(form))
    again = client.submit(form)
    assert (again.status, again.all("//*[@id='password']")) == (409, [])
    assert "The password of Li Wei was changed meanwhile." in again.text
    assert (accounts.authenticate("liwei", new), _times()) == (user, 1)
    assert client.post("/people/liwei/password").status == 409, "not from such a page at all"
    assert _shown(client.submit(again.form("Set a new password"))) != new
    assert (accounts.authenticate("liwei", new), _times()) == (None, 2)


def test_nobody_else_can(client: Client, app: Flask) -> None:
    user = make_user("liwei")
    stranger = Client(app).login_as(make_user("chenyu"))
    for ask in (client.get, client.post, stranger.get, stranger.post):
        assert ask("/people/liwei/password").status in {302, 403}
    assert (accounts.authenticate("liwei", PASSWORD), _times()) == (user, 0)


def test_for_whom_there_is_none(client: Client, admin: User) -> None:
    make_pending("newcomer")
    for name, status in (("ada", 403), ("newcomer", 422), ("nobody", 404), ("-", 404)):
        assert client.get(f"/people/{name}/password").status == status
        assert client.post(f"/people/{name}/password").status == status
    assert "Change your own password in Settings." in client.get("/people/ada/password").text
    for name in ("ada", "newcomer"):
        assert "New password…" not in client.get(f"/people/{name}").links()
    assert _times() == 0


def test_who_is_suspended_is_said_to_stay_so(client: Client, admin: User) -> None:
    make_user("liwei", full_name="Li Wei", state=UserState.DISABLED)
    form = _asked(client)
    assert "Li Wei stays suspended until you let them in again." in form.page.text
    assert accounts.authenticate("liwei", _shown(client.submit(form))) is not None


def test_the_sign_in_page_says_whom_to_ask(client: Client) -> None:
    assert "Forgotten your password? An admin can give you a new one." in client.get("/login").text
