"""The LXD driver on real containers: what it says against what the container and the host's files show."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.drivers.base import DENIED_CALLS, GiveUp, GpuInfo, InstanceSpec, Node, device_name
from app.drivers.lxd import PylxdDriver, instances
from app.drivers.lxd.shapes import new_instance
from app.drivers.lxd.wire import Wire
from tests.lab.fixtures import Hosts
from tests.lab.looking import TAG, Launch, connect, only, seen

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("patient")]


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


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_creation_that_was_asked_for_already_is_joined(
    lab: Hosts, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """By somebody who died before we looked, or who was faster between our look and our request."""
    host, driver = lab.ws2, connect(lab.ws2)
    spec = InstanceSpec(host.unique(), "base", 1, 256, 1, "alice")
    asked: list[str] = []
    look = instances.refuse_unknown_image

    def ask() -> None:  # and nobody waits for its end
        body = new_instance(spec, "pool")
        answer = Wire(str(host.socket))._call("post", ("instances",), json=body | {"description": "theirs"})
        asked.append(answer.json()["metadata"]["id"])

    def look_then_they_ask(wire: Wire, what: str, image: str) -> None:
        look(wire, what, image)
        ask()

    try:
        if when == "before":
            ask()
        else:
            monkeypatch.setattr(instances, "refuse_unknown_image", look_then_they_ask)
        driver.create(spec, lambda _step, _percent: None)
        assert seen(driver, spec.name).status == "running"
        assert len(asked) == 1
        assert host.lxc("query", f"/1.0/instances/{spec.name}").count('"theirs"') == 1, "it is the one they asked for"
    finally:
        host.remove(spec.name)


def test_a_start_that_gave_some_files_their_owner_only_is_taken_up_where_it_was(lab: Hosts) -> None:
    host, driver = lab.ws1, connect(lab.ws1)
    name = host.unique()
    host.lxc("init", "base", name, "-c", "security.idmap.isolated=true")
    files = host.lxd_dir / "storage-pools/pool/containers" / name / "rootfs"
    try:
        host.as_lxd(f"chattr +i {files}/usr/bin/env")
        with pytest.raises(GiveUp, match=r"change ownership of: \S+usr/bin/env"):
            driver.start(name)
        assert host.as_lxd(f"stat -c %u {files}/etc/passwd {files}/var/lib").split()[1] == "0", "half of it is done"
        host.as_lxd(f"chattr -i {files}/usr/bin/env")
        driver.start(name)
        owners = set(host.as_lxd(f"find {files} -xdev -printf '%U\\n'").split())
        first = min(map(int, owners))
        assert first >= 100_000
        assert all(int(owner) < first + 65_536 for owner in owners)
        assert host.run(name, "stat", "-c", "%u", "/usr/bin/env", "/etc/passwd").split() == ["0", "0"]
    finally:
        host.remove(name)


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
            "limits.memory.enforce": "hard", "limits.memory.swap": "false", "security.protection.delete": "true",
            "security.syscalls.deny": DENIED_CALLS,
            "security.syscalls.deny_compat": "true", "security.syscalls.deny_default": "true",
        }  # fmt: skip
        assert instance["devices"]["root"] == {"type": "disk", "path": "/", "pool": "pool", "size": "3GiB"}
        assert host.run(spec.name, "nproc").strip() == "1"
        assert "/dev/lxd" not in host.run(spec.name, "ls", "-d", "/dev/lxd").split()
    finally:
        host.remove(spec.name)


def test_over_https_with_a_pinned_certificate_gpus_come_and_go_but_nodes_are_unknown(
    lab: Hosts, launch: Launch, tmp_path: Path
) -> None:
    host, name = lab.ws2, launch(lab.ws2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = (
        "import sys; from app.drivers.base import *; from app.drivers.lxd import PylxdDriver;"
        "driver = PylxdDriver(sys.argv[1]); gpu = driver.gpus()[0]; driver.attach(sys.argv[2], gpu, Tag(1, 2, 3));"
        "print(driver.observe().instances[sys.argv[2]].devices[0].node);"
        "driver.detach(sys.argv[2], device_name(gpu.pci_address));"
        "print(driver.observe().instances[sys.argv[2]].devices)"
    )
    # Another home is another client; certificates that the environment names must not take the pinned one's place.
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "REQUESTS_CA_BUNDLE": bundle}
    remote = ["lxc", "remote", "add", "127.0.0.1", f"https://{address}", "--accept-certificate", "--password", "sesame"]
    host.lxc("config", "set", "core.https_address", address)
    host.lxc("config", "set", "core.trust_password", "sesame")
    try:
        subprocess.run(remote, env=env, check=True, capture_output=True, timeout=30)
        command = [sys.executable, "-c", code, f"https://{address}", name]
        shown = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
        assert (shown.stdout.split("\n")[:2], shown.stderr) == (["unknown", "()"], "")
    finally:
        host.lxc("config", "unset", "core.https_address")


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


@pytest.mark.timed
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
