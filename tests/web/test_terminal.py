"""The terminal's page and its tickets: whose, from where, and what the page may reach."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import Host, Instance, InstanceStatus, Terminal
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.page import Client

HERE = {"Origin": "http://localhost"}


@pytest.fixture
def host(client: Client) -> Host:
    return make_host("ws1", seen_at=clock.now(), terminal_url="ws://127.0.0.1:8790")


@pytest.fixture
def mine(client: Client, host: Host) -> Instance:
    user = make_user("li")
    client.login_as(user)
    return make_instance(user, host, "mine")


def csp(client: Client, path: str) -> dict[str, str]:
    rules = client.get(path).headers["Content-Security-Policy"].split("; ")
    return {name: rest for name, _, rest in (rule.partition(" ") for rule in rules)}


def test_only_this_page_may_reach_the_agent_and_nothing_else(client: Client, mine: Instance) -> None:
    usual, here = csp(client, "/machines/mine"), csp(client, "/machines/mine/terminal")
    assert here["connect-src"] == "'self' ws://127.0.0.1:8790"
    assert here["style-src"].startswith("'self' 'nonce-")
    assert here["style-src"] != csp(client, "/machines/mine/terminal")["style-src"]
    assert {name for name in usual if usual[name] != here[name]} == {"connect-src", "style-src"}
    assert "unsafe" not in str(here)
    assert client.get("/machines/mine").link("Terminal in the browser") == "/machines/mine/terminal"


def test_a_ticket_names_machine_sign_in_and_origin(client: Client, mine: Instance) -> None:
    answer = client.post("/machines/mine/terminal/ticket", headers=HERE)
    assert answer.status == 200
    key = answer.response.get_json()["ticket"]
    row = db.session.scalars(db.select(Terminal)).one()
    assert (row.instance_id, row.origin, row.opened_at) == (mine.id, "http://localhost", None)
    assert len(key) == 43
    assert key not in row.ticket_hash


def test_nobody_gets_one_for_anothers_machine(client: Client, host: Host, mine: Instance) -> None:
    make_instance(make_user("wang"), host, "theirs")
    assert client.get("/machines/theirs/terminal").status == 404
    assert client.post("/machines/theirs/terminal/ticket", headers=HERE).status == 404
    assert client.post("/machines/mine/terminal/ticket").status == 422, "a request that names no page"
    assert client.post("/machines/mine/terminal/ticket", headers={"Origin": "https://evil.example"}).status == 403
    assert client.post("/machines/mine/terminal/ticket", {"csrf_token": ""}, headers=HERE).status == 400
    assert db.session.scalars(db.select(Terminal)).all() == []


def test_an_admin_is_told_that_it_is_on_record(client: Client, mine: Instance) -> None:
    client.login_as(make_admin("boss"))
    assert "is on record and stands on its page" in client.get("/machines/mine/terminal").text
    assert client.post("/machines/mine/terminal/ticket", headers=HERE).status == 200


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"terminal_url": ""}, "ws1 does not serve terminals yet."),
        ({"terminal_url": "ws://x; script-src *"}, "ws1 does not serve terminals yet."),
        ({"seen_at": None}, "ws1 has not reported yet."),
        ({"status": InstanceStatus.STOPPED}, "mine does not run. Start it first."),
    ],
)
def test_why_there_is_none_now(client: Client, host: Host, mine: Instance, what: dict[str, object], said: str) -> None:
    for name, value in what.items():
        setattr(mine if name == "status" else host, name, value)
    db.session.commit()
    page = client.get("/machines/mine/terminal")
    assert said in page.text
    assert not page.all("//*[@id='terminal']")
    assert "nonce" not in page.headers["Content-Security-Policy"]
    assert client.post("/machines/mine/terminal/ticket", headers=HERE).status == 409


def test_sixth_at_once_is_refused(client: Client, mine: Instance) -> None:
    answers = [client.post("/machines/mine/terminal/ticket", headers=HERE).status for _ in range(6)]
    assert answers == [200] * 5 + [422]
    db.session.execute(db.update(Terminal).values(created_at=clock.now() - timedelta(seconds=31)))
    db.session.commit()
    assert client.post("/machines/mine/terminal/ticket", headers=HERE).status == 200
