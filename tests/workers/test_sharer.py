"""The agent's care for shared directories, on a simulated host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_core
from app.drivers.base import GiveUp, ServerInfo, TryAgain
from app.drivers.fake import FakeLxd
from app.drivers.fake_directories import FakeDirectories
from app.drivers.shares import BAD, WARN, Found, Share, SharesSeen, Wish, share_device
from app.extensions import db, transaction
from app.models import SharedDirectory, User
from app.services import inventory, shares
from app.services.shares import Terms
from tests.conftest import settings_for
from tests.factories import make_instance, make_user
from workers.sharer import Sharer, due

COMMON = Terms("common", "/srv/common", "/srv/common", read_only=False)
HERE = Share("/srv/common", "/srv/common", read_only=False)


class Counted(FakeDirectories):
    """Counts its looks, and can be told what to say, or to give no answer."""

    def __init__(self, *found: Found) -> None:
        self.looks: list[list[Wish]] = []
        self.found = found
        self.trouble: Exception | None = None

    def look(self, wishes: Sequence[Wish]) -> list[tuple[Found, ...]]:
        if self.trouble:
            raise self.trouble
        self.looks.append(list(wishes))
        return [self.found for _wish in wishes]


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Flask:
    app = create_core(settings_for(fresh_db, tmp_path))
    with app.app_context(), transaction():
        host = inventory.add_host("test", "ws1", "sim:", FakeLxd(tmp_path / "ws1.json", gpus=1, pace=0))
        make_instance(make_user("li"), host, "m1")
        shares.add("test", host, COMMON)
    return app


@pytest.fixture
def driver(tmp_path: Path) -> FakeLxd:
    fake = FakeLxd(tmp_path / "ws1.json")
    fake.add_instance("m1", owner="li")
    fake.add_instance("stranger")
    return fake


def switch(core: Flask, *, on: bool) -> None:
    with core.app_context(), transaction():
        host = inventory.host("ws1")
        shares.switch("test", host, shares.get(host, "common"), on=on)


def trouble(core: Flask) -> str:
    with core.app_context():
        return shares.get(inventory.host("ws1"), "common").trouble


def write(core: Flask, **values: object) -> None:
    """As somebody does who has got hold of the portal's way into the database."""
    with core.app_context(), transaction():
        db.session.execute(sa.update(SharedDirectory).values(**values))


def there(driver: FakeLxd) -> list[Share | None]:
    assert driver.shares()["stranger"].shares == {}
    return list(driver.shares()["m1"].shares.values())


def test_it_is_looked_at_then_put_in_then_taken_out(core: Flask, driver: FakeLxd) -> None:
    files = Counted()
    sharer = Sharer(core, "ws1", driver, files)
    sharer.step()
    assert [[wish.prepare for wish in look] for look in files.looks] == [[False]]
    assert there(driver) == []
    switch(core, on=True)
    sharer.step()
    sharer.step()
    assert [[wish.prepare for wish in look] for look in files.looks] == [[False], [True]]
    assert there(driver) == [HERE]
    assert driver.calls().count("set_shares") == 1
    switch(core, on=False)
    sharer.step()
    assert there(driver) == []


def test_no_answer_from_a_file_system_changes_nothing(core: Flask, driver: FakeLxd) -> None:
    files = Counted()
    sharer = Sharer(core, "ws1", driver, files)
    sharer.step()
    switch(core, on=True)
    files.trouble = TryAgain("Look", "no answer in 10 s", "")
    with pytest.raises(TryAgain):
        sharer.step()
    assert there(driver) == [], "it was not made ready yet"
    trouble, files.trouble = files.trouble, None
    sharer.step()
    files.trouble = trouble
    sharer._looked = float("-inf")
    with pytest.raises(TryAgain):
        sharer.step()
    assert there(driver) == [HERE]


def test_after_a_new_start_what_is_there_stays_and_nothing_comes_until_an_answer_does(
    core: Flask, driver: FakeLxd
) -> None:
    sharer = Sharer(core, "ws1", driver, FakeDirectories())
    sharer.step()
    switch(core, on=True)
    files = Counted()
    files.trouble = TryAgain("Look", "no answer in 10 s", "")
    with pytest.raises(TryAgain):
        Sharer(core, "ws1", driver, files).step()
    assert there(driver) == []
    sharer.step()
    with pytest.raises(TryAgain):
        Sharer(core, "ws1", driver, files).step()
    assert there(driver) == [HERE]


def test_what_the_agent_found_cannot_be_put_right_in_the_database(core: Flask, driver: FakeLxd) -> None:
    files = Counted(Found(BAD, "flags", "/: nosuid, nodev"))
    sharer = Sharer(core, "ws1", driver, files)
    write(core, active=True)
    sharer.step()
    write(core, findings=[])
    sharer.step()
    assert len(files.looks) == 1
    assert "set_shares" not in driver.calls()
    files.found = ()
    sharer._looked = float("-inf")
    sharer.step()
    files.trouble = TryAgain("Look", "no answer in 10 s", "")
    assert there(driver) == [HERE]
    for values in ({"source": "/srv/other"}, {"source": "/srv/common", "read_only": True}):
        write(core, **values)
        with pytest.raises(TryAgain):
            sharer.step()
        assert there(driver) == []
    write(core, read_only=False, path="/etc")
    sharer.step()
    assert there(driver) == []


