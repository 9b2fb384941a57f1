"""People, passwords and sign-ins, without any page."""

import time
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import select

from app import clock
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.models import AuditEvent, LedgerEntry, Role, SignIn, User, UserState
from app.services import accounts, passwords, quota, signins
from tests.factories import make_pending, make_user
from tests.page import PASSWORD

ZONE = ZoneInfo("Asia/Shanghai")

pytestmark = pytest.mark.usefixtures("app")


def _register(username: str = "liwei", **changes: str) -> User:
    values = {"full_name": "Li Wei", "email": "li@example.org", "password": PASSWORD} | changes
    return accounts.register(username, **values)


@pytest.mark.parametrize("name", ["a", "1abc", "-abc", "Abc", "a" * 32, "a b", "a_b", "a\n", "a.b", "ä1", "", "../x"])
def test_names_that_are_no_usernames(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        _register(name)
    assert caught.value.field == "username"


@pytest.mark.parametrize("name", ["ab", "a1", "li-wei", "a" * 31])
def test_names_that_are(name: str) -> None:
    assert _register(name).state == UserState.PENDING


def test_a_name_is_taken_once() -> None:
    _register()
    with pytest.raises(InvalidInput, match="taken"):
        _register()


@pytest.mark.parametrize("text", ["two\nlines", "bell\x07", "x" * 121])
def test_a_full_name_is_one_line(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        _register(full_name=text)
    assert caught.value.field == "full_name"


def test_added_people_need_no_approval() -> None:
    user = accounts.add("boss", PASSWORD, actor="cli", zone=ZONE, admin=True)
    assert (user.state, user.role) == (UserState.ACTIVE, Role.ADMIN)
    assert user.account is not None
    assert (user.account.name, quota.free(user.account.id)) == ("boss", 0)
    assert accounts.authenticate("boss", PASSWORD) is user


def test_approving_twice_grants_once() -> None:
    _register()
    user = accounts.approve("liwei", 100, actor="ada", zone=ZONE)
    with pytest.raises(Conflict):
        accounts.approve("liwei", 100, actor="bob", zone=ZONE)
    assert user.account is not None
    assert quota.free(user.account.id) == 360_000
    assert db.session.scalars(select(AuditEvent.action).where(AuditEvent.actor == "bob")).all() == []


def test_undoing_and_approving_anew_leaves_one_grant(freeze) -> None:
    _register()
    for hours in (100, 20, 50):
        user = accounts.approve("liwei", hours, actor="ada", zone=ZONE)
        assert user.account is not None
        assert quota.free(user.account.id) == hours * 3600
        accounts.undo_approval("liwei", actor="ada", zone=ZONE)
        assert quota.free(user.account.id) == 0
    amounts = db.session.scalars(select(LedgerEntry.amount).order_by(LedgerEntry.id)).all()
    assert [amount // 3600 for amount in amounts] == [100, -100, 20, -20, 50, -50]


def test_late_there_is_no_undoing(freeze) -> None:
    _register()
    accounts.approve("liwei", 100, actor="ada", zone=ZONE)
    freeze(clock.now() + timedelta(minutes=10, seconds=1))
    with pytest.raises(RuleRefused):
        accounts.undo_approval("liwei", actor="ada", zone=ZONE)


def test_nobody_can_shut_themselves_out() -> None:
    make_user("ada", role=Role.ADMIN)
    with pytest.raises(NotAllowed):
        accounts.suspend("ada", actor="ada")
    with pytest.raises(NotAllowed):
        accounts.set_role("ada", Role.USER, actor="ada")


def test_a_role_changed_ends_the_persons_sessions() -> None:
    user = make_user()
    key = signins.begin(user)
    accounts.set_role(user.username, Role.ADMIN, actor="ada")
    assert signins.find(key) is None


def test_only_active_people_have_a_session() -> None:
    user = make_user()
    key = signins.begin(user)
    found = signins.find(key)
    assert found is not None
    assert found.user is user
    assert signins.find(key + "x") is None
    user.state = UserState.DISABLED
    db.session.flush()
    assert signins.find(key) is None


def test_sessions_that_ran_out_are_swept_at_the_next_sign_in(freeze) -> None:
    user = make_user()
    signins.begin(user)
    freeze(clock.now() + timedelta(hours=9))
    signins.begin(user)
    assert len(db.session.scalars(select(SignIn)).all()) == 1


def test_somebody_unknown() -> None:
    assert accounts.authenticate("nobody", PASSWORD) is None
    with pytest.raises(NotFound):
        accounts.get("nobody")


def test_an_unknown_name_takes_as_long_as_a_wrong_password(
    real_hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_hasher", real_hasher)
    make_user("liwei").password_hash = real_hasher.hash(PASSWORD)

    def fastest(name: str) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            assert accounts.authenticate(name, "wrong password") is None
            times.append(time.process_time() - start)
        return min(times)

    known, unknown = fastest("liwei"), fastest("nobody")
    assert unknown > known / 3


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("eleven char", "12 characters or more"),
        ("x" * 129, "128 characters at most"),
        ("my name is LIWEI!", "username"),
        ("aaaaaaaaaaaaaaaa", "anybody"),
        ("Password12345!", "anybody"),
        ("1234567890123", "anybody"),
        ("qwertyuiop123", "anybody"),
    ],
)
def test_passwords_that_are_too_weak(password: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        passwords.check(password, "liwei")
    assert caught.value.field == "password"


@pytest.mark.parametrize("password", ["a berth for everyone", "密码是一句很长的话没有人猜得到", "x7Kq-9mPz2Lw"])
def test_passwords_that_will_do(password: str, real_hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", real_hasher)
    stored = passwords.hashed(password, "liwei")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches(password, stored)
    assert not passwords.matches(password + "x", stored)


def test_the_password_of_nobody_lets_nobody_in() -> None:
    assert not passwords.matches("the password of nobody", None)
    assert not passwords.matches("anything", "no hash")


def test_a_hash_made_with_old_settings_is_renewed_at_sign_in() -> None:
    user = make_user()
    user.password_hash = old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    db.session.flush()
    assert accounts.authenticate(user.username, PASSWORD) is user
    assert user.password_hash != old
    assert passwords.matches(PASSWORD, user.password_hash)


def test_refusing_keeps_the_reason(app: Flask) -> None:
    person = make_pending()
    with pytest.raises(InvalidInput):
        accounts.refuse(person.username, " ", actor="ada")
    accounts.refuse(person.username, " Not yet. ", actor="ada")
    assert accounts.refusal_reason(person) == "Not yet."
