"""A disk that fills: what its machine, its neighbours and its host's pool go through, on a real LXD with quotas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.drivers.base import GiveUp, InstanceSpec
from app.drivers.lifecycle import Size
from app.drivers.lxd import PylxdDriver
from app.drivers.lxd.backups import PROJECT
from app.services.full_disks import FILLED
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import TAG, connect
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab

GPU = "gpu-0000-01-00-0"
FILL = "dd if=/dev/zero of=/root/fill bs=1M 2>/dev/null; sync; echo x > /root/more"
WRITE = "dd if=/dev/zero of=/root/written bs=1M count=20 conv=fsync 2>/dev/null && echo written"
Made = Callable[..., str]


@pytest.fixture
def made(lab: Hosts) -> Iterator[Made]:
    """`made(disk_gib)`: a machine as Berth makes it; gone after the test."""
    names: list[str] = []

    def make(disk_gib: int = 1) -> str:
        names.append(name := lab.ws1.unique("full"))
        connect(lab.ws1).create(InstanceSpec(name, "base", 1, 512, disk_gib, name), lambda *_: None)
        return name

    yield make
    for name in names:
        connect(lab.ws1).delete(name, name)  # as Berth does, also where its disk is full
    left = lab.ws1.lxc("list", "-c", "n", "-f", "csv").split()
    assert not set(names) & set(left)


@pytest.fixture
def tiny(lab: Hosts) -> Iterator[str]:
    """A small pool for new machines, which is empty again in the end: else it could not be removed."""
    lab.ws1.lxc("storage", "create", "tiny", "btrfs", "size=768MiB")
    lab.ws1.lxc("profile", "device", "set", "default", "root", "pool", "tiny")
    try:
        yield "tiny"
    finally:
        lab.ws1.lxc("profile", "device", "set", "default", "root", "pool", "pool")
        for fingerprint in volumes(lab.ws1, "image"):
            lab.ws1.lxc("storage", "volume", "delete", "tiny", f"image/{fingerprint}", check=False)
        lab.ws1.lxc("storage", "delete", "tiny", check=False)


def volumes(host: Lab, kind: str) -> list[str]:
    found = json.loads(host.lxc("query", "/1.0/storage-pools/tiny/volumes?recursion=1"))
    return [one["name"] for one in found if one["type"] == kind]


def fill(host: Lab, name: str) -> None:
    said = host.run(name, "sh", "-c", FILL, timeout=60)
    assert "quota exceeded" in said or "error" in said, said


def brimful(folder: Path) -> str:
    """Fills a disk to the last byte, and says so: what btrfs had put aside for writing it gives back with a sync.

    It writes on in one file: for a new one btrfs wants more room than LXD does for a start.
    """
    write = f"dd if=/dev/zero of={folder}/fill oflag=append conv=notrunc bs=4k; sync; echo x >> {folder}/fill"
    until_refused = f"for n in $(seq 20); do {write} && sync && continue; [ $n -lt 3 ] || {{ echo full; break; }}; done"
    return f"exec 2>/dev/null; {until_refused}"


def used(driver: PylxdDriver, name: str) -> int:
    """What its page counts with, in bytes."""
    return driver.survey(frozenset({name})).instances[name].disk or 0


def test_one_fills_its_disk_and_its_neighbour_writes_on(lab: Hosts, made: Made) -> None:
    """What it has booked comes and goes all the same, there is a way out, and none of it is a neighbour's trouble."""
    host, driver = lab.ws1, connect(lab.ws1)
    greedy, neighbour = made(), made()
    assert used(driver, greedy) < FILLED * (1 << 30)
    fill(host, greedy)
    assert used(driver, greedy) >= FILLED * (1 << 30), "its page says so"
    assert host.run(neighbour, "sh", "-c", WRITE) == "written\n"
    assert host.run(greedy, "systemctl", "is-active", "ssh") == "active\n"
    driver.attach(greedy, host.gpus[0], TAG)
    assert host.gpu_nodes(greedy) == {host.minors[0]}
    driver.detach(greedy, GPU)
    assert host.gpu_nodes(greedy) == set()
    assert GPU not in host.lxc("config", "show", greedy), "nor its tag"
    with pytest.raises(GiveUp, match="the machine's disk is full"):
        driver.snapshot(greedy, "hand-1")
    assert host.lxc("query", f"/1.0/instances/{greedy}/snapshots").strip() == "[]", "no half of one"
    assert host.run(greedy, "sh", "-c", f"rm /root/fill && sync && {WRITE}") == "written\n"
    wait_for(lambda: kept(host, greedy), 30, "there is room for one")


