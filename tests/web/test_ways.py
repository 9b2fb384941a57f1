"""The ways into a machine through the pages and the API: what is offered, to whom, and what is in the files."""

from __future__ import annotations

import pytest
from flask import Flask
from passlib.hash import sha512_crypt

from app.extensions import db
from app.models import Host, Instance, InstanceStatus, Operation, OperationKind, User
from app.services import operations, ports, shares, ssh_keys, unix_ids
from app.services.shares import Terms
from app.web.rdp import rdp_file
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.page import Client
from tests.services.test_ssh_keys import GOOD
from tests.web.caller import caller

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGCQcJMpJvnZXo768L78WLI0oNDif+furp1W/yB68l/O"
HEALTH = {"account": "ok", "missing": [], "ssh": "", "rdp": "closed", "host_keys": [HOST_KEY]}
CONFIG = """\
Host gamma
    HostName lab03.example.org
    Port 22000
    User liwei
    HostKeyAlias berth-gamma
    StrictHostKeyChecking yes
    ForwardAgent no
    ForwardX11 no
"""


@pytest.fixture
def liwei(app: Flask) -> User:
    return make_user("liwei")


@pytest.fixture
def machine(liwei: User) -> Instance:
    host = make_host("lab03", address="lab03.example.org")
    made = make_instance(liwei, host, "gamma", health=dict(HEALTH))
    ports.reserve(made, host)
    return made


def with_health(machine: Instance, **values: object) -> None:
    machine.health = machine.health | values
    db.session.flush()


def test_the_page_has_what_one_pastes(client: Client, liwei: User, machine: Instance) -> None:
    ssh_keys.add("test", liwei, GOOD)
    page = client.login_as(liwei).get("/machines/gamma")
    assert page.all("//*[@id='ssh-command']/@value") == ["ssh -p 22000 liwei@lab03.example.org"]
    assert str(page.all("//*[@id='ssh-config']")[0].text) == CONFIG
    assert page.all("//*[@id='known-hosts']/@value") == [f"berth-gamma {HOST_KEY}"]
    assert ssh_keys.fingerprint(HOST_KEY) in page.text
    assert {"Copy SSH command", "Make a new password", "Mend"} <= set(page.buttons())
    helps = ["Windows", "macOS", "Linux", "VS Code", "It answers here, but not to you"]
    assert page.texts("//details/summary")[-5:] == helps
    assert "Answers SSH, port 22000" in page.text
    assert "Download RDP file (.rdp)" not in page.links(), "this one has no desktop"
    assert "First, your SSH key" not in page.text
    assert "Berth knows of none. If a snapshot was put back, the password of that time counts again." in page.text


def test_shared_directories_are_named_and_whose_number_they_have(
    client: Client, liwei: User, machine: Instance
) -> None:
    host = db.session.get_one(Host, machine.host_id)
    assert "Shared directories" not in client.login_as(liwei).get("/machines/gamma").text
    for terms in (
        Terms("homes", "/data/homes", "/srv/home", read_only=False, own=True),
        Terms("sets", "/data/sets", "/srv/sets"),
        Terms("theirs", "/data/theirs", "/srv/theirs", people=(make_user("wang"),)),
        Terms("off", "/data/off", "/srv/off"),
    ):
        share = shares.add("boss", host, terms)
        shares.record(share.id, (), "agent:lab03")
        shares.switch("boss", host, share, on=terms.name != "off")
    due = unix_ids.uid_of(liwei)
    for uid, said in ((None, False), (due, False), (1000, True)):
        with_health(machine, uid=uid)
        page = client.get("/machines/gamma")
        assert page.all("//dt/code[starts-with(., '/srv')]/text()") == ["/srv/home", "/srv/sets"]
        assert "your own, the same in all your machines on lab03" in page.text
        assert (f"has the number 1000; what is yours in these directories belongs to number {due}" in page.text) == said


def test_a_desktop_has_its_file(client: Client, liwei: User, machine: Instance) -> None:
    with_health(machine, rdp="")
    page = client.login_as(liwei).get("/machines/gamma")
    assert "lab03.example.org:22001" in page.text
    file = client.get(page.link("Download RDP file (.rdp)"))
    assert file.headers["Content-Disposition"] == 'attachment; filename="gamma.rdp"'
    assert (file.headers["X-Content-Type-Options"], file.headers["Cache-Control"]) == ("nosniff", "no-store")
    lines = file.body.split("\r\n")
    assert lines[:4] == [
        "full address:s:lab03.example.org:22001",
        "username:s:liwei",
        "prompt for credentials:i:1",
        "authentication level:i:2",
    ]
    assert "redirectdrives:i:0" in lines
    assert "\n" not in file.body.replace("\r\n", "")


