from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from app import clock
from app.errors import InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.models import ApiToken, AuditEvent, UserState
from app.services import tokens
from app.services.tokens import BadToken
from tests.factories import make_admin, make_user

pytestmark = pytest.mark.usefixtures("app")


def test_only_a_hash_is_stored() -> None:
    token, text = tokens.create(make_user(), "ci", ["read"])
    prefix, number, secret = text.split("_", 2)
    assert (prefix, int(number), len(secret)) == ("berth", token.id, 43)
    stored = db.session.execute(sa.select(sa.text("to_jsonb(api_tokens)::text")).select_from(ApiToken)).scalars().all()
    events = db.session.scalars(sa.select(sa.cast(AuditEvent.details, sa.String))).all()
    assert not [row for row in [*stored, *events] if secret in row]


def test_it_speaks_for_its_person_in_one_query(count_queries) -> None:
    user = make_user()
    _token, text = tokens.create(user, "ci", ["read", "book"])
    db.session.flush()
    with count_queries() as queries:
        found = tokens.authenticate(text)
    assert (found.user.id, found.scopes, len(queries)) == (user.id, {"read", "book"}, 1)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "berth", "berth__", "berth_1_", "berth_x_" + "a" * 43, "berth_1_" + "a" * 42, "berth_1_" + "a" * 44),
        *("berth_1_" + "é" * 43, "berth_" + "9" * 18 + "_" + "a" * 43, "berth_" + "9" * 30 + "_" + "a" * 43),
        *("\0", "berth_1_" + "a" * 43 + "\n", "a" * 10_000_000, "berth_٣_" + "a" * 43),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_garbage_opens_nothing(text: str) -> None:
    tokens.create(make_user(), "ci")
    with pytest.raises(BadToken):
        tokens.authenticate(text)


def test_another_tokens_secret_opens_nothing() -> None:
    first, text = tokens.create(make_user(), "ci")
    second, _text = tokens.create(make_user(), "ci")
    with pytest.raises(BadToken):
        tokens.authenticate(text.replace(f"_{first.id}_", f"_{second.id}_", 1))


def test_it_ends_with_its_time_and_with_being_revoked(freeze) -> None:
    user = make_user()
    now = clock.now()
    _first, text = tokens.create(user, "ci", days=1)
    second, other = tokens.create(user, "ci", days=1)
    freeze(now + timedelta(days=1) - timedelta(seconds=5))
    assert tokens.authenticate(text).user.id == user.id
    tokens.revoke(user, second.id)
    tokens.revoke(user, second.id)
    with pytest.raises(BadToken):
        tokens.authenticate(other)
    freeze(now + timedelta(days=1, seconds=5))
    with pytest.raises(BadToken):
        tokens.authenticate(text)
    assert [token.id for token in tokens.list_of(user)] == [_first.id]


@pytest.mark.parametrize("state", [UserState.PENDING, UserState.DISABLED, UserState.REFUSED])
def test_it_is_worth_what_its_person_is(state: UserState) -> None:
    user = make_user()
    _token, text = tokens.create(user, "ci")
    user.state = state
    db.session.flush()
    with pytest.raises(BadToken):
        tokens.authenticate(text)


def test_without_the_scope_an_admins_token_is_a_persons(app: Flask) -> None:
    admin = make_admin()
    _token, plain = tokens.create(admin, "ci", ["read"])
    _token, full = tokens.create(admin, "ci", ["read", "admin"])
    db.session.commit()
    db.session.remove()
    assert tokens.authenticate(plain).user.is_admin is False
    db.session.commit()  # nothing of that is ever written
    db.session.remove()
    found = tokens.authenticate(full)
    assert found.user.is_admin is True
    with pytest.raises(NotAllowed):
        found.require("book")


@pytest.mark.parametrize(
    ("name", "scopes", "days", "field"),
    [
        ("", ["read"], 1, "name"),
        ("a\nb", ["read"], 1, "name"),
        ("x" * 65, ["read"], 1, "name"),
        ("ci", [], 1, "scopes"),
        ("ci", ["root"], 1, "scopes"),
        ("ci", ["admin"], 1, "scopes"),
        ("ci", ["read"], 0, "days"),
        ("ci", ["read"], 366, "days"),
    ],
)
def test_what_cannot_be_a_token(name: str, scopes: list[str], days: int, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        tokens.create(make_user(), name, scopes, days)
    assert refusal.value.field == field


def test_nobody_keeps_too_many_and_nobody_ends_anothers() -> None:
    user, other = make_user(), make_user()
    made = [tokens.create(user, f"t{number}")[0] for number in range(tokens.MOST_TOKENS)]
    with pytest.raises(RuleRefused):
        tokens.create(user, "one more")
    with pytest.raises(NotFound):
        tokens.revoke(other, made[0].id)
    tokens.revoke(user, made[0].id)
    tokens.create(user, "in its place")


def test_its_use_is_written_down_once_a_minute(freeze) -> None:
    now = clock.now().replace(microsecond=0)
    freeze(now)
    token, text = tokens.create(make_user(), "ci")
    assert tokens.authenticate(text).stale
    tokens.touch(token.id)
    db.session.refresh(token)
    assert token.last_used_at == now
    freeze(now + timedelta(seconds=59))
    assert not tokens.authenticate(text).stale
    tokens.touch(token.id)
    db.session.refresh(token)
    assert token.last_used_at == now
    freeze(now + timedelta(seconds=60))
    assert tokens.authenticate(text).stale
    tokens.touch(token.id)
    db.session.refresh(token)
    assert token.last_used_at == now + timedelta(seconds=60)
