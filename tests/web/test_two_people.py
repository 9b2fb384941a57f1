"""Two people: neither sees, reaches or guesses what is the other's. Every route that names a thing is walked with the
other's things: each answers as for one that there is not, changes nothing and tells nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from app import clock
from app.errors import RuleRefused
from app.extensions import db
from app.models import Backup, Base, User
from app.services import channels, feeds, ports, refusals, ssh_keys, teams, tokens
from app.services.claims import Ask
from app.services.series import making
from app.services.series.patterns import Pattern
from app.services.series.trial import Wish as Again
from app.services.waits import joining
from app.services.waits.joining import Wanted
from app.web.security import policy_of
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_template, make_user
from tests.page import Client, Page
from tests.services.test_ssh_keys import GOOD
from tests.web.caller import caller

SNAPSHOT = "hand-20261101-120000"
HUSH = (  # what nobody else may get to read
    "gamma", SNAPSHOT, "hush-note", "hush-token", "hush-template", "hush-key", "hush-team", "hush-feed", "hush-chat",
)  # fmt: skip


@dataclass
class Two:
    """Wang, who has one of everything, by a route's arguments; and Li, who has a machine on the same host."""

    wang: User
    li: User
    things: dict[str, Any]


@pytest.fixture
def two(client: Client, woken: list[str]) -> Two:
    wang, li, now = make_user("wang"), make_user("li"), clock.now()
    host = make_host("lab03", seen_at=now, terminal_url="ws://127.0.0.1:8790")
    seen = {"snapshots": [{"name": SNAPSHOT, "at": now.timestamp(), "size": 1}]}
    health = {"account": "ok", "rdp": "", "ssh": "", "host_keys": ["ssh-ed25519 " + "A" * 68]}
    machine = make_instance(wang, host, "gamma", observed=seen, health=health)
    ports.reserve(machine, host)
    make_instance(li, host, "li-s-own")
    make_template(host, "common")
    hushed = make_template(host, "hush-template", for_everyone=False, users=[wang])
    hushed.picture = b"a picture"
    key = ssh_keys.add("test", wang, GOOD, "hush-key")
    token, _text = tokens.create(wang, "hush-token")
    hour = timedelta(hours=1)
    booking = make_booking(wang, gpus_of(host)[:1], now - hour, now + hour, note="hush-note")
    wish = Ask(ends_at=now + 200 * hour, count=2, note="hush-note")
    refusal = refusals.store(wang, wish, RuleRefused("Too long.", rule="max_hours"))
    backup = Backup(instance_id=machine.id, host_id=host.id, size=1, ready_at=now, expires_at=now + hour)
    db.session.add(backup)
    db.session.commit()
    team = teams.create(make_admin("boss"), "hush-team", "wang", 20)
    weekly = Pattern((0,), 72000, 75600, "Asia/Shanghai", now.date() + timedelta(3), now.date() + timedelta(9))
    booked = making.create(wang, Again(weekly, Ask(ends_at=now, count=1, note="hush-note")), 900)
    booking.series_id = booked.series.id
    feed, _secret = feeds.create(wang, "hush-feed", None, "en")
    channel = channels.add(wang, "hush-chat", "jsons://127.0.0.1:9/x", allowed=("jsons",), secret_key="x")
    db.session.commit()
    place = joining.join(wang, Wanted(Ask(ends_at=now + 99 * hour, count=4, note="hush-note"), 49 * 3600), 1)
    db.session.commit()
    things = {"name": "gamma", "snapshot": SNAPSHOT, "booking_id": booking.id, "refusal_id": refusal.id}
    things |= {"token_id": token.id, "key_id": key.id, "template_id": hushed.id, "feed_id": feed.id}
    things |= {"channel_id": channel.id, "account_id": team.id, "username": "wang", "wait_id": place.id}
    return Two(wang, li, things | {"series_id": booked.series.id})


NOTHING = {
    "name": "delta",
    "snapshot": "hand-20991101-120000",
    "username": "nobody",
    **dict.fromkeys(("booking_id", "series_id", "refusal_id", "token_id", "key_id", "template_id", "feed_id"), 987654),
    **dict.fromkeys(("channel_id", "account_id", "wait_id"), 987654),
}
CHOICES = {"what": "stop", "deed": "restore", "edge": "start"}


def routes(app: Flask, policy: str) -> Iterator[tuple[Rule, str, str]]:
    """Every route for signed-in people (or for tokens) that names a thing of somebody's: rule, endpoint, method."""
    for rule in app.url_map.iter_rules():
        if rule.arguments and policy_of(app, rule.endpoint) == policy:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, rule.endpoint, method


