"""A machine's life on a real LXD, by the pages' own services and a running agent: another size seen in its cgroup,
another name, back to a snapshot that has a GPU in its settings, deleted after its days, taken over, made anew."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from flask import Flask
from sqlalchemy.orm import undefer

from app import clock
from app.drivers.base import GiveUp, HostUnreachable, InstanceSpec
from app.drivers.lxd import rebuild
from app.drivers.lxd.backups import PROJECT
from app.extensions import db, transaction
from app.models import Host, Instance, InstanceStatus, Operation, OperationKind, OperationState, Readable, Reading
from app.services import (
    accounts,
    adoption,
    backups,
    care,
    instances,
    inventory,
    operations,
    readings,
    snapshots,
    surveys,
)
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.lab.scene import AS_BERTH_DOES, LEADS, Scene, scene, second_from_now
from tests.runtime.running import wait_for
from tests.workers.house import Now
from workers.surveyor import Surveyor
from workers.works import run_operations

pytestmark = pytest.mark.lab

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 0.003  # seconds between two looks for a node
LONG = 600  # seconds of a booking that is not to end by itself


class Life:
    """A Berth on one host, and what is asked of it."""

    def __init__(self, here: Scene, host: Lab) -> None:
        self.here, self.host = here, host
        self.surveyor = Surveyor(here.app, self.row().name, connect(host), threading.Event())

    def row(self) -> Host:
        with self.here.app.app_context():
            return self.here.row(self.host)

    def machine(self, name: str) -> Instance:
        with self.here.app.app_context():
            return instances.get(None, name)

    def do(self, name: str, ask: Callable[[Instance], Operation | None]) -> float:
        """Ask for work on a machine, and wait until it is done; how long that took."""
        began = time.monotonic()
        with self.here.app.app_context(), transaction():
            operation = ask(instances.get(None, name))
            assert operation is not None
            number = operation.id
        self.here.wake(self.host)
        wait_for(lambda: self._ended(number), 150, "the work to be done")
        return time.monotonic() - began

    def _ended(self, number: int) -> bool:
        with self.here.app.app_context():
            state, error = operations.outcome(number)
            assert not error, error
            return state == OperationState.DONE

    def told(self, name: str, file: str) -> float:
        """What a program in there wrote down last; 0 for nothing."""
        text = self.host.run(name, "sh", "-c", f"cat {file} 2>/dev/null || true").strip()
        return float(text or 0)

    def look(self) -> None:
        self.surveyor.step()
        self.here.wake(self.host)

    def nodes(self, name: str) -> set[int]:
        """The minors of NVIDIA nodes in there now: in LXD's directory for it, and in its own /dev."""
        folders = [self.host.lxd_dir / "devices" / name]
        for file in ("cgroup.procs", "init.scope/cgroup.procs"):  # until systemd moves itself, and after that
            with suppress(OSError, StopIteration):
                folders += [Path(f"/proc/{pid}/root/dev") for pid in group(name, file).read_text().split()[:1]]
        found = set()
        for folder in folders:
            with suppress(OSError):
                if folder.samefile("/dev"):  # it starts just now, and has its own root in a moment
                    continue
                for entry in os.scandir(folder):
                    node = entry.stat(follow_symlinks=False)
                    if stat.S_ISCHR(node.st_mode) and os.major(node.st_rdev) == 195:
                        found.add(os.minor(node.st_rdev))
        return found - {255}

    @contextmanager
    def watched(self, name: str) -> Iterator[set[int]]:
        """Every node that is in there at any moment meanwhile."""
        seen, over, looks = set[int](), threading.Event(), [0]

        def watch() -> None:
            while not over.wait(PERIOD):
                seen.update(self.nodes(name))
                looks[0] += 1

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()
        assert looks[0] > 20


def group(name: str, file: str) -> Path:
    """A file of the machine's cgroup, of whichever version this kernel has."""
    tops = (CGROUPS, CGROUPS / "unified", CGROUPS / "memory", CGROUPS / "cpuset", CGROUPS / "devices")
    found = [top / f"lxc.payload.{name}" / file for top in tops]
    return next(path for path in found if path.exists())


def memory_limit(name: str) -> int:
    with suppress(StopIteration):
        return int(group(name, "memory.max").read_text())
    return int(group(name, "memory.limit_in_bytes").read_text())


@pytest.fixture(scope="module")
def life(lab: Hosts) -> Iterator[Life]:
    with scene(lab.ws1, BERTH_TICK="5") as here:
        yield Life(here, lab.ws1)


