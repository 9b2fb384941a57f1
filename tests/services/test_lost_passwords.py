"""A new password for whoever lost theirs: what it ends, what it leaves, and who cannot be given one."""

import re
from collections.abc import Iterator

import pytest

from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.models import AuditEvent, Event, SignIn, User, UserState
from app.services import accounts, lost_passwords, machine_passwords, news, notice_words, notices, signins, tokens
from tests.factories import make_admin, make_pending, make_user
from tests.page import PASSWORD

NEW = "another berth for me"

pytestmark = pytest.mark.usefixtures("app")


def _sign_ins(user: User) -> int:
    return len(db.session.scalars(db.select(SignIn).where(SignIn.user_id == user.id)).all())


def test_the_new_one_counts_and_all_browsers_are_signed_out_but_no_program() -> None:
    user, other = make_user("liwei"), make_user("chenyu")
    for person in (user, user, other):
        signins.begin(person)
    _token, text = tokens.create(user, "laptop")
    before = other.password_hash
    lost_passwords.set_password("liwei", NEW, actor="ada")
    assert accounts.authenticate("liwei", PASSWORD) is None
    assert accounts.authenticate("liwei", NEW) is user
    assert (_sign_ins(user), _sign_ins(other), other.password_hash) == (0, 1, before)
    assert tokens.authenticate(text).user is user, "as when people change it themselves"
    (event,) = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "user.password_set")).all()
    assert (event.actor, event.target, event.details) == ("ada", "user:liwei", {})


@pytest.mark.parametrize("state", [UserState.PENDING, UserState.REFUSED])
def test_who_was_not_let_in_gets_none(state: UserState) -> None:
    person = make_pending("newcomer")
    person.state = state
    with pytest.raises(RuleRefused, match="no account yet"):
        lost_passwords.set_password("newcomer", NEW, actor="ada")
    assert accounts.authenticate("newcomer", PASSWORD) is person


def test_an_admin_can_be_given_one_but_nobody_gives_it_to_themselves() -> None:
    make_admin("ada"), make_admin("bob")
    lost_passwords.set_password("bob", NEW, actor="ada")
    with pytest.raises(NotAllowed):
        lost_passwords.set_password("ada", NEW, actor="ada")
    assert accounts.authenticate("ada", PASSWORD) is not None
    with pytest.raises(NotFound):
        lost_passwords.set_password("nobody", NEW, actor="ada")


def test_who_is_suspended_stays_so() -> None:
    user = make_user("liwei", state=UserState.DISABLED)
    lost_passwords.set_password("liwei", NEW, actor="ada")
    assert user.state == UserState.DISABLED


def test_what_was_asked_for_before_another_change_changes_nothing() -> None:
    user = make_user("liwei")
    seen = lost_passwords.mark(user)
    lost_passwords.set_password("liwei", NEW, actor="ada", seen=seen)
    for mark in (seen, ""):
        with pytest.raises(Conflict, match="changed meanwhile"):
            lost_passwords.set_password("liwei", "yet another berth", actor="bob", seen=mark)
    assert accounts.authenticate("liwei", NEW) is user


def test_one_that_is_too_weak_is_refused_and_the_old_one_stays() -> None:
    user = make_user("liwei")
    with pytest.raises(InvalidInput):
        lost_passwords.set_password("liwei", "my name is liwei", actor="ada")
    assert accounts.authenticate("liwei", PASSWORD) is user


def test_one_that_is_made_never_holds_the_username(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Iterator[str] = iter(["xxabxx-cdefgh-jkmnpq", "cdefgh-jkmnpq-rstuvw"])
    monkeypatch.setattr(machine_passwords, "generate", lambda: next(made))
    assert lost_passwords.generate(make_user("ab")) == "cdefgh-jkmnpq-rstuvw"


def test_the_person_is_told_whatever_they_chose_and_never_the_password(app) -> None:
    user = make_user("liwei", locale="en")
    notices.choose(user, {})
    lost_passwords.set_password("liwei", NEW, actor="ada")
    news.collect(mail=True)
    (notice,) = notices.latest(user)
    assert (notice.event, notice.event in notices.URGENT) == (Event.APPROVED, True)
    message = notice_words.message(user, [notice], "https://berth.example.org", app.extensions["berth"].zone)
    assert message.title == "An admin set a new password for your account in Berth"
    assert message.text.startswith("If you did not ask for it, tell them.\nSign in: https://berth.example.org/login")
    assert not re.search(NEW, message.text + message.title + str(notice.details))