def url(app: Flask, rule: Rule, things: dict[str, Any]) -> str:
    known = things | CHOICES
    assert set(rule.arguments) <= set(known), f"{rule}: say in this file what Wang has of it"
    with app.test_request_context():
        return app.url_for(rule.endpoint, **{name: known[name] for name in rule.arguments})


def everything() -> dict[str, list[str]]:
    """All that the database holds."""
    db.session.commit()
    return {
        table.name: sorted(str(row) for row in db.session.execute(db.select(table)))
        for table in Base.metadata.sorted_tables
        if table.name not in {"sign_ins", "api_tokens"}  # that somebody looked is noted there
    }


def test_the_walk_leads_to_what_wang_has(app: Flask, client: Client, two: Two) -> None:
    """Else the next tests would find nothing in nothing."""
    client.login_as(two.wang)
    answers = {
        rule.rule: client.get(url(app, rule, two.things)).status for rule, _, m in routes(app, "user") if m == "GET"
    }
    short = answers.pop(next(where for where in answers if where.startswith("/b/")))  # the way to a booking's page
    assert (short, {where: status for where, status in answers.items() if status != 200}) == (303, {})
    assert len(answers) > 20


@pytest.mark.parametrize("htmx", [False, True])
def test_every_page_of_the_others_is_one_that_there_is_not(app: Flask, client: Client, two: Two, htmx: bool) -> None:
    client.login_as(two.li)
    before = everything()
    for rule, endpoint, method in routes(app, "user"):
        theirs, nothing = url(app, rule, two.things), url(app, rule, NOTHING)
        if endpoint == "short.booking":  # leads to its place on the calendar, which everybody sees
            assert htmx or client.get(theirs).location.startswith("/calendar?")
            continue
        ask = client.get if method == "GET" else client.post
        foreign, unknown = (ask(where, htmx=htmx) for where in (theirs, nothing))
        refused = {404, 204} if htmx and endpoint == "machines.show" else {404}  # 204: its page goes to all machines
        assert foreign.status == unknown.status, f"{method} {theirs} tells it from {nothing}"
        assert foreign.status in refused, f"{method} {theirs}: {foreign.status}"
        assert foreign.headers.get("HX-Redirect") == unknown.headers.get("HX-Redirect")
        assert _same(foreign, unknown), f"{method} {theirs} tells it from {nothing}"
        for secret in HUSH[2:]:  # those that were not asked for
            assert secret not in foreign.body, f"{method} {theirs} tells {secret}"
    assert everything() == before


def test_a_token_of_ones_own_opens_nothing_of_the_others(app: Flask, client: Client, two: Two) -> None:
    call = caller(client, two.li)
    before = everything()
    for rule, _endpoint, method in routes(app, "token"):
        theirs, nothing = (url(app, rule, things).removeprefix("/api/v1") for things in (two.things, NOTHING))
        body = {"ends_at": "2099-01-01T00:00:00Z"} if theirs.endswith("/extend") else None
        body = {"note": "mine"} if method == "PATCH" else body
        foreign, unknown = call(method, theirs, body), call(method, nothing, body)
        assert foreign.status == unknown.status == 404, f"{method} {theirs}: {foreign.status} {foreign.json}"
        first, second = (re.sub(r"\d+|gamma|delta", "N", str(answer.json)) for answer in (foreign, unknown))
        assert first == second, theirs
    assert everything() == before


def test_no_list_shows_what_is_the_others(app: Flask, client: Client, two: Two) -> None:
    client.login_as(two.li)
    call = caller(client, two.li)
    for rule in app.url_map.iter_rules():
        policy = policy_of(app, rule.endpoint)
        if rule.arguments or "GET" not in (rule.methods or set()) or policy not in {"user", "token"}:
            continue
        if policy == "token":
            bodies = [str(call.get(rule.rule.removeprefix("/api/v1")).json)]
        else:
            bodies = [client.get(rule.rule, htmx=htmx).body for htmx in (False, True)]
        for secret in HUSH:
            assert all(secret not in body for body in bodies), f"{rule} shows {secret}"


def _same(foreign: Page, unknown: Page) -> bool:
    """Whether two refusals say the same, but for the name or number that was asked for."""
    found = [page.text if page.tree is not None else page.body for page in (foreign, unknown)]
    for name, value in NOTHING.items():
        if isinstance(value, str):
            found[0] = found[0].replace({"name": "gamma", "snapshot": SNAPSHOT, "username": "wang"}[name], value)
    first, second = (re.sub(r"\d+", "N", text) for text in found)
    return first == second