def test_another_size_and_another_name(life: Life) -> None:
    (name,) = life.here.people(life.host, 1, options=())
    owner = life.machine(name).owner
    life.do(name, lambda found: care.resize(owner, found, cpus=1, memory_gib=1, disk_gib=8))
    assert memory_limit(name) == 1 << 30
    config = life.host.lxc("config", "show", name)
    assert "size: 8GiB" in config
    assert 'limits.cpu: "1"' in config
    new = life.host.unique("n")
    life.here.machines.append((life.host, new))
    life.do(name, lambda found: care.rename(owner, found, new))
    assert life.machine(new).status == "running"
    assert memory_limit(new) == 1 << 30
    assert name not in life.host.lxc("list", "-c", "n", "-f", "csv").split()


def test_a_restore_never_brings_a_gpu_back_not_for_a_moment(life: Life) -> None:
    (name,) = life.here.people(life.host, 1, options=())
    owner, minor = life.machine(name).owner, life.host.minors[0]
    life.host.run(name, "sh", "-c", "echo before > /root/note")
    now = second_from_now(0)
    number = life.here.book(name, life.host, 0, now, now + LONG)
    life.here.wake(life.host)
    wait_for(lambda: life.nodes(name) == {minor}, why="the GPU")
    life.do(name, lambda found: snapshots.take(owner, found))
    assert "gpu-0000-01-00-0" in life.host.lxc("query", f"/1.0/instances/{name}/snapshots?recursion=1")
    life.host.run(name, "sh", "-c", "echo after > /root/note")
    life.here.end([(name, number)], LEADS)
    life.here.wake(life.host)
    wait_for(lambda: life.nodes(name) == set(), 60, "the end")
    (made,) = snapshots.of(life.machine(name))
    with life.watched(name) as seen:
        life.do(name, lambda found: snapshots.restore(owner, found, made.name))
        time.sleep(1)  # what LXD or a pass would do late
    assert seen == set()
    assert life.host.run(name, "cat", "/root/note").strip() == "before"
    assert "gpu" not in life.host.lxc("config", "show", name)
    assert life.machine(name).status == "running"


# Each writes down now and then that it runs; the second also keeps hold of the GPU, without opening it.
CLOCK = "import time, sys\nwhile True: open(sys.argv[1], 'w').write(str(time.time())); time.sleep(0.05)"
HOLDER = f"import os; os.open('/dev/nvidia%d', os.O_PATH)\n{CLOCK}"


def test_a_paused_machine_loses_its_gpu_on_time_and_goes_on_where_it_was(life: Life) -> None:
    first, second = life.here.people(life.host, 2, options=())
    owner, minor = life.machine(first).owner, life.host.minors[1]
    now = second_from_now(0)
    number = life.here.book(first, life.host, 1, now, now + LONG)
    life.here.wake(life.host)
    wait_for(lambda: life.nodes(first) == {minor}, why="the GPU")
    for program, file in ((CLOCK, "/run/clock"), (HOLDER % minor, "/run/holder")):
        life.host.run(first, "systemd-run", "python3", "-c", program, file)
        wait_for(lambda file=file: life.told(first, file), why="the program")
    life.do(first, lambda found: care.freeze(owner, found))
    assert life.nodes(first) == {minor}
    end = life.here.end([(first, number)], LEADS)
    life.here.book(second, life.host, 1, end, end + LONG)
    life.here.wake(life.host)
    wait_for(lambda: life.nodes(second) == {minor}, 60, "the GPU in the next machine")
    assert life.nodes(first) == set()
    assert "FROZEN" in life.host.lxc("list", first, "-c", "s", "-f", "csv")
    assert life.machine(first).status == "frozen"
    life.do(first, lambda found: instances.request(owner, found, OperationKind.START))
    assert life.machine(first).status == "running"
    before = life.told(first, "/run/clock")
    wait_for(lambda: life.told(first, "/run/clock") > before, why="what ran in it goes on")
    assert life.nodes(first) == set()
    held = life.told(first, "/run/holder")
    time.sleep(0.3)  # six times as long as it takes to write
    assert life.told(first, "/run/holder") == held, "what held the GPU has ended"


