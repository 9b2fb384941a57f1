"""Shared directories on a real LXD and a real file system: who owns what people write, and who sees it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_core
from app.drivers.directories import HostDirectories
from app.extensions import db, transaction
from app.models import Host, Instance, SharedDirectory, User
from app.services import access, inventory, ports, shares
from app.services.shares import Terms
from app.services.unix_ids import COMMON_GID, uid_of
from tests import postgres
from tests.conftest import settings_for
from tests.factories import make_host, make_instance, make_user
from tests.lab.idmapped import build
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.lab.scene import SLEEPING
from workers import moving_in
from workers.sharer import Sharer

pytestmark = pytest.mark.lab


@dataclass
class House:
    """A host with two people's machines, and a file system that people may write to."""

    lab: Lab
    core: Flask
    sharer: Sharer
    data: Path  # nosuid and nodev
    plain: Path  # not so
    names: tuple[str, str]

    def offer(self, terms: Terms, *, on: bool = True) -> list[str]:
        """Add a directory, have it looked at, switch it on; what speaks against it."""
        with self.core.app_context(), transaction():
            shares.add("test", self.host(), terms)
        self.sharer.step()
        with self.core.app_context(), transaction():
            share = shares.get(self.host(), terms.name)
            bad = [found["code"] for found in share.findings if found["level"] == "bad"]
            if on and not bad:
                shares.switch("test", self.host(), share, on=True)
        self.sharer.step()
        return bad

    def change(self, name: str, **changes: object) -> None:
        """Offer a directory to others, or otherwise."""
        with self.core.app_context(), transaction():
            share = shares.get(self.host(), name)
            people = changes.pop("people", None)
            users = None if people is None else tuple(self.person(one) for one in people)  # type: ignore[attr-defined]
            terms = Terms(name, share.source, share.path, share.read_only, share.own, users)
            shares.change("test", self.host(), share, terms)
        self.sharer.step()

    def host(self) -> Host:
        return db.session.scalars(sa.select(Host)).one()

    def person(self, machine: str) -> User:
        query = sa.select(User).join(Instance, Instance.owner_id == User.id).where(Instance.name == machine)
        return db.session.scalars(query).one()

    def uid(self, machine: str) -> int:
        with self.core.app_context():
            return uid_of(self.person(machine))

    def does(self, machine: str, script: str, *, root: bool = False) -> str:
        """What the machine's person gets to read when they do this there."""
        who = "root" if root else machine  # the account that Berth made there for its owner
        return self.lab.run(machine, "su", "-s", "/bin/sh", "-c", f"umask 022; {script}", who)


@pytest.fixture(scope="module")
def house(lab_directory: Path, admin_url: str, template: str) -> Iterator[House]:
    base = lab_directory / "shares"
    data = base / "data"
    data.mkdir(parents=True)
    base.chmod(0o755)
    for options in (["--bind"], ["-o", "remount,bind,nosuid,nodev"]):
        subprocess.run(["mount", *options, data, data], check=True)
    try:
        with (
            postgres.database(admin_url, template) as url,
            Lab(lab_directory / "sh", gpus=1, preload=build(base)) as lab,
        ):
            names = (lab.launch("", *SLEEPING), lab.launch("", *SLEEPING))
            core = create_core(settings_for(url, base))
            with core.app_context(), transaction():
                host = make_host("ws1", gpus=0, endpoint=str(lab.socket))
                for name in names:
                    ports.reserve(make_instance(make_user(name), host, name), host)
            with core.app_context():
                for entrance in access.entrances(inventory.host("ws1")):
                    moving_in.settle(connect(lab), entrance)
            files = HostDirectories(str(lab.lxd_dir))
            sharer = Sharer(core, "ws1", connect(lab), files, kernel="6.8")  # which this LXD takes it for by `preload`
            yield House(lab, core, sharer, data, base, names)
            with core.app_context():
                db.engine.dispose()
    finally:
        subprocess.run(["umount", "-l", data], check=True)


@pytest.fixture(autouse=True)
def _empty(house: House) -> Iterator[None]:
    yield
    with house.core.app_context(), transaction():
        db.session.execute(sa.delete(SharedDirectory))
    house.sharer.step()
    assert {name: seen.shares for name, seen in connect(house.lab).shares().items()} == {
        name: {} for name in house.names
    }
    for path in house.data.iterdir():
        shutil.rmtree(path)


def test_two_people_write_into_one_directory_and_the_host_sees_who_wrote_what(house: House) -> None:
    source = house.data / "common"
    source.mkdir(0o755)
    assert house.offer(Terms("common", str(source), "/srv/common", read_only=False)) == []
    one, other = house.names
    assert house.does(one, "cd /srv/common && echo one > a && mkdir d && echo in > d/b") == ""
    assert house.does(other, "cd /srv/common && echo other >> a && cat a d/b && echo c > d/c") == "one\nother\nin\n"
    assert house.does(other, "cd /srv/common && echo r > r", root=True) == ""
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in source.rglob("*")}
    first, second = house.uid(one), house.uid(other)
    assert first != second
    assert owners == {
        name: (uid, COMMON_GID) for name, uid in zip("adbcr", (first, first, first, second, 0), strict=True)
    }
    assert stat.S_IMODE(source.stat().st_mode) == 0o2775
    assert not any(path.stat().st_mode & 0o002 for path in [source, *source.rglob("*")])


