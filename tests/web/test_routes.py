"""Every route says who may call it, and means it: the whole map, each role."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from app.web.security import policy_of
from tests.factories import make_admin, make_user
from tests.page import Client, Page

PUBLIC = {
    "static",
    "auth.login",
    "auth.login_post",
    "auth.logout",
    "auth.register",
    "auth.register_post",
    "auth.language",
    "health.healthz",
    "health.metrics",
    "feeds.calendar",
}
ADMINS_ONLY = {
    "people", "policy", "audit", "hosts", "host_desktop", "shares", "templates", "all_machines",
    "messages", "maintenance", "everybodys_waits", "idle",
}  # fmt: skip
SAMPLES = {
    "way": "recipe",
    "role": "user",
    "what": "stop",
    "deed": "restore",
    "edge": "end",
    "source": "log",
    "filename": "app.css",
}
ROLES = ["nobody", "user", "admin"]


def _rules(app: Flask) -> Iterator[tuple[Rule, str]]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def _url(app: Flask, rule: Rule) -> str:
    values = {name: SAMPLES.get(name, 1) for name in rule.arguments}
    with app.test_request_context():
        return app.url_for(rule.endpoint, **values)


def test_every_route_declares_who_may_call_it(app: Flask) -> None:
    policies = {rule.endpoint: policy_of(app, rule.endpoint) for rule, _method in _rules(app)}
    assert {name for name, policy in policies.items() if policy == "public"} == PUBLIC
    assert set(policies.values()) == {"public", "user", "admin", "token"}
    for name, policy in policies.items():
        blueprint = name.partition(".")[0]
        assert (policy == "admin") == (blueprint in ADMINS_ONLY), f"{name} is for {policy}"
        assert (policy == "token") == (blueprint == "api"), f"{name} is for {policy}"


@pytest.mark.parametrize("role", ROLES)
def test_every_route_keeps_its_word(app: Flask, client: Client, role: str) -> None:
    person = {"nobody": None, "user": make_user, "admin": make_admin}[role]
    user = person() if person else None
    if user is not None:
        client.login_as(user)
    for rule, method in _rules(app):
        policy = policy_of(app, rule.endpoint)
        if user is not None and rule.endpoint in {"auth.logout", "auth.login"}:
            continue
        url = _url(app, rule)
        answer = client.get(url) if method == "GET" else client._request(method, url, data={"csrf_token": ""})
        if method == "POST" and policy != "token":
            answer = client.post(url)
        assert _kept(answer, policy, role), f"{method} {url} ({policy}) answers {answer.status} to {role}"
        if user is not None and method == "POST" and client.get("/settings").status != 200:  # what signs out
            client.login_as(user)


def _kept(answer: Page, policy: str, role: str) -> bool:
    sent_away = answer.status == 302 and answer.location.startswith("/login")
    if policy == "token":
        return answer.status == 401 or answer.headers["Content-Type"].startswith("application/json")
    if policy == "public":
        return not sent_away and answer.status not in {401, 403}
    if role == "nobody":
        return sent_away
    if policy == "admin" and role == "user":
        return answer.status == 403
    return answer.status in {200, 303, 404, 409, 422}


def test_a_change_needs_the_token_of_ones_own_session(app: Flask, client: Client) -> None:
    client.login_as(make_admin())
    for rule, method in _rules(app):
        if method == "POST" and policy_of(app, rule.endpoint) != "token":
            for token in ("", "wrong"):
                answer = client.post(_url(app, rule), {"csrf_token": token})
                assert answer.status == 400, f"{rule} took the token {token!r}"
                assert answer.h1 == "This form is no longer valid."


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_change_from_another_site_is_refused_even_with_the_token(client: Client, headers: dict[str, str]) -> None:
    client.login_as(make_user())
    answer = client.post("/settings/sign-out-others", headers=headers)
    assert (answer.status, answer.h1) == (403, "This request came from another site.")


@pytest.mark.parametrize("headers", [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {}])
def test_a_change_from_our_own_pages_is_taken(client: Client, headers: dict[str, str]) -> None:
    client.login_as(make_user())
    assert client.post("/settings/sign-out-others", headers=headers).status == 303


def test_no_change_by_get(app: Flask) -> None:
    for rule, method in _rules(app):
        if method == "GET":
            assert rule.endpoint.split(".")[-1] not in {"logout", "approve", "suspend", "revoke", "delete", "cancel"}


def test_an_address_that_is_kept_is_the_one_that_flask_builds(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ADDRESSES", 6)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("home.index", {}),
        ("calendar.index", {"mine": 1}),
        ("calendar.index", {"mine": True}),
        ("calendar.index", {"mine": "1"}),
        ("calendar.index", {"open": ["a", "b"], "_anchor": "x"}),
        ("bookings.show", {"booking_id": 7}),
        ("bookings.show", {"booking_id": 7, "_anchor": "end", "_external": True}),
        ("auth.login", {"next": "/a?b=c&d=" + "é" * 200}),
        ("static", {"filename": "app.css"}),
        ("static", {"filename": "nowhere.css"}),
    ]
    for root in ("", "/berth", ""):
        with app.test_request_context("/", environ_overrides={"SCRIPT_NAME": root}):
            for endpoint, values in asked * 2:
                assert app.url_for(endpoint, **values) == Flask.url_for(app, endpoint, **values)
            assert app.url_for("home.index").startswith(f"{root}/")
    with app.test_request_context("/calendar"):
        assert app.url_for(".index") == "/calendar"
