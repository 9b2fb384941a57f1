"""What the simulated host adds to the contract: it lasts, it is shared, it fails and lies as told."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.drivers.base import DeviceSeen, GiveUp, HostUnreachable, InstanceSpec, Node, Tag, TryAgain, device_name
from app.drivers.connect import connect
from app.drivers.fake import FakeLxd
from app.drivers.lxd import PylxdDriver

TAG = Tag(1, 2, 3)
BUSY = TryAgain("Attach", "busy", "Wait.")


@pytest.fixture
def host(tmp_path: Path) -> FakeLxd:
    made = FakeLxd(tmp_path / "ws1.json", pace=0)
    made.add_instance("t1", owner="alice")
    return made


def attach(host: FakeLxd, number: int = 0) -> str:
    gpu = host.gpus()[number]
    host.attach("t1", gpu, TAG)
    return device_name(gpu.pci_address)


def test_a_new_host_has_four_gpus_and_two_images(tmp_path: Path) -> None:
    host = connect("sim:", "ws1", tmp_path)
    assert [gpu.minor for gpu in host.gpus()] == [0, 1, 2, 3]
    assert [image.alias for image in host.images()] == ["base", "desktop"]
    assert isinstance(connect("/var/lib/lxd/unix.socket", "ws2", tmp_path), PylxdDriver)


def test_options_make_another_host(tmp_path: Path) -> None:
    host = FakeLxd(tmp_path / "big.json", gpus=8, model="NVIDIA H200", first_minor=4)
    assert [gpu.minor for gpu in host.gpus()] == list(range(4, 12))
    assert {gpu.model for gpu in FakeLxd(tmp_path / "big.json").gpus()} == {"NVIDIA H200"}


def test_other_objects_and_processes_see_the_same_host(host: FakeLxd, tmp_path: Path) -> None:
    attach(host)
    assert FakeLxd(tmp_path / "ws1.json").observe().instances == host.observe().instances
    code = (
        "import sys; from pathlib import Path; from app.drivers.fake import FakeLxd;"
        "FakeLxd(Path(sys.argv[1])).detach('t1', 'gpu-0000-01-00-0')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "ws1.json")], check=True, timeout=60)
    assert host.observe().instances["t1"].devices == ()


def test_many_at_once_lose_nothing(host: FakeLxd) -> None:
    for number in range(4):
        host.add_instance(f"m{number}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: host.attach(f"m{n % 4}", host.gpus()[n // 4], TAG), range(16)))
    assert all(len(host.observe().instances[f"m{number}"].devices) == 4 for number in range(4))


def test_it_fails_as_often_as_told(host: FakeLxd) -> None:
    host.fail_next("attach", BUSY, times=2, after=1)
    attach(host)
    for _ in range(2):
        with pytest.raises(TryAgain) as caught:
            attach(host)
        assert (caught.value.what, caught.value.detail, caught.value.todo) == ("Attach", "busy", "Wait.")
    attach(host)
    host.fail_next("*", GiveUp("All"))
    with pytest.raises(GiveUp):
        host.observe()
    host.observe()
    assert host.calls().count("attach") == 4


def test_switched_off_it_is_unreachable_and_then_as_it_was(host: FakeLxd) -> None:
    attach(host)
    host.unreachable()
    with pytest.raises(HostUnreachable):
        host.observe()
    host.unreachable(False)
    assert len(host.observe().instances["t1"].devices) == 1


def test_it_lies_about_an_attach(host: FakeLxd) -> None:
    host.lie(attach=True)
    attach(host)
    assert host.observe().instances["t1"].devices[0].node == Node.ABSENT


def test_it_lies_about_a_detach(host: FakeLxd) -> None:
    name = attach(host)
    host.lie(detach=True)
    host.detach("t1", name)
    (device,) = host.observe().instances["t1"].devices
    assert device == DeviceSeen(name, "0000:01:00.0", ours=True, node=Node.PRESENT, configured=False)
    host.lie()
    host.detach("t1", name)
    assert host.observe().instances["t1"].devices == ()


def test_devices_behind_berths_back_are_not_ours(host: FakeLxd) -> None:
    host.plug("t1", "gpu0", "0000:01:00.0")
    host.plug("t1", "gpu-0000-02-00-0", "0000:02:00.0", own=False)
    host.plug("t1", "gpu-0000-03-00-0", "0000:03:00.0", tag=str(TAG))
    assert [(d.name, d.ours, d.tag) for d in host.observe().instances["t1"].devices] == [
        ("gpu0", False, None), ("gpu-0000-02-00-0", False, None), ("gpu-0000-03-00-0", True, TAG),
    ]  # fmt: skip
    with pytest.raises(GiveUp, match="profile"):
        host.detach("t1", "gpu-0000-02-00-0")


def test_a_creation_that_broke_off_is_taken_up(host: FakeLxd) -> None:
    spec = InstanceSpec("new", "base", 1, 512, 4, "alice")

    def die(step: str, percent: int) -> None:
        if step == "starting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.create(spec, die)
    assert host.observe().instances["new"].status == "stopped"
    host.create(spec, lambda _step, _percent: None)
    assert host.observe().instances["new"].status == "running"


def test_the_demo_takes_its_time(tmp_path: Path) -> None:
    host = FakeLxd(tmp_path / "demo.json", pace=0.1)
    start = time.monotonic()
    host.create(InstanceSpec("new", "base", 1, 512, 4, "alice"), lambda _step, _percent: None)
    assert 0.15 < time.monotonic() - start < 5  # two seconds at full length
