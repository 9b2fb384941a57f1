"""Who may call the API, and with what."""

from __future__ import annotations

import pytest
from flask import Flask

from app.config import Settings
from app.extensions import db
from app.models import ApiToken, UserState
from tests.conftest import settings_for
from tests.factories import make_admin, make_user
from tests.page import Client
from tests.web.caller import Caller, caller


def test_no_token_and_bad_ones_get_the_same_answer(client: Client) -> None:
    user = make_user()
    gone = caller(client, user)
    user.state = UserState.DISABLED
    answers = [Caller(client, token).get("/gpus") for token in ("", "nonsense", "berth_1_" + "a" * 43, gone.token)]
    assert {answer.status for answer in answers} == {401}
    assert len({str(answer.json) for answer in answers}) == 1
    assert all(answer.headers["WWW-Authenticate"].startswith("Bearer") for answer in answers)


def test_only_the_header_counts(client: Client) -> None:
    user = make_user()
    good = caller(client, user)
    nobody = Caller(client, "")
    client.login_as(user)  # a session cookie opens no API
    assert client.raw.get_cookie("session") is not None
    assert nobody.get("/gpus").status == 401
    assert nobody.get(f"/gpus?access_token={good.token}").status == 401
    for scheme in ("Basic", "Token", ""):
        assert nobody.get("/gpus", headers={"Authorization": f"{scheme} {good.token}"}).status == 401
    for header in (f"bearer {good.token}", f"BEARER  {good.token} "):
        assert nobody.get("/gpus", headers={"Authorization": header}).status == 200
    assert nobody.get("/gpus", headers={"Authorization": "Bearer " + "x" * 10_000_000}).status == 401


def test_scopes(client: Client) -> None:
    admin = make_admin()
    other = make_user()
    reader, booker = caller(client, admin, "read"), caller(client, admin, "book")
    assert reader.get("/gpus").status == 200
    assert reader.post("/bookings", {}).status == 403
    assert reader.post("/bookings", {}).json["code"] == "forbidden"
    assert reader.delete("/bookings/1").status == 403
    assert booker.get("/gpus").status == 403
    assert booker.post("/bookings", {}).status == 422
    for path in ("/instances?all=1", "/usage?all=1"):
        assert reader.get(path).status == 403
        assert caller(client, admin).get(path).status == 200
        assert caller(client, other).get(path).status == 403


def test_the_token_comes_before_everything_else(client: Client) -> None:
    nobody = Caller(client, "")
    assert nobody.post("/bookings", {}).status == 401
    assert nobody.post("/bookings", data=b"x" * 1_000_000).status == 401


def test_errors_without_a_route_are_problems_too(client: Client) -> None:
    person = caller(client, make_user())
    assert person.get("/nothing").status == 404
    assert person.get("/bookings/0").status == 404
    assert person.get(f"/bookings/{2**63}").status == 404
    refused = person("PUT", "/bookings")
    assert refused.status == 405
    assert {"GET", "POST"} <= set(refused.headers["Allow"].replace(" ", "").split(","))


def test_use_is_written_down(client: Client) -> None:
    user = make_user()
    caller(client, user).get("/gpus")
    token = db.session.scalar(db.select(ApiToken).where(ApiToken.user_id == user.id))
    assert token is not None
    assert token.last_used_at is not None


def test_what_nobody_foresaw_tells_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr("app.services.inventory.gpus", fail)
    answer = caller(client, make_user()).get("/gpus")
    assert answer.status == 500
    assert "secret" not in str(answer.json)


class TestRateLimit:
    @pytest.fixture
    def settings(self, shared_db: str, tmp_path) -> Settings:
        return settings_for(shared_db, tmp_path, BERTH_RATE_LIMITS="1")

    def test_guessing_is_slowed_and_good_tokens_are_not(self, app: Flask, client: Client) -> None:
        from app.extensions import limiter

        limiter.reset()
        good, bad = caller(client, make_user()), Caller(client, "berth_1_" + "a" * 43)
        statuses = [bad.get("/gpus").status for _ in range(40)]
        assert statuses == [401] * 30 + [429] * 10
        assert int(bad.get("/gpus").headers["Retry-After"]) > 0
        assert {good.get("/gpus").status for _ in range(40)} == {200}
        limiter.reset()
