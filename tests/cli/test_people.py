"""People, tokens and quota."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from app.config import Settings
from tests.cli.conftest import PASSWORD, Berth, actors


def test_people(berth: Berth) -> None:
    assert berth("user", "add", "boss", "--admin", "--password-stdin", stdin=f"{PASSWORD}\n").status == 0
    assert berth("user", "add", "liwei", "--password-stdin", "--hours", "5", stdin=PASSWORD).status == 0
    found = {user["username"]: user for user in berth("user", "list", "--json").json()}
    assert (found["boss"]["role"], found["liwei"]["role"]) == ("admin", "user")
    assert (found["boss"]["state"], found["liwei"]["free_hours"]) == ("active", 5.0)
    assert "liwei" in berth("user", "list").out
    for stdin in ("", "\n", "short\n"):
        refused = berth("user", "add", "other", "--password-stdin", stdin=stdin)
        assert (refused.status, refused.out) == (1, "")
    assert berth("user", "add", "liwei", "--password-stdin", stdin=PASSWORD).status == 1
    assert berth("user", "add", "other").status == 2


def test_who_waits_is_approved(berth: Berth, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        people = sa.text("INSERT INTO users (username, password_hash) VALUES ('chenyu', 'x'), ('amara', 'x')")
        connection.execute(people)
    assert berth("user", "approve", "chenyu", "--hours", "12").status == 0
    assert berth("user", "approve", "amara").status == 0
    found = {user["username"]: user for user in berth("user", "list", "--json").json()}
    assert [(found[name]["state"], found[name]["free_hours"]) for name in ("chenyu", "amara")] == [
        ("active", 12),
        ("active", 100),
    ]
    assert berth("user", "approve", "chenyu").status == 1
    assert berth("user", "approve", "nobody").status == 1


def test_a_token_alone_and_what_it_opens(lab: Berth, environment: Path, engine: sa.Engine) -> None:
    from app import create_app

    said = lab("token", "create", "liwei")
    assert (said.status, said.err) == (0, "")
    [token] = said.out.splitlines()
    client = create_app(Settings.load()).test_client()
    answer = client.get("/api/v1/quota", headers={"Authorization": f"Bearer {token}"})
    assert answer.json == {"granted": 100.0, "held": 0.0, "used": 0.0, "free": 100.0}
    assert lab("token", "create", "liwei", "--json").json()["scopes"] == ["read", "book"]
    assert lab("token", "create", "liwei", "--scope", "admin").status == 1
    assert lab("token", "create", "liwei", "--scope", "root").status == 2
    assert lab("token", "create", "nobody").status == 1
    assert actors(engine) == {"cli"}


def test_quota_is_added_and_taken(lab: Berth) -> None:
    taken = lab("quota", "grant", "liwei", "-30.5", "--json").json()
    assert taken == {"account": "liwei", "granted": -30.5, "free": 69.5}
    assert lab("quota", "grant", "nobody", "1").status == 1
    assert lab("quota", "grant", "liwei", "0").status == 1
    assert lab("quota", "grant", "liwei", "nan").status == 1
    assert lab("quota", "grant", "liwei", "inf").status == 1
    assert lab("quota", "grant", "liwei", "many").status == 2


def test_who_waits_is_listed(lab: Berth, engine: sa.Engine) -> None:
    assert lab("wait", "list").out == "Nobody waits.\n"
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO waits (user_id, seconds, starts_at, ends_at, by_itself, model) SELECT id, 7200, "
                "'2099-01-04 12:00Z', '2099-01-05 12:00Z', true, 'NVIDIA L40S' FROM users WHERE username = 'liwei'"
            )
        )
    [found] = lab("wait", "list", "--json").json()
    assert (found["user"], found["state"], found["hours"], found["model"]) == ("liwei", "waiting", 2, "NVIDIA L40S")
    assert "NVIDIA L40S" in lab("wait", "list").out