def kept(host: Lab, name: str) -> bool:
    """Whether a snapshot could be made. What was removed, btrfs may count for a moment longer: it fails, and has made
    one all the same, as may the one that was refused before. They are removed as Berth advises."""
    try:
        connect(host).snapshot(name, "hand-1")
    except GiveUp:
        remove_unlisted(host, name)
        return False
    return True


def unlisted_snapshot(host: Lab, name: str) -> Path:
    """Make one as btrfs leaves it, that made it and then said that there was no room for it; the directory it is in."""
    there, disk = places(host, name)
    host.as_lxd(f"mkdir -p {there} && btrfs subvolume snapshot {disk} {there}/hand-1")
    return there


def remove_unlisted(host: Lab, name: str) -> None:
    there = places(host, name)[0]
    each = f"for one in {there}/*/{name} {there}/*; do [ ! -d $one ] || btrfs subvolume delete $one; done"
    host.as_lxd(f"{each}; [ ! -d {there} ] || rmdir {there}")


def places(host: Lab, name: str) -> tuple[Path, Path]:
    """Where the snapshots of a machine are, and its disk."""
    pool = host.lxd_dir / "storage-pools" / "pool"
    return pool / "containers-snapshots" / name, pool / "containers" / name


def test_a_snapshot_that_lxd_does_not_know_of_is_said_and_can_be_removed(lab: Hosts, made: Made) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    name = made()
    there = unlisted_snapshot(host, name)
    with pytest.raises(GiveUp, match="a snapshot of it that LXD does not list") as refused:
        driver.delete(name, name)
    assert "delete what its pool has in containers-snapshots/" in refused.value.todo
    assert name in host.lxc("list", "-c", "n", "-f", "csv").split(), "nothing is lost meanwhile"
    remove_unlisted(host, name)
    assert not there.exists()
    driver.delete(name, name)


def test_two_of_them_stand_in_the_way_until_they_are_removed(lab: Hosts, made: Made) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    name = made()
    for _ in range(2):
        unlisted_snapshot(host, name)  # the second is made within the first
    with pytest.raises(GiveUp, match="a snapshot of it that LXD does not list"):
        driver.snapshot(name, "hand-1")
    remove_unlisted(host, name)
    driver.snapshot(name, "hand-1")


def test_a_snapshot_that_lxd_does_not_know_of_is_its_own_again_once_made_anew(lab: Hosts, made: Made) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    name = made()
    there = unlisted_snapshot(host, name)
    driver.snapshot(name, "hand-1")
    driver.delete(name, name)
    assert name not in host.as_lxd(f"ls {there.parent}").split()


def test_a_full_one_that_was_stopped_starts_once_its_disk_is_larger(lab: Hosts, made: Made) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    name = made()
    fill(host, name)
    driver.stop(name, force=True)
    inside = host.lxd_dir / "storage-pools" / "pool" / "containers" / name / "rootfs" / "root"
    host.as_lxd(brimful(inside))
    with pytest.raises(GiveUp, match="the machine's disk is full") as refused:
        driver.start(name)
    assert "give it a larger disk" in refused.value.todo
    driver.resize(name, Size(1, 512, 2))
    driver.start(name)
    assert host.run(name, "sh", "-c", WRITE) == "written\n"
    driver.stop(name, force=True)


def test_a_pool_that_fills_is_said_and_what_failed_works_when_there_is_room(
    lab: Hosts, made: Made, tiny: str, tmp_path: Path
) -> None:
    """Snapshots and backups of a machine that is there; a machine and a template: test_access and test_templates."""
    host, driver = lab.ws1, connect(lab.ws1)
    name = made()
    filler = host.lxd_dir / "storage-pools" / tiny / "filler"
    host.as_lxd(f"dd if=/dev/zero of={filler} bs=1M 2>/dev/null; sync")
    try:
        assert host.run(name, "sh", "-c", brimful(Path("/root")), timeout=60).endswith("full\n"), "no byte more"
        with pytest.raises(GiveUp, match="the host's storage pool is full"):
            driver.snapshot(name, "hand-1")
        with pytest.raises(GiveUp, match="the host's storage pool is full"):
            driver.backup(name, "", tmp_path / "back", 1 << 40, lambda *_: None)
        assert host.lxc("query", f"/1.0/instances/{name}/snapshots").strip() == "[]", "no half of one"
        assert host.lxc("list", "-c", "n", "-f", "csv", "--project", PROJECT) == "", "no copy"
        assert not (tmp_path / "back").exists()
        assert volumes(host, "container") == [name]
    finally:
        host.as_lxd(f"rm {filler}; sync")
    wait_for(lambda: host.run(name, "sh", "-c", f"rm -f /root/fill-*; {WRITE}") == "written\n", 30, "there is room")
    driver.snapshot(name, "hand-1")
    assert driver.backup(name, "hand-1", tmp_path / "back", 1 << 40, lambda *_: None) > 0
    assert (tmp_path / "back").exists()
