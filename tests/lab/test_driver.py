"""The LXD driver on real containers: what it says against what the container and the host's files show."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.drivers.base import DeviceSeen, GiveUp, GpuInfo, InstanceSeen, InstanceSpec, Node, Tag, device_name
from app.drivers.lxd import PylxdDriver
from app.drivers.lxd.shapes import new_instance
from app.drivers.lxd.wire import Wire
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

TAG = Tag(1, 2, 1_800_000_000)
Launch = Callable[..., str]


def connect(host: Lab) -> PylxdDriver:
    return PylxdDriver(str(host.socket))


def seen(driver: PylxdDriver, name: str) -> InstanceSeen:
    return driver.observe(frozenset({name})).instances[name]


def only(driver: PylxdDriver, name: str) -> DeviceSeen:
    (device,) = seen(driver, name).devices
    return device


def forget(host: Lab, device: str) -> None:
    """Make LXD forget a device that is plugged in, as a lost update or a crash does."""
    host.sql(f"DELETE FROM instances_devices WHERE name = '{device}'")


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_exactly_the_booked_gpu_is_in_the_container_and_then_is_not(lab: Hosts, launch: Launch) -> None:
    for host in lab:
        driver, name = connect(host), launch(host)
        folder = host.lxd_dir / "devices" / name
        for gpu in host.gpus:
            driver.attach(name, gpu, TAG)
            assert host.gpu_nodes(name) == {gpu.minor}
            node = folder / f"unix.{device_name(gpu.pci_address).replace('-', '--')}.dev-nvidia{gpu.minor}"
            assert node.stat().st_rdev == os.makedev(195, gpu.minor)
            assert host.lxc("query", f"/1.0/instances/{name}").count(str(TAG)) == 2  # own and expanded config
            driver.detach(name, device_name(gpu.pci_address))
            assert host.gpu_nodes(name) == set()
            assert not node.exists()
            assert str(TAG) not in host.lxc("query", f"/1.0/instances/{name}")


def test_hosts_with_equal_addresses_are_told_apart_by_their_minors(lab: Hosts) -> None:
    one, two = (connect(host).gpus() for host in lab)
    assert [gpu.pci_address for gpu in one] == [gpu.pci_address for gpu in two]
    assert not {gpu.minor for gpu in one} & {gpu.minor for gpu in two}


def test_taking_one_gpu_away_leaves_the_other_in_the_container(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    first, second = host.gpus
    for gpu in host.gpus:
        driver.attach(name, gpu, TAG)
    assert host.gpu_nodes(name) == {first.minor, second.minor}
    driver.detach(name, device_name(first.pci_address))
    assert host.gpu_nodes(name) == {second.minor}
    assert only(driver, name).node == Node.PRESENT


def test_four_clients_at_once_on_one_instance_all_get_their_way(lab: Hosts, launch: Launch) -> None:
    host, name = lab.ws1, launch(lab.ws1)
    drivers = [connect(host) for _ in range(4)]  # as of four processes: their locks do not know each other

    def with_each(act: Callable[[PylxdDriver, GpuInfo], None]) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(act, drivers, host.gpus * 2))

    for _ in range(3):
        with_each(lambda driver, gpu: driver.attach(name, gpu, TAG))
        assert [(d.node, d.configured) for d in seen(drivers[0], name).devices] == [(Node.PRESENT, True)] * 2
        with_each(lambda driver, gpu: driver.detach(name, device_name(gpu.pci_address)))
        assert seen(drivers[0], name).devices == ()


def test_an_update_that_another_client_overtakes_is_made_again(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    stop = threading.Event()

    def disturb() -> None:
        for number in range(1000):
            if stop.is_set():
                return
            host.lxc("config", "set", name, f"user.noise={number}", check=False)

    noise = threading.Thread(target=disturb)
    noise.start()
    try:
        for _ in range(5):
            driver.attach(name, host.gpus[0], TAG)
            driver.detach(name, device_name(host.gpus[0].pci_address))
    finally:
        stop.set()
        noise.join()
    assert seen(driver, name).devices == ()
    assert host.gpu_nodes(name) == set()


def test_attached_without_a_node_is_seen_as_absent(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    gpu = host.gpus[0]
    with host.without_node(gpu.minor):
        driver.attach(name, gpu, TAG)  # LXD says done
        assert host.gpu_nodes(name) == set()
        assert only(driver, name).node == Node.ABSENT
    driver.detach(name, device_name(gpu.pci_address))
    driver.attach(name, gpu, TAG)
    assert only(driver, name).node == Node.PRESENT


def test_a_node_that_lxd_forgot_is_seen_and_can_be_taken_away(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    gpu = host.gpus[0]
    device = device_name(gpu.pci_address)
    driver.attach(name, gpu, TAG)
    forget(host, device)
    assert only(driver, name) == DeviceSeen(device, gpu.pci_address, ours=True, node=Node.PRESENT, configured=False)
    driver.detach(name, device)
    assert seen(driver, name).devices == ()
    assert host.gpu_nodes(name) == set()
    driver.attach(name, gpu, TAG)
    forget(host, device)
    driver.attach(name, gpu, TAG)  # LXD alone refuses: the node's file exists
    assert only(driver, name) == DeviceSeen(device, gpu.pci_address, ours=True, node=Node.PRESENT, tag=TAG)


def test_a_bind_mount_that_outlives_the_booking_is_not_taken_for_gone(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    gpu = host.gpus[0]
    driver.attach(name, gpu, TAG)
    assert only(driver, name).node == Node.PRESENT
    script = f"touch '/root/my keep' && mount --bind /dev/nvidia{gpu.minor} '/root/my keep'"
    # In the first process's own mount namespace, where `exec` starts.
    assert host.run(name, "sh", "-c", script) == ""
    driver.detach(name, device_name(gpu.pci_address))
    assert (only(driver, name).configured, only(driver, name).node) == (False, Node.PRESENT)
    host.run(name, "umount", "/root/my keep")
    assert seen(driver, name).devices == ()


def test_a_node_that_root_in_the_container_hides_is_neither_here_nor_there(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    gpu = host.gpus[0]
    driver.attach(name, gpu, TAG)
    host.run(name, "umount", f"/dev/nvidia{gpu.minor}")
    assert only(driver, name).node == Node.UNKNOWN
    driver.detach(name, device_name(gpu.pci_address))
    assert seen(driver, name).devices == ()


def test_a_link_planted_in_the_container_leads_nowhere(lab: Hosts, launch: Launch, tmp_path: Path) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    before = canary.stat()
    host.run(name, "ln", "-s", str(canary), f"/dev/nvidia{host.gpus[0].minor}")
    assert seen(driver, name).devices == ()
    driver.detach(name, device_name(host.gpus[0].pci_address))
    after = canary.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def test_devices_of_others_are_seen_and_not_ours(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    profile = host.unique("p")
    host.lxc("profile", "create", profile)
    try:
        ours = device_name(host.gpus[0].pci_address)
        host.lxc("profile", "device", "add", profile, ours, "gpu", f"pci={host.gpus[0].pci_address}")
        host.lxc("profile", "add", name, profile)
        host.lxc("config", "device", "add", name, "mine", "gpu", f"pci={host.gpus[1].pci_address.upper()}")
        char = f"source=/dev/nvidia{host.gpus[1].minor}"
        host.lxc("config", "device", "add", name, "raw", "unix-char", char, "path=/dev/nvidia-mine")
        found = {device.name: device for device in seen(driver, name).devices}
        assert {(d.name, d.pci_address, d.ours) for d in found.values()} == {
            (ours, host.gpus[0].pci_address, False), ("mine", host.gpus[1].pci_address, False), ("raw", "", False),
        }  # fmt: skip
        with pytest.raises(GiveUp, match="profile"):
            driver.detach(name, ours)
        host.lxc("profile", "device", "add", "default", "all", "gpu")
        with pytest.raises(GiveUp, match="default profile"):
            driver.create(InstanceSpec(host.unique(), "base", 1, 256, 1, "alice"), lambda _step, _percent: None)
    finally:
        host.lxc("profile", "device", "remove", "default", "all", check=False)
        host.remove(name)
        host.lxc("profile", "delete", profile)


def test_a_creation_whose_asker_died_is_joined(lab: Hosts, launch: Launch) -> None:
    host, driver = lab.ws2, connect(lab.ws2)
    spec = InstanceSpec(host.unique(), "base", 1, 256, 1, "alice")
    wire = Wire(str(host.socket))
    try:
        wire._call("post", ("instances",), json=new_instance(spec, "pool"))  # and nobody waits for its end
        driver.create(spec, lambda _step, _percent: None)
        assert seen(driver, spec.name).status == "running"
    finally:
        host.remove(spec.name)


def test_an_instance_is_made_as_confined_as_promised(lab: Hosts) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    spec = InstanceSpec(host.unique(), "base", 1, 300, 3, "alice")
    try:
        driver.create(spec, lambda _step, _percent: None)
        instance = Wire(str(host.socket)).get("instances", spec.name)
        config = instance["config"]
        assert {key: config[key] for key in config if key.startswith(("security.", "limits.", "boot.", "user."))} == {
            "security.privileged": "false", "security.nesting": "false", "security.devlxd": "false",
            "security.idmap.isolated": "true", "boot.autostart": "false", "user.berth.owner": "alice",
            "limits.cpu": "1", "limits.memory": "300MiB", "limits.processes": "4096",
        }  # fmt: skip
        assert instance["devices"]["root"] == {"type": "disk", "path": "/", "pool": "pool", "size": "3GiB"}
        assert host.run(spec.name, "nproc").strip() == "1"
        assert "/dev/lxd" not in host.run(spec.name, "ls", "-d", "/dev/lxd").split()
    finally:
        host.remove(spec.name)


def test_one_driver_serves_threads_and_a_fork(lab: Hosts, launch: Launch) -> None:
    driver, name = connect(lab.ws1), launch(lab.ws1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _n: driver.observe(frozenset({name})).instances.keys(), range(40)))
    assert found == [{name}] * 40
    child = os.fork()
    if child == 0:
        os._exit(0 if driver.observe(frozenset({name})).instances.keys() == {name} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert driver.observe(frozenset({name})).instances.keys() == {name}


def test_figures(lab: Hosts, launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    gpu = host.gpus[0]
    took: dict[str, list[float]] = {"attach": [], "detach": [], "observe": []}

    def timed(verb: str, call: Callable[[], object]) -> None:
        start = time.perf_counter()
        call()
        took[verb].append((time.perf_counter() - start) * 1000)

    for _ in range(20):
        timed("attach", lambda: driver.attach(name, gpu, TAG))
        timed("observe", driver.observe)
        timed("detach", lambda: driver.detach(name, device_name(gpu.pci_address)))
    with capsys.disabled():
        figures = (f"{verb} {statistics.median(ms):.0f} (max {max(ms):.0f})" for verb, ms in took.items())
        print(f"\n  LXD {driver.server().version}, ms, median of 20: {', '.join(figures)}")
    assert statistics.median(took["attach"]) < 300
    assert statistics.median(took["detach"]) < 300
