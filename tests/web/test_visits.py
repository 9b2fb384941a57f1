"""What an admin does to somebody's machine stands on its owner's page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import Host, Instance, User
from app.services import audit
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.page import Client

HEADING = "What others did here in the last 30 days"


@pytest.fixture
def owner(client: Client) -> User:
    return make_user("liwei")


@pytest.fixture
def machine(owner: User) -> Instance:
    host: Host = make_host("lab03", seen_at=clock.now())
    return make_instance(owner, host, "gamma", created_at=clock.now() - timedelta(days=90))


def lines(client: Client, owner: User) -> list[str]:
    page = client.login_as(owner).get("/machines/gamma")
    return [line.partition(": ")[2] for line in page.texts(f"//section[h2='{HEADING}']//li")]


def test_a_terminal_a_log_and_a_stop_are_told_to_the_owner_and_their_own_are_not(
    client: Client, owner: User, machine: Instance
) -> None:
    audit.record("boss", "terminal.opened", "instance:gamma", terminal=1)
    audit.record("liwei", "terminal.opened", "instance:gamma", terminal=2)
    audit.record("boss", "terminal.opened", "instance:delta", terminal=3)
    audit.record("agent:lab03", "instance.start.done", "instance:gamma")
    audit.record("cli", "instance.restart.asked", "instance:gamma")
    audit.record("system", "instance.start.asked", "instance:gamma")
    audit.record("boss", "instance.read", "instance:gamma", host="lab09", what="log")  # another one of that name
    client.login_as(make_admin("boss"))
    client.submit(client.get("/admin/machines/lab03/gamma").form("Read LXD's log"))
    client.submit(client.get("/machines/gamma/stop").form("Stop"))
    assert lines(client, owner) == [
        "boss stopped it",
        "boss read a log of it",
        "somebody at the command line restarted it",
        "boss opened a terminal in it, as root",
    ]


def test_without_visits_there_is_no_heading_and_old_ones_are_forgotten(
    client: Client, owner: User, machine: Instance, freeze: Callable[[datetime], None]
) -> None:
    assert HEADING not in client.login_as(owner).get("/machines/gamma").text
    audit.record("boss", "terminal.opened", "instance:gamma", terminal=1)
    db.session.commit()
    assert lines(client, owner) == ["boss opened a terminal in it, as root"]
    freeze(clock.now() + timedelta(days=31))
    assert HEADING not in client.login_as(owner).get("/machines/gamma").text


def test_what_was_done_to_an_earlier_machine_of_that_name_is_not_told(
    client: Client, owner: User, machine: Instance
) -> None:
    audit.record("boss", "terminal.opened", "instance:gamma", terminal=1)
    machine.created_at = clock.now() + timedelta(seconds=1)
    db.session.commit()
    assert lines(client, owner) == []


def test_a_new_name_hides_nothing_and_tells_nothing_of_who_has_the_old_one(
    client: Client, owner: User, machine: Instance
) -> None:
    audit.record("eve", "terminal.opened", "instance:beta", terminal=1)  # whoever had the name before
    audit.record("liwei", "instance.renamed", "instance:beta", old="alpha")
    audit.record("boss", "instance.stop.asked", "instance:beta")
    audit.record("boss", "instance.renamed", "instance:gamma", old="beta")
    audit.record("boss", "terminal.opened", "instance:beta", terminal=2)  # whoever has it now
    db.session.commit()
    assert lines(client, owner) == ["boss renamed it", "boss stopped it"]
