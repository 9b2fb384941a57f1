"""`berth host init` against a real LXD that nobody has set up: pool, bridge and profile, on a disk of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.system import Done, System
from app.services import hostinit
from app.services.hostinit import State, Wish
from tests.lab.lab import Lab
from tests.services.hostinit.paper import PaperSystem

pytestmark = pytest.mark.lab

REAL = {"lxc", "lsblk", "wipefs", "ip", "lxd"}


class HalfReal(PaperSystem):
    """The lab's LXD and this machine's disks; packages, systemd and files on paper."""

    def run(self, argv: Sequence[str], limit: float = 60, more: Mapping[str, str] | None = None) -> Done:
        return System.run(self, argv, limit, more) if argv[0] in REAL else super().run(argv, limit, more)

    def busy(self, device: str) -> bool:
        return System().busy(device)


@pytest.fixture
def host(lab_directory: Path) -> Iterator[Lab]:
    lab = Lab(lab_directory / "fresh", gpus=0, bridge=True)
    lab.up(bare=True)
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture
def disk(lab_directory: Path) -> Iterator[str]:
    """A disk of 2 GiB that somebody has used."""
    file = lab_directory / "disk"
    subprocess.run(["truncate", "--size=2G", file], check=True)
    subprocess.run(["mkfs.ext4", "-q", file], check=True)
    made = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True, text=True)
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=False)
        file.unlink()


def test_a_fresh_lxd_is_set_up_and_a_second_run_finds_it_so(host: Lab, disk: str, tmp_path: Path) -> None:
    system = HalfReal(
        tmp_path, LXD_DIR=str(host.lxd_dir), LXD_CONF=str(host.directory / "conf"), DATABASE_URL="postgresql://x",
        REDIS_AGENT_URL="redis://x",
    )  # fmt: skip
    wish = Wish("lab01", "/opt/berth", disk=disk, bridge=host.bridge, subnet=f"{host.gateway}/24")

    def run(wish: Wish, *, really: bool = True) -> dict[str, hostinit.Outcome]:
        return {one.title: one for one in hostinit.go(hostinit.steps(wish), system, really=really)}

    refused = run(wish)["storage pool"]
    assert refused.state == State.FAILED
    assert "not empty: ext4" in refused.lines[0]
    wish = replace(wish, erase=True)
    planned = run(wish, really=False)
    assert planned["storage pool"].lines == (f"wipefs --all {disk}", f"lxc storage create berth btrfs source={disk}")
    assert planned["storage pool"].notes[0].startswith("It takes btrfs and not zfs: ")
    assert json.loads(host.lxc("query", "/1.0/storage-pools")) == []
    unusable = run(replace(wish, storage="zfs"))["storage pool"]
    assert (unusable.state, unusable.lines[0].partition(":")[0]) == (State.FAILED, "LXD cannot make a pool of zfs here")
    first = run(wish)
    assert {one.state for one in first.values()} == {State.ALREADY, State.DONE}
    again = run(wish)
    assert {one.state for one in again.values()} == {State.ALREADY}
    assert again["storage pool"].lines == ("berth (btrfs)",)
    profile = json.loads(host.lxc("query", "/1.0/profiles/default"))["devices"]
    assert profile["root"]["pool"] == "berth"
    assert profile["eth0"]["network"] == host.bridge
    in_use = run(replace(wish, pool="another"), really=False)["storage pool"]
    assert in_use.state == State.FAILED
    assert f"in use: the kernel holds {disk}" in in_use.lines[0]
