"""NVIDIA's libraries on a machine's page: how they come, whether they fit, and a button to have the host's."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from app import clock
from app.extensions import db
from app.models import Host, Instance, InstanceStatus, User
from app.services import operations
from tests.factories import make_admin, make_host, make_instance, make_template, make_user
from tests.page import Client

BUTTON = "Give it the host's libraries"
MOUNT = {"way": "mount", "why": "no_tools", "version": "550.54.14"}
HERE = {"nvidia-lib": "disk path=/usr/local/nvidia readonly=true source=/x"}
ROOT = {"root": "disk path=/ pool=pool"}


def seen(config: dict[str, str] | None = None, devices: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"config": config or {}, "devices": ROOT | (devices or {}), **more}


@pytest.fixture
def lab(app: Flask) -> Host:
    return make_host("lab03", seen_at=clock.now(), libraries_seen=MOUNT, driver_version="550.54.14")


@pytest.fixture
def machine(client: Client, lab: Host) -> Instance:
    """Li Wei's, and he is signed in."""
    user = make_user("liwei")
    made = make_instance(user, lab, "gamma", observed=seen())
    client.login_as(user)
    return made


@pytest.mark.parametrize("who", ["owner", "admin"])
def test_its_owner_and_admins_have_it_given_the_hosts(
    client: Client, machine: Instance, woken: list[str], who: str
) -> None:
    if who == "admin":
        client.login_as(make_admin("boss"))
    page = client.get("/machines/gamma")
    assert "none of the host's (550.54.14)" in page.text
    answer = client.submit(page.form(BUTTON))
    assert (answer.status, answer.location, woken) == (303, "/machines/gamma", ["lab03"])
    operation = operations.last(machine.id)
    assert operation is not None
    assert operation.kind == "libraries"
    busy = client.get("/machines/gamma")
    assert "Being given NVIDIA's libraries" in busy.text
    assert BUTTON not in busy.buttons()
    assert client.post("/machines/gamma/libraries").status == 409, "one at a time"


@pytest.mark.parametrize(("due", "said"), [(False, "gamma has the host's"), (True, "from its next start on")])
def test_it_says_aloud_whether_they_are_there(
    client: Client, machine: Instance, woken: list[str], due: bool, said: str
) -> None:
    client.post("/machines/gamma/libraries")
    operation = operations.last(machine.id)
    assert operation is not None
    operations.remember(operation.id, due=due)
    operations.finish(operation.id, "agent:lab03")
    db.session.commit()
    assert said in client.get("/machines/gamma", headers={"HX-Request": "true"}).text


DUE = {"user.berth.libraries": "true"}
RUNTIME = {"nvidia.runtime": "true"}


@pytest.mark.parametrize(
    ("observed", "brought", "line", "button", "restart"),
    [
        (
            seen(devices=HERE),
            MOUNT,
            "the host's 550.54.14, mounted read-only · They fit the host's driver.",
            False,
            False,
        ),
        (
            seen(devices=HERE),
            MOUNT | {"version": "535.1.2"},
            "535.1.2, mounted read-only · They do not fit",
            False,
            False,
        ),
        (seen(devices=HERE), MOUNT | {"way": "install", "why": "no_files"}, "of an earlier driver", False, False),
        (seen(RUNTIME), MOUNT | {"way": "nvidia.runtime"}, "by nvidia.runtime at each start · They fit", False, False),
        (seen(RUNTIME | DUE), MOUNT | {"way": "nvidia.runtime"}, "from its next start on", False, True),
        (seen(), MOUNT | {"way": "nvidia.runtime"}, "none of the host's", True, False),
        (seen(), MOUNT | {"way": "install"}, "need those of 550.54.14 in it", False, False),
        (seen(privileged=True), MOUNT, "none of the host's", False, False),
    ],
)
def test_how_they_come(
    client: Client,
    lab: Host,
    machine: Instance,
    observed: dict[str, Any],
    brought: dict[str, str],
    line: str,
    button: bool,
    restart: bool,
) -> None:
    machine.observed, lab.libraries_seen = observed, brought
    db.session.commit()
    page = client.get("/machines/gamma")
    assert line in " ".join(page.text.split())
    assert (BUTTON in page.buttons()) == button
    assert ("Restart it, and NVIDIA's libraries are there." in page.text) == restart


@pytest.mark.parametrize(("version", "fits"), [("550.54.14", True), ("535.1.2", False)])
def test_its_own_from_its_template(client: Client, lab: Host, machine: Instance, version: str, fits: bool) -> None:
    machine.template_id = make_template(lab, driver_version=version).id
    db.session.commit()
    page = client.get("/machines/gamma")
    assert f"its own, {version} from its template" in page.text
    assert ("They fit the host's driver." in page.text) == fits
    assert BUTTON in page.buttons()


def test_nothing_is_said_of_what_nobody_has_looked_at(client: Client, lab: Host, machine: Instance) -> None:
    for observed, brought in (({}, MOUNT), (seen(), {}), (seen(), MOUNT | {"version": ""})):
        machine.observed, lab.libraries_seen = observed, brought
        db.session.commit()
        page = client.get("/machines/gamma")
        assert "NVIDIA libraries" not in page.text
        assert BUTTON not in page.buttons()


def test_what_was_refused_is_said_on_its_page(client: Client, lab: Host, machine: Instance) -> None:
    lab.libraries_seen = MOUNT | {"way": "install"}
    db.session.commit()
    refused = client.post("/machines/gamma/libraries")
    assert refused.status == 409
    assert "lab03 brings no NVIDIA libraries into machines." in refused.text
    lab.libraries_seen, machine.status = MOUNT, InstanceStatus.FROZEN
    db.session.commit()
    page = client.get("/machines/gamma")
    assert BUTTON not in page.buttons()
    assert client.post("/machines/gamma/libraries").status == 409


def test_nobody_elses(client: Client, machine: Instance) -> None:
    stranger: User = make_user("zhao")
    client.login_as(stranger)
    assert client.post("/machines/gamma/libraries").status == 404
    assert operations.last(machine.id) is None
