"""What GPUs did, from NVML's answers to the pages: an agent that is killed, with the database away for an hour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_app
from app.drivers.fake import FakeLxd
from app.extensions import db, transaction
from app.models import Allocation, Consumer, UsageMinute
from app.services import inventory, zones
from tests.conftest import settings_for
from tests.drivers.boxes import Box, unique
from tests.drivers.nvml_stub import Process, build, whole
from tests.drivers.nvml_stub import Stub as Nvml
from tests.factories import gpus_of, make_booking, make_instance, make_user
from tests.page import Client
from tests.require import need
from tests.runtime.crossing import ANSWER, REQUEST, Crossing, crossing
from tests.runtime.running import ROOT, environment, processes, wait_for
from workers.journal import Journal

SPEED = 60
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ENOUGH = 55  # whole minutes of such an hour: how long a kill takes is the machine's
Key = tuple[str, datetime, int, str]  # GPU, minute, booking, instance
Sums = Counter[Key]


class Scene:
    """A host with two GPUs, of which Alice has booked the first, and its agent."""

    def __init__(self, url: str, way: tuple[Crossing, str], folder: Path) -> None:
        self.folder, self.data = folder, folder / "var"
        self.way, self._url = way
        self.nvml = Nvml(build(folder), folder / "nvml.state")
        self.app: Flask = create_app(settings_for(url, self.data, BERTH_TZ="UTC"))
        self.app.testing = True
        self.began = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=85)
        self.origin = self.began + timedelta(seconds=20)
        self.agent: subprocess.Popen[str] | None = None
        self.journal = Journal(self.data / "agents" / "lab.usage")

    def furnish(self, instance: str) -> None:
        lxd = FakeLxd(self.data / "sim" / "lab.json", gpus=2, pace=0)
        lxd.add_instance(instance, owner="alice")
        with self.app.app_context(), transaction():
            zones.write("UTC")
            host = inventory.add_host("test", "lab", "sim:lab", lxd)
            self.alice = make_user("alice")
            make_instance(self.alice, host, instance)
            self.gpus = [gpu.pci_address for gpu in gpus_of(host)]
            window = self.began - 5 * MINUTE, self.began + 3 * HOUR
            self.booking = make_booking(self.alice, gpus_of(host)[:1], *window).id

    @property
    def moment(self) -> datetime:
        """The agent's time."""
        began = float((self.folder / "began").read_text())
        return self.origin + timedelta(seconds=(time.monotonic() - began) * SPEED)

    def start(self) -> None:
        (self.folder / "began").unlink(missing_ok=True)
        hurried = {
            "HURRIED_SPEED": str(SPEED), "HURRIED_FROM": str(self.origin.timestamp()),
            "HURRIED_BEGAN": str(self.folder / "began"), "NVML_LIBRARY": str(self.folder),
            "NVML_STUB": str(self.folder / "nvml.state"), "DATABASE_URL": self._url,
        }  # fmt: skip
        with (self.folder / "agent.log").open("a") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "tests.runtime.hurried", "agent", "lab"],
                cwd=ROOT, env=environment(self.data, 1, **hurried), stderr=log, text=True,
            )  # fmt: skip
        wait_for((self.folder / "began").exists, 60, "it reads")

    def kill(self) -> None:
        """End it as nobody would; the time until the next one is taken out."""
        assert self.agent is not None
        assert self.agent.poll() is None, self.log()
        self.agent.kill()
        self.agent.wait()
        self.origin = self.moment + timedelta(seconds=3)
        wait_for(lambda: not processes(self.folder), why="what it asked NVML with is gone too")

    def stop(self) -> None:
        """End it in peace: nothing is left of it."""
        assert self.agent is not None
        self.agent.terminate()
        assert self.agent.wait(60) == 0, self.log()
        wait_for(lambda: not processes(self.folder), why="nothing is left")

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def until(self, moment: datetime) -> None:
        def come() -> bool:
            assert self.agent is not None
            assert self.agent.poll() is None, self.log()
            return self.moment >= moment

        wait_for(come, 120, f"{moment}")

    def written(self) -> tuple[Sums, Sums]:
        """What waits on the disk: milliseconds read, and busy ones."""
        sampled, busy = Sums(), Sums()
        for path in sorted(self.journal.folder.glob("*.parts")):
            for part in self.journal.read(path):
                key = (part.pci_address, part.minute, part.booking, part.instance)
                sampled[key] += part.sampled_ms
                busy[key] += part.busy_ms
        return sampled, busy

    def settled(self) -> bool:
        """Whether nobody else is in a transaction."""
        query = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND state <> 'idle'"
        )
        with self.app.app_context():
            found = db.session.scalar(query)
            db.session.remove()
        return found == 0

    def rows(self) -> tuple[Sums, Sums]:
        """The same, of what has arrived."""
        sampled, busy = Sums(), Sums()
        with self.app.app_context():
            pci = {gpu.id: gpu.pci_address for gpu, _host in inventory.gpus()}
            query = sa.select(UsageMinute, Consumer).join(Consumer, Consumer.id == UsageMinute.consumer_id)
            for minute, consumer in db.session.execute(query):
                key = (pci[minute.gpu_id], minute.minute, consumer.booking_id or 0, consumer.instance)
                sampled[key] += minute.sampled_ms
                busy[key] += minute.busy_ms
            db.session.remove()
        return sampled, busy


