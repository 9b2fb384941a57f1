"""What an admin does to somebody's machine stands on its owner's page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import Backup, Host, Instance, Operation, OperationState, TemplateKind, TemplateState, User
from app.services import audit, backups, signins, ssh_keys, templates, visits
from app.web import survey_words
from tests.factories import make_admin, make_host, make_instance, make_template, make_user
from tests.page import Client
from tests.services.test_ssh_keys import GOOD

HEADING = "What others did here in the last 30 days"


@pytest.fixture
def owner(client: Client) -> User:
    return make_user("liwei")


@pytest.fixture
def host(client: Client) -> Host:
    return make_host("lab03", seen_at=clock.now(), member="m3", cluster="c1")


@pytest.fixture
def machine(owner: User, host: Host) -> Instance:
    return make_instance(owner, host, "gamma", created_at=clock.now() - timedelta(days=90))


def lines(client: Client, owner: User, name: str = "gamma") -> list[str]:
    page = client.login_as(owner).get(f"/machines/{name}")
    return [line.partition(": ")[2] for line in page.texts(f"//section[h2='{HEADING}']//li")]


def test_a_terminal_a_log_and_a_stop_are_told_to_the_owner_and_their_own_are_not(
    client: Client, owner: User, machine: Instance
) -> None:
    audit.record("boss", "terminal.opened", "instance:gamma", terminal=1)
    audit.record("liwei", "terminal.opened", "instance:gamma", terminal=2)
    audit.record("boss", "terminal.opened", "instance:delta", terminal=3)
    audit.record("agent:lab03", "instance.start.done", "instance:gamma")
    audit.record("system", "instance.start.asked", "instance:gamma")
    audit.record("boss", "instance.read", "instance:gamma", host="lab09", what="log")  # another one of that name
    client.login_as(make_admin("boss"))
    client.submit(client.get("/admin/machines/lab03/gamma").form("Read LXD's log"))
    client.submit(client.get("/machines/gamma/stop").form("Stop"))
    told = ["boss stopped it", "boss read a log of it", "boss opened a terminal in it, as root"]
    assert lines(client, owner) == told
    machine.host_id = make_host("lab04").id
    assert lines(client, owner) == told, "a move takes nothing away"


def test_each_thing_that_an_admin_can_do_to_a_machine_has_its_words(
    client: Client, owner: User, machine: Instance, woken: list[str]
) -> None:
    make_host("lab04", member="m4", cluster="c1", seen_at=clock.now())
    machine.observed = {"snapshots": [{"name": "hand-1", "at": clock.now().timestamp(), "size": None}]}

    def done() -> None:
        db.session.execute(db.update(Operation).values(state=OperationState.DONE))

    def send(page: str, button: str, **values: str) -> None:
        done()
        answer = client.submit(client.get(f"/machines/gamma/{page}").form(button).fill(**values))
        assert answer.status == 303, answer.text

    client.login_as(make_admin("boss"))
    send("backup", "Make a backup")
    send("snapshots", "Make a snapshot now")
    send("snapshots/hand-1/remove", "Delete the snapshot")
    send("snapshots", "Save schedule", **{"Make one by itself": "daily"})
    send("care", "Leave it stopped")
    send("move", "Move")
    done()
    form = client.get("/templates/new/machine").form("Build template").fill(Name="mine", Machine="gamma")
    assert client.submit(form).status == 303
    assert lines(client, owner) == [
        "boss made a template of it, with all its files",
        "boss moved it to another host",
        "boss changed whether it starts by itself",
        "boss changed the schedule of its snapshots",
        "boss deleted a snapshot of it",
        "boss made a snapshot of it",
        "boss had a backup of it made",
    ]


def test_whoever_takes_its_disk_away_or_lets_somebody_in_is_told(
    client: Client, owner: User, host: Host, machine: Instance
) -> None:
    until = clock.now() + timedelta(hours=1)
    db.session.add(Backup(instance_id=machine.id, host_id=host.id, ready_at=clock.now(), expires_at=until, size=1))
    sign_ins = [signins.find(signins.begin(person)) for person in (make_admin("boss"), owner)]
    for sign_in in (*sign_ins, None):
        assert backups.redeem(host, backups.ticket(sign_in, machine)) is not None
    ssh_keys.add("cli", owner, GOOD)
    audit.record("liwei", "ssh_key.added", "user:liwei")
    template = make_template(host, "mine", kind=TemplateKind.INSTANCE, source="gamma", state=TemplateState.FAILED)
    stranger = make_template(host, "theirs", kind=TemplateKind.INSTANCE, source="byhand", state=TemplateState.FAILED)
    ada = make_admin("ada")
    for one in (template, stranger):
        templates.retry(ada, one)
    assert lines(client, owner) == [
        "ada made a template of it, with all its files",
        "somebody at the command line added an SSH key that lets into it",
        "somebody at the command line downloaded a backup of it",
        "boss downloaded a backup of it",
    ]


def test_whatever_is_told_has_words() -> None:
    assert {*visits.ACTIONS, visits.KEY} == set(survey_words.DEEDS)


def test_what_is_done_each_night_pushes_nothing_else_out(client: Client, owner: User, machine: Instance) -> None:
    audit.record("boss", "terminal.opened", "instance:gamma", terminal=1)
    for _night in range(30):
        audit.record("cli", "instance.backup.asked", "instance:gamma")
    assert lines(client, owner) == [
        "somebody at the command line had a backup of it made (the last of 30 times)",
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
