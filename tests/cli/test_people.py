"""People, tokens and quota."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from app import clock
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
    wrong = berth("user", "add", "other", "--email", "nonsense", "--password-stdin", stdin=PASSWORD)
    assert (wrong.status, wrong.out) == (2, "")
    assert "'nonsense' is no address" in wrong.err
    right = berth("user", "add", "other", "--email", "o@example.org", "--password-stdin", stdin=PASSWORD)
    assert (right.status, right.out) == (0, "other can sign in.\n")


def test_the_first_month_is_the_labs_not_that_of_the_machine_at_which_it_is_typed(
    berth: Berth, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_TZ", "UTC")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE policies SET zone = 'Asia/Shanghai'"))
    with clock.frozen(datetime(2026, 11, 30, 20, tzinfo=UTC)):  # four o'clock on 1 December in the lab
        assert berth("user", "add", "liwei", "--password-stdin", "--hours", "5", stdin=PASSWORD).status == 0
    with engine.connect() as connection:
        [key] = connection.scalars(sa.text("SELECT key FROM ledger_entries WHERE key LIKE 'month:%'"))
        [renews] = connection.scalars(sa.text("SELECT renews_at FROM accounts WHERE name = 'liwei'"))
    assert key.endswith(":2026-12")
    assert renews == datetime(2026, 12, 31, 16, tzinfo=UTC)


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


def test_a_lost_password_is_replaced_also_the_only_admins(berth: Berth, environment: Path) -> None:
    from app import create_app

    def signs_in(name: str, password: str) -> bool:
        client = create_app(replace(Settings.load(), https=False)).test_client()
        page = client.get("/login").get_data(as_text=True)
        form = {"username": name, "password": password, "csrf_token": re.findall('csrf_token" value="([^"]+)', page)[0]}
        return client.post("/login", data=form).status_code == 303

    berth("user", "add", "boss", "--admin", "--password-stdin", stdin=PASSWORD)
    said = berth("user", "password", "boss")
    assert (said.status, said.err) == (0, "")
    [made] = said.out.splitlines()
    assert (signs_in("boss", made), signs_in("boss", PASSWORD)) == (True, False)
    said = berth("user", "password", "boss", "--password-stdin", stdin="a berth for the boss\n")
    assert (said.status, said.out) == (1, ""), "it holds the username"
    said = berth("user", "password", "boss", "--password-stdin", stdin="a berth for me alone\n")
    assert (said.status, said.out) == (0, "boss has a new password.\n")
    assert (signs_in("boss", "a berth for me alone"), signs_in("boss", made)) == (True, False)
    for name in ("nobody", "", "-"):
        refused = berth("user", "password", "--", name)
        assert (refused.status, refused.out) == (1, "")
    empty = berth("user", "password", "boss", "--password-stdin")
    assert (empty.status, "berth user password" in empty.err) == (1, True)