def test_an_admin_reads_the_logs_and_who_put_which_device_there(life: Life) -> None:
    (name,) = life.here.people(life.host, 1, options=())
    life.host.run(name, "sh", "-c", "printf '\\033[2J\\033]0;title\\007shown\\n' > /dev/console")
    life.host.lxc("config", "device", "add", name, "data", "disk", "source=/usr/share/doc", "path=/data")
    with life.here.app.app_context(), transaction():
        admin, host = make_admin(), life.here.row(life.host)
        for what in Readable:
            readings.ask(admin, host, name, what)
    life.here.wake(life.host)

    def answered() -> dict[str, Reading]:
        with life.here.app.app_context():
            found = readings.of_instance(life.here.row(life.host), name)
            return {str(one.what): one for one in found if one.answered_at}

    wait_for(lambda: len(answered()) == len(Readable), 30, "the agent to read")
    log, console = answered()["log"], answered()["console"]
    assert (log.error, console.error) == ("", "")
    assert any(line.endswith("shown") for line in console.text.splitlines()), console.text
    assert "title" not in console.text
    life.look()
    origins = life.machine(name).observed["origins"]
    assert (origins["root"], origins["data"]) == ("profile:default", "hand")


def test_a_deleted_machine_is_there_until_its_days_are_over(life: Life) -> None:
    (name,) = life.here.people(life.host, 1, options=())
    owner = life.machine(name).owner
    life.do(name, lambda found: care.request_delete(owner, found))
    life.look()
    assert "STOPPED" in life.host.lxc("list", name, "-c", "s", "-f", "csv")
    with life.here.app.app_context(), transaction():
        instances.get(None, name).delete_at = clock.now() - timedelta(seconds=1)
    life.look()
    wait_for(lambda: life.host.lxc("list", name, "-f", "csv") == "", 60, "the deletion")


def test_what_was_made_by_hand_is_seen_and_taken_over(life: Life) -> None:
    name = life.host.unique("h")
    life.here.machines.append((life.host, name))
    life.host.lxc("launch", "base", name, "-c", "limits.memory=300MiB", *AS_BERTH_DOES)
    life.look()
    with life.here.app.app_context(), transaction():
        host = db.session.get(Host, life.row().id, options=[undefer(Host.survey)])
        row = surveys.find(inventory.host(host.name), name)
        assert row.seen["memory"] > 0
        owner = accounts.get(life.here.people(life.host, 1)[0])
        number = adoption.adopt(owner, row, owner).id
    life.here.wake(life.host)
    wait_for(lambda: life._ended(number), 60, "the work to be done")
    found = life.machine(name)
    assert (found.owner.username, found.status, found.memory_mib) == (owner.username, "running", 300)
    assert f"user.berth.owner: {owner.username}" in life.host.lxc("config", "show", name)


class KilledError(Exception):
    """As kill -9 is: nothing is cleaned up."""