@pytest.mark.parametrize(
    ("host", "login"),
    [
        ("a\r\nalternate shell:s:x", "li"),
        ("lab03", "li\nx"),
        ("lab03 x", "li"),
        ("", "li"),
        ("lab03", ""),
        ("l:1", "li"),
    ],
)
def test_nothing_adds_a_line_to_the_file(host: str, login: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        rdp_file(host, 3389, login)


def test_without_a_key_the_card_is_the_form_for_one(client: Client, liwei: User, machine: Instance, woken) -> None:
    page = client.login_as(liwei).get("/machines/gamma")
    assert "First, your SSH key" in page.text
    answer = client.submit(page.form("Add key").fill(**{"Public key": f"{GOOD} li@desk"}))
    assert (answer.status, answer.location, woken) == (303, "/machines/gamma", ["lab03"])
    assert "Key added." in client.get("/machines/gamma").text
    keys = client.get("/settings/keys")
    assert ssh_keys.fingerprint(GOOD) in keys.text
    sure = client.get(keys.link("Remove li@desk…"))
    assert client.submit(sure.form("Remove key")).location == "/settings/keys"
    assert (ssh_keys.of_user(liwei.id), woken) == ([], ["lab03", "lab03"])


def test_a_key_that_is_none_is_refused_beside_the_field(client: Client, liwei: User) -> None:
    page = client.login_as(liwei).post("/settings/keys", {"key": "-----BEGIN OPENSSH PRIVATE KEY-----", "name": "x"})
    assert page.status == 422
    assert "This is a private key." in page.texts("//*[@id='key-error']")[0]
    assert client.post("/settings/keys", {"key": GOOD, "machine": "//evil.example"}).location == "/settings/keys"


def test_a_password_is_shown_once(client: Client, liwei: User, machine: Instance, woken) -> None:
    page = client.login_as(liwei).get("/machines/gamma")
    shown = client.submit(page.form("Make a new password"))
    (password,) = shown.all("//*[@id='password']/@value")
    assert shown.headers["Cache-Control"] == "no-store"
    assert len(password) >= 18
    operation = operations.last(machine.id)
    assert (operation.kind, woken) == (OperationKind.PASSWORD, ["lab03"])
    assert sha512_crypt.verify(password, operation.details["hash"])
    assert password not in str(operation.details)
    assert password not in client.get("/machines/gamma").body
    operations.finish(operation.id, "agent:lab03")
    assert "Berth does not know it" in client.get("/machines/gamma").text
    machine.status = InstanceStatus.STOPPED
    assert "Make a new password" not in client.get("/machines/gamma").buttons()
    assert client.follow(client.post("/machines/gamma/password")).text.count("does not run") >= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ssh": "closed"}, "the program for it does not run"),
        ({"ssh": "refused"}, "Nobody listens"),
        ({"ssh": "<b>"}, "Does not answer"),
        ({"missing": ["sshd"]}, "The image lacks: sshd."),
        ({"account": "taken"}, "needs the name liwei for itself"),
        ({"host_keys": ["ssh-ed25519 $(id)\nProxyCommand id"]}, "Answers SSH"),
    ],
)
def test_what_does_not_work_is_said(client: Client, liwei: User, machine: Instance, values, words: str) -> None:
    with_health(machine, **values)
    page = client.login_as(liwei).get("/machines/gamma")
    assert words in page.text
    assert "ProxyCommand" not in page.body
    if values.get("ssh"):
        assert page.all("//*[@id='health']/@hx-get") == ["/machines/gamma/health"], "it is watched"
        with_health(machine, ssh="")
        assert not client.get("/machines/gamma/health", htmx=True).all("//*[@hx-get]"), "until it works"


def test_a_busy_port_is_said(client: Client, liwei: User, machine: Instance) -> None:
    ports.note(next(iter(ports.of_machine(machine.id).values())).id, "busy")
    assert "Another program on lab03 has port 22000." in client.login_as(liwei).get("/machines/gamma").text


def test_mending_asks_the_agent(client: Client, liwei: User, woken) -> None:
    host: Host = make_host("lab04")
    machine = make_instance(liwei, host, "old")
    page = client.login_as(liwei).get("/machines/old")
    answer = client.submit(page.form("Set up the ways in"))
    assert (answer.location, woken) == ("/machines/old", ["lab04"])
    assert len(ports.of_machine(machine.id)) == 2


def test_the_api_gives_the_same(client: Client, liwei: User, machine: Instance) -> None:
    call = caller(client, liwei)
    (shown,) = call.get("/instances").json
    assert (shown["address"], shown["ssh_port"], shown["rdp_port"]) == ("lab03.example.org", 22000, 22001)
    assert (shown["ssh_answers"], shown["rdp_answers"]) == (True, False)
    headers = {"Authorization": f"Bearer {call.token}"}
    text = client.get("/api/v1/instances/gamma/ssh-config", headers=headers).body
    assert text == f"# In ~/.ssh/known_hosts, so that gamma is known:\n# berth-gamma {HOST_KEY}\n{CONFIG}"
    assert call.get("/instances/gamma/rdp").status == 409
    with_health(machine, rdp="")
    assert "full address:s:" in client.get("/api/v1/instances/gamma/rdp", headers=headers).body


def test_anothers_machine_is_nobodys(client: Client, liwei: User, machine: Instance, woken) -> None:
    """Foreign and unknown are the same, on every way in."""
    other = make_user("chenyu")
    client.login_as(other)
    key = ssh_keys.add("test", liwei, GOOD)
    for path in ("", "/ways", "/health", "/rdp", "/ssh-config"):
        for htmx in (False, True):
            foreign, unknown = (client.get(f"/machines/{name}{path}", htmx=htmx) for name in ("gamma", "delta"))
            assert foreign.status == unknown.status, path
            assert foreign.status in ({404, 204} if htmx else {404}), path
    for path in ("password", "mend"):
        assert client.post(f"/machines/gamma/{path}").status == client.post(f"/machines/delta/{path}").status == 404
    assert client.get(f"/settings/keys/{key.id}/remove").status == 404
    assert client.post(f"/settings/keys/{key.id}/remove").status == 404
    assert ssh_keys.fingerprint(GOOD) not in client.get("/settings/keys").body
    call = caller(client, other)
    for what in ("rdp", "ssh-config"):
        assert call.get(f"/instances/gamma/{what}").status == call.get(f"/instances/delta/{what}").status == 404
    assert db.session.scalar(db.select(db.func.count(Operation.id))) == 0
    assert woken == []


def test_admins_help_without_a_key_of_theirs(client: Client, machine: Instance) -> None:
    page = client.login_as(make_admin()).get("/machines/gamma")
    assert page.status == 200
    assert "First, your SSH key" not in page.text, "theirs would not go into this machine"
