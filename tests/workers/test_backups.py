"""A backup from the operation to the download: the file on the host, who gets it, and when it is gone."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from flask import Flask

from app import clock, create_core
from app.drivers.base import GiveUp
from app.drivers.fake import FakeLxd
from app.extensions import db, transaction
from app.models import AuditEvent, Backup, Download, Instance, Operation, SignIn
from app.services import accounts, backups, instances, inventory, operations, signins
from tests.conftest import settings_for
from tests.factories import make_admin, make_instance, make_user
from tests.runtime.running import wait_for
from tests.terminals import Desk, serving
from workers.surveyor import Surveyor
from workers.works import run_operations


class Place:
    """A simulated host with an agent that serves, and two people's machines."""

    def __init__(self, core: Flask, desk: Desk, lxd: FakeLxd, data: Path) -> None:
        self.core, self.desk, self.lxd, self.data = core, desk, lxd, data

    def make(self, name: str = "mine") -> Operation:
        """Ask for a backup and do the work."""
        with self.core.app_context():
            with transaction():
                number = backups.request(None, instances.get(None, name)).id
            run_operations(self.core, "ws1", self.lxd)
        with self.core.app_context():  # a session of its own: the other one may have it as it was before
            return db.session.get_one(Operation, number)

    def ticket(self, username: str = "", machine: str = "mine") -> str:
        """Somebody's, or the command line's."""
        sign_in = self.desk.sign_in(username) if username else None
        with self.core.app_context(), transaction():
            found = db.session.get_one(SignIn, sign_in) if sign_in else None
            return backups.ticket(found, instances.get(None, machine))

    def fetch(self, key: str) -> requests.Response:
        return requests.get(f"http{self.desk.url.removeprefix('ws')}/anywhere?backup={key}", timeout=10)

    def files(self) -> list[str]:
        folder = self.data / "backups" / "ws1"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def tidy(self) -> list[str]:
        Surveyor(self.core, "ws1", self.lxd, threading.Event()).step()
        return self.files()

    def change(self, **values: object) -> None:
        with self.core.app_context(), transaction():
            db.session.execute(db.update(Backup).values(**values))


@pytest.fixture
def place(fresh_db: str, tmp_path: Path) -> Iterator[Place]:
    core, lxd = create_core(settings_for(fresh_db, tmp_path)), FakeLxd(tmp_path / "ws1.json", gpus=1, pace=0)
    with core.app_context(), transaction():
        host = inventory.add_host("test", "ws1", "sim:", lxd)
        make_admin("boss")
        for owner, name in (("li", "mine"), ("wang", "theirs")):
            lxd.add_instance(name, owner=owner)
            make_instance(make_user(owner), host, name)
    with serving(core, "ws1", lxd) as desk:
        yield Place(core, desk, lxd, tmp_path)
    with core.app_context():
        db.engine.dispose()


def test_made_downloaded_once_and_on_record(place: Place) -> None:
    operation = place.make()
    assert (operation.state, place.files()) == ("done", [f"{operation.details['backup']}.tar.gz"])
    folder = place.data / "backups" / "ws1"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    key = place.ticket("li")
    answer = place.fetch(key)
    assert answer.status_code == 200
    assert answer.content == (folder / place.files()[0]).read_bytes()
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="mine-20')
    assert answer.headers["Content-Disposition"].endswith('.tar.gz"')
    assert (answer.headers["Cache-Control"], answer.headers["Content-Type"]) == ("no-store", "application/gzip")
    for spent in (key, "", "x" * 43):
        again = place.fetch(spent)
        assert again.status_code == 403, spent

    def events() -> list[tuple[str, str, str]]:
        with place.core.app_context():
            query = db.select(AuditEvent).where(AuditEvent.action.like("backup.%")).order_by(AuditEvent.id)
            return [(one.actor, one.action, one.target) for one in db.session.scalars(query)]

    wait_for(lambda: len(events()) == 2)
    assert events() == [("li", "backup.fetched", "instance:mine"), ("li", "backup.fetch.ended", "instance:mine")]


def test_a_ticket_goes_with_the_sign_in_the_right_and_the_minute(place: Place) -> None:
    place.make()
    assert place.fetch(place.ticket("boss")).status_code == 200, "an admin may"
    keys = [place.ticket("li"), place.ticket("wang"), place.ticket("li"), place.ticket()]
    with place.core.app_context(), transaction():
        signins.end_all(accounts.get("li"))
    assert [place.fetch(key).status_code for key in keys[:3]] == [403, 403, 403], "signed out, not theirs, signed out"
    assert place.fetch(keys[3]).status_code == 200, "the command line's"
    old = place.ticket("li")
    with place.core.app_context(), transaction():
        db.session.execute(db.update(Download).values(created_at=clock.now() - timedelta(seconds=61)))
    assert place.fetch(old).status_code == 403
    late = place.ticket("li")
    place.change(removed_at=clock.now())
    assert place.fetch(late).status_code == 403


def test_it_is_gone_after_its_hours_with_its_machine_and_when_removed(place: Place) -> None:
    place.make("mine")
    place.make("theirs")
    first, second = place.tidy()
    with place.core.app_context(), transaction():
        db.session.execute(
            db.update(Instance).where(Instance.name == "theirs").values(deleted_at=clock.now(), status="missing")
        )
    assert place.tidy() == [first]
    place.make("mine")
    assert place.tidy() == [f"{int(second.partition('.')[0]) + 1}.tar.gz"], "the new one took its place"
    place.change(expires_at=clock.now() - timedelta(seconds=1))
    assert place.tidy() == []
    with place.core.app_context():
        assert backups.current(instances.get(None, "mine")) is None


def test_what_fails_leaves_nothing(place: Place) -> None:
    place.lxd.fail_next("backup", GiveUp("Back up mine", "the host has no room", "Make room."))
    operation = place.make()
    assert (operation.error, place.files()) == ("Back up mine: the host has no room. Make room.", [])
    with place.core.app_context():
        assert backups.current(instances.get(None, "mine")) is None
    assert place.make().error == ""


def test_a_machine_is_looked_after_meanwhile(place: Place) -> None:
    with place.core.app_context():
        with transaction():
            machine = instances.get(None, "mine")
            operations.enqueue(None, machine, "backup", backup=0, snapshot="")  # type: ignore[arg-type]
        with transaction():
            instances.record_statuses(machine.host_id, {("mine", machine.owner.username): "stopped"}, clock.now())
        assert instances.get(None, "mine").status == "stopped"