def test_a_rebuild_keeps_home_with_its_owners_and_goes_on_where_it_was_killed(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, name = connect(life.host), life.host.unique("r")
    life.here.machines += [(life.host, f"{name}{end}") for end in ("", "-NEW", "-OLD")]
    spec = InstanceSpec(name, "base", 1, 512, 3, "alice")
    driver.create(spec, lambda *_: None)
    script = """mkdir -p /home/li/work && echo kept > /home/li/work/note && ln -s /etc/hostname /home/li/link
        chmod 640 /home/li/work/note && chown -R 1234:1235 /home/li && echo gone > /root/note"""
    life.host.run(name, "sh", "-c", script)
    life.host.lxc("config", "device", "add", name, "ssh", "proxy", "listen=tcp:127.0.0.1:0", "connect=tcp:127.0.0.1:22")
    life.host.lxc("config", "set", name, "user.berth.gpu-0000-01-00-0", "v1 1 1 1")
    for step in ("carry", "_dress"):
        with monkeypatch.context() as patch:
            patch.setattr(rebuild, step, lambda *_: (_ for _ in ()).throw(KilledError))
            with pytest.raises(KilledError):
                driver.rebuild(spec, lambda *_: None)
    driver.rebuild(spec, lambda *_: None)
    assert life.host.run(name, "stat", "-c", "%u:%g %a", "/home/li/work/note").strip() == "1234:1235 640"
    assert life.host.run(name, "cat", "/home/li/work/note").strip() == "kept"
    assert life.host.run(name, "readlink", "/home/li/link").strip() == "/etc/hostname"
    assert "gone" not in life.host.run(name, "cat", "/root/note")
    config = life.host.lxc("config", "show", name)
    assert "type: proxy" in config
    assert "gpu" not in config
    left = life.host.lxc("list", "-c", "n", "-f", "csv").split()
    assert [one for one in left if one.startswith(name)] == [name]


def test_a_rebuild_that_lxd_left_half_way_is_asked_for_again(
    life: Life, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an agent of its own, in this process."""
    driver, name = connect(life.host), life.host.unique("r")
    life.here.machines += [(life.host, f"{name}{end}") for end in ("", "-NEW", "-OLD")]
    driver.create(InstanceSpec(name, "base", 1, 512, 3, name), lambda *_: None)
    life.host.run(name, "sh", "-c", "echo kept > /home/note; echo gone > /root/note")
    host = make_host("lab", gpus=0, endpoint=str(life.host.socket), images=[{"alias": "base"}])
    machine = make_instance(make_user(name), host, name, image="base", cpus=1, memory_mib=512, disk_gib=3)
    number = machine.id
    here = SimpleNamespace(Thread=Now, Event=threading.Event)  # the test has one connection only
    monkeypatch.setattr("workers.works.threading", here)

    def rebuilt() -> Operation:
        found = instances.get(None, name)
        asked = care.rebuild(found.owner, found).id
        db.session.commit()
        run_operations(app, "lab", driver)
        db.session.expire_all()
        return db.session.get_one(Operation, asked)

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "_dress", lambda *_: (_ for _ in ()).throw(HostUnreachable("Connect", "it restarts")))
        assert "it restarts" in rebuilt().error
    seen = {(one.name, one.owner): one.status for one in driver.observe().instances.values()}
    instances.record_statuses(host.id, seen, clock.now())
    assert db.session.get_one(Instance, number).status == InstanceStatus.MISSING
    assert rebuilt().error == ""
    assert life.host.run(name, "sh", "-c", "cat /home/note; ls /root").strip() == "kept"
    left = life.host.lxc("list", "-c", "n", "-f", "csv").split()
    assert [one for one in left if one.startswith(name)] == [name]


def _downloaded_once(life: Life, name: str) -> bytes:
    """What the agent gives whoever has a ticket, and nobody who comes with the same one again."""
    with life.here.app.app_context(), transaction():
        key = backups.ticket(None, instances.get(None, name))
    url = f"http{life.row().terminal_url.removeprefix('ws')}/?backup={key}"
    answer = requests.get(url, timeout=20)
    assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{name}-')
    assert len(answer.content) == int(answer.headers["Content-Length"])
    assert requests.get(url, timeout=20).status_code == 403
    return answer.content


def test_a_backup_is_downloaded_with_one_ticket_and_imported_elsewhere_and_brings_files_alone(
    life: Life, lab: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a snapshot whose settings have a GPU, a port, a path of the host and a secret of an admin's."""
    host, other = life.host, lab.ws2
    (name,) = life.here.people(host, 1)
    life.here.machines.append((other, name))
    host.run(name, "sh", "-c", "echo then > /root/note; chown 1234:1235 /root/note")
    host.lxc("config", "set", name, "environment.PROXY=http://li:hush-1@10.9.8.7")
    host.lxc("profile", "create", "theirs")
    host.lxc("profile", "set", "theirs", "environment.TOKEN=hush-2")
    for device, *settings in (
        ("port-ssh", "proxy", "listen=tcp:127.0.0.1:55555", "connect=tcp:127.0.0.1:22"),
        ("data", "disk", f"source={tmp_path}", "path=/srv/hush-3"),
        ("gpu-0000-01-00-0", "gpu", "gputype=physical", "pci=0000:01:00.0"),
    ):
        host.lxc("config", "device", "add", name, device, *settings)
    life.do(name, lambda machine: snapshots.take(None, machine))
    host.run(name, "sh", "-c", "echo now > /root/note")
    life.look()
    (snapshot,) = snapshots.of(life.machine(name))
    took = life.do(name, lambda machine: backups.request(None, machine, snapshot.name))
    print(f"\n  a backup takes {took:.1f} s")
    host.lxc("profile", "delete", "theirs")
    assert host.lxc("list", "-c", "n", "-f", "csv", "--project", PROJECT) == "", "no copy is left"
    file = tmp_path / "back.tar.gz"
    file.write_bytes(_downloaded_once(life, name))
    with tarfile.open(file) as archive:
        told = "".join(
            archive.extractfile(f"backup/{one}").read().decode() for one in ("index.yaml", "container/backup.yaml")
        )
    for secret in ("hush", "10.9.8.7", "gpu", "0000:01", "55555", "port-ssh", str(tmp_path), "user.berth"):
        assert secret not in told, secret
    for most, why in ((1, "may have 0.0 GiB at most"), (1 << 50, "the host has no room")):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(total=9 << 30, free=2 << 30))
            with pytest.raises(GiveUp, match=why):
                connect(host).backup(name, "", tmp_path / "none", most, lambda *_: None)
    other.lxc("import", str(file), timeout=120)
    other.lxc("start", name)
    assert other.run(name, "sh", "-c", "cat /root/note; stat -c %u:%g /root/note") == "then\n1234:1235\n"
