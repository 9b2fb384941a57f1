"""Snapshots as a page: made, put back, deleted, by schedule; never more than the rules allow."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from app import clock
from app.extensions import db
from app.models import Instance, OperationKind
from app.services import operations
from tests.factories import make_host, make_instance, make_user
from tests.page import Client

AT = datetime(2026, 11, 3, 14, 0, tzinfo=UTC).timestamp()


@pytest.fixture
def machine(client: Client, woken: list[str]) -> Instance:
    user = make_user("liwei")
    made = make_instance(user, make_host("lab03", seen_at=clock.now()), "gamma", observed=has("hand-1", "auto-2"))
    client.login_as(user)
    return made


def has(*names: str) -> dict[str, object]:
    return {"snapshots": [{"name": name, "at": AT + n, "size": 12 << 20} for n, name in enumerate(names)]}


def last(machine: Instance):
    found = operations.last(machine.id)
    return (found.kind, found.details) if found else None


def test_they_are_listed_the_newest_first_with_what_is_known(client: Client, machine: Instance) -> None:
    page = client.get(client.get("/machines/gamma").link("Snapshots (2)"))
    rows = page.texts("//tbody/tr")
    assert ["By schedule" in rows[0], "By hand" in rows[1]] == [True, True]
    assert "0.01 GiB" in rows[0]
    assert "(5 at most)" in page.text


def test_one_is_made_under_a_name_of_ours(client: Client, machine: Instance, woken: list[str]) -> None:
    answer = client.submit(client.get("/machines/gamma/snapshots").form("Make a snapshot now"))
    assert (answer.location, woken) == ("/machines/gamma", ["lab03"])
    kind, details = last(machine)
    assert kind == OperationKind.SNAPSHOT
    assert re.fullmatch(r"hand-\d{8}-\d{6}", details["snapshot"])
    page = client.get("/machines/gamma/snapshots")
    assert "Other work on it is under way." in page.text
    assert client.post("/machines/gamma/snapshots").status == 409


def test_no_more_than_the_rules_allow(client: Client, machine: Instance) -> None:
    machine.observed = has(*(f"hand-{n}" for n in range(5)))
    db.session.commit()
    assert "Make a snapshot now" not in client.get("/machines/gamma/snapshots").buttons()
    page = client.post("/machines/gamma/snapshots")
    assert (page.status, last(machine)) == (422, None)
    assert "5 snapshots at most" in page.text


def test_putting_back_and_deleting_say_what_is_lost(client: Client, machine: Instance) -> None:
    page = client.get("/machines/gamma/snapshots/hand-1/restore")
    assert "Everything that changed on its disk since then is lost." in page.text
    assert "No GPU comes back with it" in page.text
    assert "The password in it is again the one of that time" in page.text
    client.submit(page.form("Put it back"))
    assert last(machine) == (OperationKind.RESTORE, {"snapshot": "hand-1", "ran": True})
    operations.finish(operations.last(machine.id).id, "agent:lab03")
    db.session.commit()
    client.submit(client.get("/machines/gamma/snapshots/auto-2/remove").form("Delete the snapshot"))
    assert last(machine) == (OperationKind.FORGET, {"snapshot": "auto-2"})


@pytest.mark.parametrize("driver", ["zfs", "btrfs"])
def test_where_only_the_newest_can_be_put_back_it_is_said_before(
    client: Client, machine: Instance, driver: str
) -> None:
    machine.observed = has("hand-1", "auto-2") | {"pool_driver": driver}
    db.session.commit()
    page = client.get("/machines/gamma/snapshots")
    links = page.texts("//a[starts-with(., 'Put back')]")
    assert len(links) == (1 if driver == "zfs" else 2)
    assert ("only be put back to its newest snapshot" in page.text) == (driver == "zfs")
    older, newest = (client.get(f"/machines/gamma/snapshots/{name}/restore") for name in ("hand-1", "auto-2"))
    assert (older.status, newest.status) == (422 if driver == "zfs" else 200, 200)
    answer = client.post("/machines/gamma/snapshots/hand-1/restore")
    assert answer.status == (422 if driver == "zfs" else 303)
    assert ("Delete those first, or download a backup" in older.text) == (driver == "zfs")
    assert last(machine) == (None if driver == "zfs" else (OperationKind.RESTORE, {"snapshot": "hand-1", "ran": True}))


@pytest.mark.parametrize("name", ["hand-9", "..", "%2e%2e%2fetc", "a b"])
def test_only_one_that_it_has(client: Client, machine: Instance, name: str) -> None:
    for what in ("restore", "remove"):
        url = f"/machines/gamma/snapshots/{name}/{what}"
        assert (client.get(url).status, client.post(url).status) == (404, 404)
    assert last(machine) is None


def test_the_schedule(client: Client, machine: Instance) -> None:
    form = client.get("/machines/gamma/snapshots").form("Save schedule")
    client.submit(form.fill(**{"Make one by itself": "daily", "Keep the newest": 4}))
    db.session.expire_all()
    assert (machine.schedule, machine.keep) == ("daily", 4)
    for fields in ({"schedule": "hourly", "keep": "1"}, {"schedule": "daily", "keep": "6"}, {"schedule": "daily"}):
        page = client.post("/machines/gamma/snapshots/schedule", fields)
        assert page.status == 422
        assert page.texts("//*[contains(@class, 'error')]")
    db.session.expire_all()
    assert (machine.schedule, machine.keep) == ("daily", 4)
