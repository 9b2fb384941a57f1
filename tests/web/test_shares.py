"""An admin shares a directory: what the agent found comes before the switch."""

from __future__ import annotations

import pytest

from app.drivers.shares import BAD, WARN, Found
from app.extensions import db
from app.models import Host, SharedDirectory
from app.services import shares
from tests.factories import make_admin, make_host, make_user
from tests.page import Client

FIELDS = {"Name": "sets", "Directory on the host": "/srv/sets", "Place in the machines": "/srv/sets"}


@pytest.fixture
def host(client: Client) -> Host:
    return make_host("ws1")


@pytest.fixture
def admin(client: Client, host: Host) -> Client:
    return client.login_as(make_admin("boss"))


def the_one() -> SharedDirectory:
    db.session.expire_all()
    return db.session.scalars(db.select(SharedDirectory)).one()


def test_the_whole_way(admin: Client, host: Host, woken: list[str]) -> None:
    make_user("liwei")
    page = admin.get(admin.get("/hosts/ws1").link("Shared directories"))
    page = admin.get(page.link("Share a directory"))
    form = page.form("Add it").fill(**FIELDS, **{"For whom": "liwei"})
    form.values["kind"] = "common"
    page = admin.follow(admin.submit(form))
    assert woken == ["ws1"]
    assert "Being looked at" in page.text
    assert "Switch on" not in page.buttons()
    shares.record(the_one().id, (Found(BAD, "flags", "/srv: nosuid"), Found(WARN, "old", "6.18")), "agent:ws1")
    db.session.commit()
    page = admin.get("/hosts/ws1/shares")
    assert "/srv/sets /srv/sets none bind,nosuid,nodev 0 0" in page.text
    assert "Switch on" not in page.buttons()
    assert "cannot be switched on" in admin.follow(admin.post("/hosts/ws1/shares/sets/switch", {"on": "1"})).text
    admin.follow(admin.submit(page.form("Look again")))
    assert the_one().checked_at is None
    shares.record(the_one().id, (), "agent:ws1")
    db.session.commit()
    page = admin.follow(admin.submit(admin.get("/hosts/ws1/shares").form("Switch on")))
    assert "sets is on." in page.text
    share = shares.get(host, "sets")
    assert (share.active, [user.username for user in share.users]) == (True, ["liwei"])
    page = admin.get(page.link("sets"))
    assert page.form("Save").values["kind"] == "common"
    assert page.form("Save").values["people"] == "liwei"
    admin.follow(admin.submit(page.form("Save").fill(**{"For whom": ""})))
    assert (the_one().for_everyone, the_one().active) == (True, True)
    page = admin.get(admin.get("/hosts/ws1/shares").link("Retire…"))
    assert "until it is restarted" in page.text
    page = admin.follow(admin.submit(page.form("Retire sets")))
    assert "None yet." in page.text
    assert the_one().retired_at is not None
    said = "sets is retired, and not out of every machine yet."
    shares.settle(host, {share.id: "m1: busy"}, {share.id})
    assert f"{said} m1: busy" in admin.get("/hosts/ws1/shares").text
    shares.settle(host, {}, set())
    assert said not in admin.get("/hosts/ws1/shares").text
    assert woken == ["ws1"] * 5


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("Directory on the host", "/etc", "no directory of the system"),
        ("Place in the machines", "/", "no directory of the system"),
        ("Name", "", "Fill this in."),
        ("For whom", "liwei nobody-here", "There is nobody called nobody-here."),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(admin: Client, label: str, text: str, said: str) -> None:
    make_user("liwei")
    page = admin.submit(admin.get("/hosts/ws1/shares/new").form("Add it").fill(**(FIELDS | {label: text})))
    assert page.status == 422
    assert said in page.texts("//*[@class='summary']")[0]
    assert db.session.scalars(db.select(SharedDirectory)).all() == []


def test_a_list_that_waits_asks_again_and_then_stops(admin: Client, host: Host) -> None:
    share = shares.add("boss", host, shares.Terms("sets", "/srv/sets", "/srv/sets"))
    db.session.commit()
    assert admin.get("/hosts/ws1/shares").all("//*[@hx-get='/hosts/ws1/shares']")
    shares.record(share.id, (), "agent:ws1")
    db.session.commit()
    assert not admin.get("/hosts/ws1/shares").all("//*[@hx-get]")
    shares.settle(host, {share.id: "m1: busy"}, {share.id})
    db.session.commit()
    text = admin.get("/hosts/ws1/shares").text
    assert "Off, but not everywhere" in text
    assert "In a machine it is not as it should be: m1: busy" in text
