"""The workstation's own desktop: an admin's to offer and to download, on record, and never somebody's machine."""

from __future__ import annotations

import pytest

from app import clock
from app.extensions import db
from app.models import AuditEvent, Host
from app.services import desktops, ports
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.page import Client


@pytest.fixture
def host(client: Client, woken: list[str]) -> Host:
    return make_host("lab03", address="lab03.example.org", seen_at=clock.now())


@pytest.fixture
def admin(client: Client, host: Host) -> Client:
    return client.login_as(make_admin("boss"))


def on_record(action: str) -> list[tuple[str, str, object]]:
    query = db.select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)
    return [(event.actor, event.target, event.details["port"]) for event in db.session.scalars(query)]


def test_an_admin_offers_it_and_downloads_its_file(admin: Client, host: Host, woken: list[str]) -> None:
    page = admin.get("/hosts/lab03")
    assert "apt install xrdp" in page.text
    assert "Download RDP file (.rdp)" not in page.buttons()
    answer = admin.submit(page.form("Offer it to admins"))
    assert (answer.location, woken) == ("/hosts/lab03#desktop", ["lab03"])
    assert "Not tried yet" in admin.get("/hosts/lab03").text
    file = admin.submit(admin.get("/hosts/lab03").form("Download RDP file (.rdp)"))
    assert file.headers["Content-Disposition"] == 'attachment; filename="lab03.rdp"'
    lines = file.body.split("\r\n")
    assert lines[0] == "full address:s:lab03.example.org:3389"
    assert not [line for line in lines if line.startswith("username")], "whose account it is, Berth does not know"
    assert on_record("host.desktop.file") == [("boss", "host:lab03", 3389)]
    admin.submit(admin.get("/hosts/lab03").form("Offer it no more"))
    assert admin.post("/hosts/lab03/desktop/file").status == 409
    assert on_record("host.desktop") == [("boss", "host:lab03", 3389), ("boss", "host:lab03", None)]


@pytest.mark.parametrize(
    ("answer", "said", "watched"),
    [("", "Answers", False), ("refused", "Nobody listens at its port.", True), ("<b>", "Does not answer", True)],
)
def test_whether_it_answers_is_shown(admin: Client, host: Host, answer: str, said: str, watched: bool) -> None:
    desktops.offer("test", host, 3389)
    desktops.note(host, answer)
    page = admin.get("/hosts/lab03")
    assert said in page.texts("//section[@id='desktop']")[0]
    assert bool(page.all("//section[@id='desktop'][@hx-get]")) == watched
    assert said in admin.get("/hosts/lab03/desktop", htmx=True).text
    assert admin.get("/hosts/lab03/desktop").h1 == "Desktop of lab03"


@pytest.mark.parametrize("port", ["", "0", "70000", "x", "22500", "23001"])
def test_a_port_that_leads_into_a_machine_is_none(admin: Client, host: Host, port: str) -> None:
    host.first_port, host.last_port = 23000, 23001
    ports.reserve(make_instance(make_user("liwei"), host, "gamma"), host)
    host.first_port, host.last_port = 22000, 22999
    page = admin.post("/hosts/lab03/desktop", {"port": port})
    assert page.status == 422
    assert page.texts("//*[@id='port-error']")
    db.session.expire_all()
    assert host.desktop_port is None


def test_no_machine_gets_its_port(admin: Client, host: Host) -> None:
    desktops.offer("test", host, 3389)
    host.first_port, host.last_port = 3388, 3391
    made = ports.reserve(make_instance(make_user("liwei"), host, "gamma"), host)
    assert sorted(port.number for port in made.values()) == [3388, 3390]


def test_it_is_for_admins(client: Client, host: Host) -> None:
    desktops.offer("test", host, 3389)
    client.login_as(make_user("liwei"))
    assert client.get("/hosts/lab03/desktop").status == 403
    assert client.post("/hosts/lab03/desktop/file").status == 403
    assert client.post("/hosts/nowhere/desktop/file").status == 403
    assert on_record("host.desktop.file") == []