@pytest.fixture
def scene(fresh_db: str, tmp_path: Path) -> Iterator[Scene]:
    with crossing(fresh_db) as way:
        made = Scene(fresh_db, way, tmp_path)
        yield made
        if made.agent is not None and made.agent.poll() is None:
            made.agent.kill()
            made.agent.wait()
        with made.app.app_context():
            db.engine.dispose()


def by_minute(sums: Sums, pci: str) -> Counter[datetime]:
    found: Counter[datetime] = Counter()
    for (address, minute, _booking, _instance), value in sums.items():
        if address == pci:
            found[minute] += value
    return found


def test_an_hour_without_the_database_and_two_kills_each_minute_arrives_once(scene: Scene) -> None:
    scene.furnish("alice")
    shares, kills, kept = [(scene.began, 30)], [], []
    scene.nvml.say(whole(1, 30), whole(2))
    scene.start()
    scene.until(scene.began + 3 * MINUTE)
    wait_for(lambda: any(key[2] == scene.booking for key in scene.rows()[0]), 60, "minutes arrive")
    scene.way.cut()
    wait_for(scene.settled, why="what was on its way is done, or never will be")
    away, before = scene.moment, scene.rows()
    for minutes, share in ((20, 60), (40, 90)):
        scene.until(away + minutes * MINUTE)
        kept.append(scene.written())
        scene.kill()
        kills.append((last(kept[-1]), scene.origin + MINUTE))  # of these minutes it may lose some
        shares.append((scene.origin, share))
        scene.nvml.say(whole(1, share), whole(2))
        scene.start()
    scene.until(away + 60 * MINUTE)
    assert scene.rows() == before, "it was away"
    waiting = scene.written()
    assert len({key[1] for key in waiting[0]}) >= ENOUGH
    scene.way.marked, scene.way.rob = b"usage_batch", [REQUEST, ANSWER]
    scene.way.restore()
    back = scene.moment
    wait_for(lambda: last(scene.rows()) >= back + 2 * MINUTE, 60, "it arrives")
    assert scene.way.robbed == [REQUEST, ANSWER], "a batch was lost on its way; it was taken then, and the answer lost"
    scene.stop()
    arrived, meanwhile = scene.rows(), (away + MINUTE, last(waiting))
    for number, found in enumerate(arrived):
        assert between(found, *meanwhile) == between(waiting[number], *meanwhile), "what was on the disk, and once"
        for one in kept:
            assert all(found[key] >= value for key, value in one[number].items()), "no kill took what was on the disk"
    judge(scene, shares, kills)


