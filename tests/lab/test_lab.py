"""The lab itself: it comes up as asked, hides what a snap hides, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.drivers.base import GpuInfo, Node, Tag, device_name
from app.drivers.lxd import PylxdDriver
from tests.lab import registry, remains
from tests.lab.fixtures import Hosts
from tests.lab.lab import MODEL, Lab
from tests.lab.remains import down, sweep
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab

TAG = Tag(1, 2, 3)


def traces(folder: Path) -> list[str]:
    """What of a lab is still there."""
    loops = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True).stdout
    found = [line for line in loops.splitlines() if str(folder) in line]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    found += [str(pid) for pid in remains._pids() if str(folder).encode() in remains._read(pid, "cmdline")]
    found += [str(path) for path in folder.rglob("*")]
    return found


def test_a_pool_is_filled_and_has_room_again_or_it_is_said(
    lab: Hosts, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    host, place = lab.ws1, lab.ws1.lxd_dir / "storage-pools" / "filling"
    host.lxc("storage", "create", "filling", "btrfs", "size=512MiB")
    request.addfinalizer(lambda: host.lxc("storage", "delete", "filling"))
    takes = f"fallocate -l 100M {place}/other 2> /dev/null && echo taken; true"
    with host.filled("filling"):
        assert host.as_lxd(takes) == ""
    assert host.as_lxd(takes) == "taken\n"
    monkeypatch.setattr("tests.lab.lab.FREED", 0.5)
    with pytest.raises(RuntimeError, match=r"no room for \d+ MiB 0 s after.*\n?.*Data"), host.filled("filling"):
        host.as_lxd(f"ln {place}/filler {place}/kept")  # what is removed is not given back
    host.as_lxd(f"rm {place}/kept {place}/other")


def test_a_lab_shows_its_gpus_and_leaves_nothing(lab_directory: Path) -> None:
    folder = lab_directory / "own"
    with Lab(folder, gpus=3) as host:
        assert PylxdDriver(str(host.socket)).gpus() == host.gpus
        assert host.gpus[2] == GpuInfo("0000:03:00.0", MODEL, host.minors[2])
        name = host.launch()
        port = ["listen=unix:@berth-lab-test", "connect=tcp:127.0.0.1:22", "bind=host"]
        host.lxc("config", "device", "add", name, "ssh", "proxy", *port)  # a helper process of its own
        assert traces(folder)
        nodes = [Path(f"/dev/nvidia{minor}") for minor in host.minors]
        assert all(node.is_char_device() for node in nodes)
    assert traces(folder) == []
    assert not any(node.exists() for node in nodes)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/lxc.*.{name}"))
    assert registry.find(folder) is None
    down(folder)  # a second time is fine


def test_what_a_killed_program_left_is_swept_away(lab_directory: Path) -> None:
    folder = lab_directory / "killed"
    code = (
        "import sys, time; from tests.lab.lab import Lab; lab = Lab(sys.argv[1], gpus=1); lab.up();"
        "print(lab.launch(), flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        name = child.stdout.readline().strip()
        record = registry.find(folder)
        assert name
        assert record
        assert not record.orphaned
        assert str(folder) not in sweep(), "its program lives"
        child.kill()
        child.wait()
        os.kill(record.daemon, signal.SIGKILL)  # LXD too: its containers outlive it
        sweep()  # unless another test run, which begins with it, was first
        assert registry.find(folder) is None
    finally:
        child.kill()
        child.stdout.close()
        down(folder)
    assert traces(folder) == []
    assert not Path(f"/dev/nvidia{record.minors[0]}").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/lxc.*.{name}"))


def test_with_lxd_from_a_snap_nodes_are_found_in_the_daemons_namespace(lab_directory: Path) -> None:
    with Lab(lab_directory / "snap", gpus=1, snap=True) as host:
        driver, name, (gpu,) = PylxdDriver(str(host.socket)), host.launch(), host.gpus
        driver.attach(name, gpu, TAG)
        assert list((host.lxd_dir / "devices").iterdir()) == []  # nothing to see from outside
        assert host.gpu_nodes(name) == {gpu.minor}
        assert [device.node for device in driver.observe().instances[name].devices] == [Node.PRESENT]
        host.restart()  # another process, the same namespace
        assert not host.revived()
        assert [device.node for device in driver.observe().instances[name].devices] == [Node.PRESENT]
        os.kill(registry.find(host.directory).daemon, signal.SIGABRT)  # type: ignore[union-attr]
        with pytest.warns(UserWarning, match="ended with"):
            wait_for(host.revived, 10)
        assert [device.node for device in driver.observe().instances[name].devices] == [Node.PRESENT]
        host.socket.unlink()
        with pytest.warns(UserWarning, match="lost its socket"):
            assert name in host.lxc("list", "--format", "csv")
        assert [device.node for device in driver.observe().instances[name].devices] == [Node.PRESENT]
        driver.detach(name, device_name(gpu.pci_address))
        assert driver.observe().instances[name].devices == ()
        assert host.gpu_nodes(name) == set()


def test_eight_readable_gpus(big_lab: Lab) -> None:
    driver, name, gpu = PylxdDriver(str(big_lab.socket)), big_lab.launch(), big_lab.gpus[7]
    assert driver.gpus() == big_lab.gpus
    assert len(big_lab.gpus) == 8
    assert [gpu.drm for gpu in big_lab.gpus] == [frozenset({number}) for number in registry.READABLE] * 4
    read = ["head", "-c1", f"/dev/dri/card{gpu.minor}"]
    try:
        assert "No such file" in big_lab.run(name, *read)
        driver.attach(name, gpu, TAG)
        assert big_lab.run(name, *read) == "\0"
        driver.detach(name, device_name(gpu.pci_address))
        assert "No such file" in big_lab.run(name, *read)
    finally:
        big_lab.remove(name)