def test_nothing_of_the_systems_is_given_whatever_is_said_of_it(core: Flask, driver: FakeLxd) -> None:
    files = Counted()
    write(core, active=True, source="/etc", read_only=True)
    Sharer(core, "ws1", driver, files).step()
    write(core, findings=[])
    Sharer(core, "ws1", driver, files).step()
    assert (files.looks, there(driver)) == ([], [])
    with core.app_context():
        assert shares.get(inventory.host("ws1"), "common").findings == [
            {"level": BAD, "code": "system", "detail": "/etc"}
        ]


def test_ones_own_directory_that_could_not_be_made_is_not_given(core: Flask, driver: FakeLxd) -> None:
    files = Counted(Found(WARN, "person", "../../etc: no name for a directory"))
    with core.app_context(), transaction():
        db.session.execute(sa.update(User).values(username="../../etc"))
    write(core, active=True, own=True)
    sharer = Sharer(core, "ws1", driver, files)
    sharer.step()
    write(core, findings=[])
    sharer.step()
    assert (len(files.looks), there(driver)) == (1, [])


def test_what_lxd_refuses_is_kept_until_it_works(core: Flask, driver: FakeLxd) -> None:
    sharer = Sharer(core, "ws1", driver, FakeDirectories())
    sharer.step()
    switch(core, on=True)
    driver.fail_next("set_shares", GiveUp("Share", "Required idmapping abilities not available", ""))
    sharer.step()
    assert trouble(core) == "m1: Required idmapping abilities not available"
    sharer.step()
    assert trouble(core) == ""
    assert there(driver) == [HERE]


def test_what_lxd_does_not_take_out_is_kept_too(core: Flask, driver: FakeLxd) -> None:
    busy = GiveUp("Share", "the disk is busy", "")
    sharer = Sharer(core, "ws1", driver, FakeDirectories())
    sharer.step()
    switch(core, on=True)
    sharer.step()
    switch(core, on=False)
    driver.fail_next("set_shares", busy)
    sharer.step()
    assert trouble(core) == "m1: the disk is busy"
    sharer.step()
    assert (trouble(core), there(driver)) == ("", [])
    switch(core, on=True)
    sharer.step()
    with core.app_context(), transaction():
        host = inventory.host("ws1")
        shares.retire("test", host, shares.get(host, "common"))
    driver.fail_next("set_shares", busy)
    for expected in (["m1: the disk is busy"], []):
        sharer.step()
        with core.app_context():
            assert [one.trouble for one in shares.leaving(inventory.host("ws1"))] == expected
    assert there(driver) == []


def test_a_privileged_machine_gets_nothing_and_that_is_said(core: Flask, driver: FakeLxd) -> None:
    driver.add_instance("m1", privileged=True, owner="li")
    sharer = Sharer(core, "ws1", driver, FakeDirectories())
    sharer.step()
    switch(core, on=True)
    sharer.step()
    assert there(driver) == []
    assert trouble(core) == "m1: the instance is privileged"


def test_an_lxd_that_could_not_start_a_machine_with_it_is_given_none(core: Flask, driver: FakeLxd) -> None:
    class Old(FakeLxd):
        def server(self) -> ServerInfo:
            return ServerInfo("ws1", "5.0.2")

    old = Old(driver._path)
    Sharer(core, "ws1", old, FakeDirectories(), kernel="6.8.0-40").step()
    switch(core, on=True)
    Sharer(core, "ws1", old, FakeDirectories(), kernel="6.12.9").step()
    assert there(driver) == []
    with core.app_context():
        (found,) = shares.get(inventory.host("ws1"), "common").findings
    assert found == {"level": "bad", "code": "old", "detail": "LXD 5.0.2, Linux 6.12.9"}


def test_what_is_due() -> None:
    device, other = share_device(1), share_device(2)
    wanted = {"same": {device: HERE}, "changed": {device: HERE}, "gone": {device: HERE}, "less": {}, "privileged": {}}
    seen = {
        "same": SharesSeen("running", False, {device: HERE}),
        "changed": SharesSeen("stopped", False, {device: None}),
        "less": SharesSeen("running", False, {other: HERE}),
        "privileged": SharesSeen("running", True, {device: HERE}),
        "not-ours": SharesSeen("running", False, {device: HERE}),
    }
    assert due(wanted, seen) == {"changed": {device: HERE}, "less": {}, "privileged": {}}
    assert due({"p": {device: HERE}}, {"p": SharesSeen("running", True, {})}) == {}
