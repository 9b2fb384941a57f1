"""The page of a machine's backup: asked for, sent to the agent with a ticket, removed; and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import Backup, Download, Host, Instance, InstanceStatus, OperationKind, User
from app.services import operations
from app.web import machine_words
from tests.factories import make_host, make_instance, make_user
from tests.page import Client
from workers.works import HANDLERS

AT = datetime(2026, 11, 3, 14, 0, tzinfo=UTC).timestamp()
SEEN = {"snapshots": [{"name": "hand-1", "at": AT, "size": None}]}


@pytest.fixture
def host(client: Client, woken: list[str]) -> Host:
    return make_host("lab03", seen_at=clock.now(), terminal_url="ws://127.0.0.1:8790/lab03")


@pytest.fixture
def liwei(client: Client) -> User:
    user = make_user("liwei")
    client.login_as(user)
    return user


@pytest.fixture
def machine(liwei: User, host: Host) -> Instance:
    return make_instance(liwei, host, "gamma", observed=SEEN)


def make_ready(machine: Instance, **values: object) -> Backup:
    now = clock.now()
    known = {"size": 3 << 30, "ready_at": now, "expires_at": now + timedelta(hours=24)} | values
    backup = Backup(instance_id=machine.id, host_id=machine.host_id, **known)
    db.session.add(backup)
    db.session.commit()
    return backup


def rows() -> list[tuple[str, bool]]:
    query = db.select(Backup).order_by(Backup.id).execution_options(populate_existing=True)
    return [(row.snapshot, row.removed_at is None) for row in db.session.scalars(query)]


def test_one_is_asked_for_and_takes_the_place_of_the_last(client: Client, machine: Instance, woken: list[str]) -> None:
    form = client.get(client.get("/machines/gamma").link("Backup")).form("Make a backup")
    assert client.submit(form).location == "/machines/gamma"
    assert (rows(), woken) == ([("", True)], ["lab03"])
    operation = operations.last(machine.id)
    assert operation.kind == OperationKind.BACKUP
    operations.progress(operation.id, "packing", 40)
    shown = client.get("/machines/gamma").text
    assert "Being backed up" in shown
    assert "Packing its disk into a file, 40 %" in shown
    assert "Work on it is under way." in client.get("/machines/gamma/backup").text
    assert client.post("/machines/gamma/backup").status == 409
    assert rows() == [("", True)], "what is being made stays"
    operations.remember(operation.id, size=5 << 20)
    operations.finish(operation.id, "agent:lab03")
    page = client.get("/machines/gamma/backup")
    assert "5.0 MiB" in page.text
    form = page.form("Make another one in its place").fill(**{"What it holds": "hand-1"})
    client.submit(form)
    assert rows() == [("", False), ("hand-1", True)]
    operations.finish(operations.last(machine.id).id, "agent:lab03", "no room")
    assert rows()[-1] == ("hand-1", False)
    assert "The backup could not be made." in client.get("/machines/gamma").text
    assert client.post("/machines/gamma/backup", {"snapshot": "hand-9"}).status == 404


def test_the_download_leads_to_the_agent_with_a_ticket(client: Client, machine: Instance) -> None:
    make_ready(machine)
    page = client.get("/machines/gamma/backup")
    assert "form-action 'self' http://127.0.0.1:8790/lab03;" in page.headers["Content-Security-Policy"]
    answer = client.submit(page.form("Download"))
    start, _, key = answer.location.partition("?backup=")
    assert (answer.status, start, len(key)) == (303, "http://127.0.0.1:8790/lab03", 43)
    row = db.session.scalars(db.select(Download)).one()
    assert (row.opened_at, row.sign_in_id is None) == (None, False)
    assert key not in row.ticket_hash
    assert client.submit(page.form("Remove it now")).location == "/machines/gamma/backup"
    assert rows() == [("", False)]
    assert client.post("/machines/gamma/backup/file").status == 409


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"terminal_url": ""}, "lab03 hands out no files yet."),
        ({"terminal_url": "ws://x; script-src *"}, "lab03 hands out no files yet."),
        ({"seen_at": None}, "lab03 has not reported yet."),
    ],
)
def test_why_it_cannot_be_downloaded_now(
    client: Client, host: Host, machine: Instance, what: dict[str, object], said: str
) -> None:
    make_ready(machine)
    for name, value in what.items():
        setattr(host, name, value)
    page = client.get("/machines/gamma/backup")
    assert said in page.text
    assert "Download" not in page.buttons()
    assert "form-action 'self';" in page.headers["Content-Security-Policy"]
    assert client.post("/machines/gamma/backup/file").status == 409


def test_what_is_over_or_cannot_be(client: Client, machine: Instance) -> None:
    make_ready(machine, expires_at=clock.now() - timedelta(seconds=1))
    assert "Download" not in client.get("/machines/gamma/backup").buttons()
    assert client.post("/machines/gamma/backup/file").status == 409
    machine.status = InstanceStatus.MISSING
    assert "No backup can be made of it now." in client.get("/machines/gamma/backup").text
    assert client.post("/machines/gamma/backup").status == 409


def test_every_kind_of_work_on_a_machine_has_its_words_and_somebody_who_does_it() -> None:
    kinds = set(OperationKind)
    of_templates = {OperationKind.BUILD, OperationKind.DISCARD}
    for words in (machine_words.UNDER_WAY, machine_words.FAILED, machine_words.DONE):
        assert set(words) == kinds - of_templates
    assert set(HANDLERS) == kinds