def test_what_root_makes_in_there_is_nothing_special_on_the_host(house: House) -> None:
    source = house.data / "common"
    source.mkdir()
    house.offer(Terms("common", str(source), "/srv/common", read_only=False))
    made = house.does(house.names[0], "cd /srv/common && cp /usr/bin/id id && chmod 6755 id; ls id", root=True)
    assert made == "id\n"
    assert "not permitted" in house.does(house.names[0], "mknod /srv/common/kmem c 1 2", root=True)
    program = source / "id"
    assert (program.stat().st_uid, program.stat().st_mode & 0o6000) == (0, 0o6000)
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", str(COMMON_GID), "--clear-groups", str(program), "-u"]
    assert subprocess.run(as_nobody, capture_output=True, text=True, check=True).stdout == "65534\n"


def test_each_sees_only_their_own_and_loses_it_without_a_restart(house: House) -> None:
    source = house.data / "homes"
    source.mkdir(0o711)
    assert house.offer(Terms("homes", str(source), "/srv/home", read_only=False, own=True)) == []
    one, other = house.names
    for name in house.names:
        assert (
            house.does(name, f"cd /srv/home && echo {name} > mine && ls -a /srv/home | wc -l && cat mine")
            == f"3\n{name}\n"
        )
        own = source / name
        assert (own.stat().st_uid, stat.S_IMODE(own.stat().st_mode)) == (house.uid(name), 0o700)
    # Root in there, with the other's user id too, finds nothing of the other's: neither the file nor that it is there.
    look = f"find /srv -print; setpriv --reuid {house.uid(other)} --clear-groups find /srv/home/.. -print"
    assert other not in house.does(one, f"{look} 2>&1", root=True)
    lab = house.lab
    lab.run(one, "sh", "-c", "cd /srv/home && nohup sleep 999 > /dev/null 2>&1 < /dev/null &")  # busy, all the same
    inits = [seen.init for seen in connect(house.lab).observe().instances.values()]
    house.change("homes", people=[other])
    assert house.does(one, "ls /srv/home", root=True).startswith("ls: cannot access")
    assert house.does(other, "cat /srv/home/mine") == f"{other}\n"
    house.change("homes", people=[one, other])
    assert house.does(one, "cat /srv/home/mine") == f"{one}\n"
    assert [seen.init for seen in connect(house.lab).observe().instances.values()] == inits


def test_an_own_directory_that_is_a_link_or_somebody_elses_is_not_followed(house: House) -> None:
    one, other = house.names
    source, prey = house.data / "homes", house.plain / "prey"
    source.mkdir(0o711)
    prey.mkdir(0o755)
    (source / one).symlink_to(prey)
    (source / other).mkdir()
    os.chown(source / other, house.uid(one), 0)
    house.offer(Terms("homes", str(source), "/srv/home", read_only=False, own=True))
    assert (prey.stat().st_uid, stat.S_IMODE(prey.stat().st_mode)) == (0, 0o755)
    assert connect(house.lab).shares()[one].shares == connect(house.lab).shares()[other].shares == {}
    with house.core.app_context():
        findings = shares.get(house.host(), "homes").findings
    warned = {found["detail"].partition(":")[0] for found in findings if found["code"] == "person"}
    assert warned == set(house.names)


def test_read_only_is_read_only_for_root_too(house: House) -> None:
    source = house.plain / "sets"
    source.mkdir()
    (source / "set").write_text("data\n")
    assert house.offer(Terms("sets", str(source), "/srv/sets")) == []
    tries = "cd /srv/sets; cat set; touch x; mount -o remount,bind,rw /srv/sets; touch x; rm -f set"
    said = house.does(house.names[0], tries, root=True)
    assert "data\n" in said
    assert said.count("Read-only file system") >= 2
    assert [path.name for path in source.iterdir()] == ["set"]


def test_what_is_not_fit_is_refused_before_anybody_gets_it(house: House) -> None:
    inside = house.data / "inside"
    inside.mkdir()
    (house.data / "link").mkdir()
    (house.data / "link" / "to").symlink_to(inside)
    theirs = house.data / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1000, 1000)
    plain = house.plain / "rw"
    plain.mkdir()
    (house.data / "theirs" / "below").mkdir()
    for name, source, why in (
        ("a-link", house.data / "link" / "to", "link"),
        ("missing", house.data / "nothing", "missing"),
        ("flags", plain, "flags"),
        ("theirs", theirs, "owner"),
    ):
        assert house.offer(Terms(name, str(source), f"/srv/{name}", read_only=False)) == [why], name
    lxd = house.lab.lxd_dir
    assert house.offer(Terms("lxd", str(lxd / "containers"), "/srv/lxd")) == ["lxd"]
    with house.core.app_context(), transaction():
        shares.retire("test", house.host(), shares.get(house.host(), "theirs"))
    assert house.offer(Terms("below", str(theirs / "below"), "/srv/below", read_only=True)) == ["parent"]
    assert all(seen.shares == {} for seen in connect(house.lab).shares().values())


def test_a_directory_that_went_away_keeps_no_machine_from_starting(house: House) -> None:
    source = house.data / "common"
    source.mkdir()
    house.offer(Terms("common", str(source), "/srv/common", read_only=False))
    name = house.names[0]
    connect(house.lab).stop(name, force=True)
    source.rename(house.data / "away")
    connect(house.lab).start(name)
    house.sharer._looked = float("-inf")
    house.sharer.step()
    assert connect(house.lab).shares()[name].shares == {}
    (house.data / "away").rename(source)
    house.sharer._looked = float("-inf")
    house.sharer.step()
    assert house.does(name, "ls -d /srv/common") == "/srv/common\n"