def last(found: tuple[Sums, Sums]) -> datetime:
    """The minute that is being measured: those before it are whole."""
    assert found[0], "nothing is there"
    return max(key[1] for key in found[0])


def between(sums: Sums, first: datetime, end: datetime) -> dict[Key, int]:
    """Those of minutes that lie in there."""
    return {key: value for key, value in sums.items() if first <= key[1] < end}


def judge(scene: Scene, shares: list[tuple[datetime, int]], kills: list[tuple[datetime, datetime]]) -> None:
    """Each minute against what NVML was told; `kills`: the first and last moment of which something may be lost."""
    (sampled, busy), left = scene.rows(), scene.written()[0]
    assert not list(scene.journal.folder.glob("*.refused"))
    end = min(key[1] for key in left) if left else max(key[1] for key in sampled)
    first, second = scene.gpus
    assert {key[2:] for key in sampled if key[0] == first} == {(scene.booking, "alice")}
    assert {key[2:] for key in sampled if key[0] == second} == {(0, "")}
    assert sum(by_minute(busy, second).values()) == 0
    for pci in scene.gpus:
        found, used = by_minute(sampled, pci), by_minute(busy, pci)
        number = 0
        minute = scene.began + 2 * MINUTE
        while minute < end:
            assert found[minute] <= 60_000, f"twice: {minute}"
            cut = any(lost <= minute <= again for lost, again in kills)
            if not cut:
                share = [share for since, share in shares if since <= minute][-1] if pci == first else 0
                assert found[minute] == 60_000, minute
                assert abs(used[minute] - 600 * share) <= 15, f"{minute}: to the rounding of each look"
                number += 1
            minute += MINUTE
        assert number >= ENOUGH


@pytest.fixture
def box() -> Iterator[Box]:
    need("root", os.geteuid() == 0, "cgroups can only be made by root")
    try:
        made = Box(unique())
    except OSError as error:
        need("cgroups", ok=False, why=f"none can be made: {error}")
    yield made
    made.remove()


def test_busy_time_comes_from_the_processes_of_a_machine_to_its_bookings_page(scene: Scene, box: Box) -> None:
    scene.furnish(box.name)
    hers, others = box.init, os.getpid()
    known = {hers: Process(1000, share=45), others: Process(200, share=15)}
    scene.nvml.say(whole(1, 60, compute=[hers, others], known=known), whole(2))
    scene.start()
    wait_for(lambda: max((key[1] for key in scene.rows()[0]), default=scene.began) >= scene.began + 12 * MINUTE, 60)
    scene.stop()
    sampled, busy = scene.rows()
    mine, host = (scene.booking, box.name), (0, "")
    for number in range(2, 11):
        minute = scene.began + number * MINUTE
        found = {key[2:]: (value, busy[key]) for key, value in sampled.items() if key[:2] == (scene.gpus[0], minute)}
        assert found.keys() == {mine, host}
        assert sum(value for value, _busy in found.values()) == 60_000
        assert abs(found[mine][1] - 27_000) <= 15, "three quarters of 60 %"
        assert abs(found[host][1] - 9_000) <= 15
        assert found[host][0] == found[host][1], "what was idle is the booking's"
    seconds = sum(value for key, value in busy.items() if key[2] == scene.booking) / 1000
    minutes = len({key[1] for key in busy if key[2] == scene.booking})
    assert 27 * (minutes - 2) <= seconds <= 27 * minutes + 1, "three quarters of 60 %, but for the first and the last"
    with scene.app.app_context():
        with transaction():  # as a pass of those minutes would have written: passes have the time of today
            db.session.execute(sa.update(Allocation).values(attached_at=scene.began - MINUTE))
        page = Client(scene.app).login_as(scene.alice).get(f"/bookings/{scene.booking}")
    said = re.search(r"attached [\d.]+, busy ([\d.]+) \(", page.text)
    assert said, page.text
    assert abs(float(said[1]) - seconds / 3600) <= 0.051, "in tenths"
    assert float(said[1]) > 0
