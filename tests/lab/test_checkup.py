"""A check on a real LXD: states that are not safe, made for real, and each found with its fix."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.drivers.base import DENIED_CALLS, InstanceSpec, device_name
from app.drivers.lxd import PylxdDriver, peek, wire
from app.drivers.lxd.peek import Peek
from app.services import checkup
from app.services.checkup import BAD, OK, WARN, Finding, Known
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import TAG, connect
from tests.lab.remains import environment

pytestmark = pytest.mark.lab

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# Seconds on a busy machine: a question that LXD cannot end would take for ever, and keep a stop waiting for 30.
CHECKED, STOPPED = 25, 25
OF_THIS_MACHINE = {"AppArmor", "LXD: gpu id=", "LXD: updates at once", "LXD: images", "LXD: images, the last hole"}


def check(driver: PylxdDriver, *berths: str) -> list[Finding]:
    """What is found of a host whose GPUs, and these machines of it, Berth knows."""
    return checkup.findings(driver.examine(), Known("ws1", tuple(driver.gpus()), instances=frozenset(berths)))


def wrong(found: list[Finding], what: str = "") -> list[tuple[str, str, str]]:
    """Level, detail and fix of what is wrong with `what`; of all but what this machine's LXD lacks, if nothing."""
    picked = [one for one in found if one.level != OK and one.what not in OF_THIS_MACHINE]
    return [(one.level, one.detail, one.fix) for one in picked if not what or one.what == what]


@pytest.fixture
def machine(lab: Hosts) -> Iterator[Callable[[], str]]:
    """`machine()` is a running machine that Berth made on ws1."""
    made: list[str] = []

    def make() -> str:
        made.append(lab.ws1.unique())
        spec = InstanceSpec(made[-1], "base", cpus=1, memory_mib=256, disk_gib=2, owner="alice")
        connect(lab.ws1).create(spec, lambda _step, _percent: None)
        return made[-1]

    yield make
    lab.ws1.remove(*made)


@pytest.fixture
def init(lab: Hosts) -> Iterator[Callable[..., str]]:
    """`init(*options)` is a stopped instance that somebody made by hand on ws1."""
    made: list[str] = []

    def make(*options: str) -> str:
        made.append(lab.ws1.unique())
        lab.ws1.lxc("init", "base", made[-1], *options)
        return made[-1]

    yield make
    lab.ws1.remove(*made)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of LXD's may take long on a busy machine; none of the traps here lives by that."""
    monkeypatch.setattr(peek, "_PATIENCE", 20.0)
    monkeypatch.setattr(Peek.__init__, "__defaults__", (20.0,))


@contextmanager
def profile(host: Lab, *device: str) -> Iterator[str]:
    """A profile with one device."""
    name = host.unique("p")
    host.lxc("profile", "create", name)
    try:
        host.lxc("profile", "device", "add", name, *device)
        yield name
    finally:
        host.lxc("profile", "delete", name)


def test_what_berth_made_has_nothing_against_it(lab: Hosts, machine: Callable[[], str]) -> None:
    driver, name = connect(lab.ws1), machine()
    driver.attach(name, lab.ws1.gpus[0], TAG)
    facts = driver.examine()
    assert (facts.local, facts.driver, facts.unseen) == (True, "580.95.05", ())
    assert facts.nodes == set(lab.ws1.minors)
    assert facts.fence in {"v1", "v2"}
    assert next(one for one in facts.instances if one.name == name).libraries == frozenset()
    assert wrong(check(driver, name)) == []


def test_settings_that_are_not_safe(lab: Hosts, init: Callable[..., str]) -> None:
    keys = (
        "user.berth.owner=x",
        "security.nesting=true",
        "boot.autostart=true",
        "raw.lxc=lxc.apparmor.profile=unconfined",
    )
    name = init(*(part for key in keys for part in ("-c", key)))
    found = wrong(check(connect(lab.ws1), name), f"machine {name}")
    limits = "limits.cpu=4 limits.memory=16GiB limits.processes=4096"
    fixes = {fix for _level, _detail, fix in found}
    calls = DENIED_CALLS.replace("\n", "\\n")
    assert fixes == {
        f"lxc config set {name} security.syscalls.deny=$'{calls}'",
        f"lxc config unset {name} raw.lxc",
        f"lxc config set {name} security.nesting=false",
        f"lxc config set {name} security.idmap.isolated=true",
        f"lxc config set {name} boot.autostart=false",
        f"lxc config set {name} security.devlxd=false",
        f"lxc config set {name} {limits} && lxc config device override {name} root size=50GiB",
    }
    assert [level for level, _detail, _fix in found] == [BAD] + [WARN] * 6
    for command in (part for fix in fixes for part in fix.split(" && ")):  # what is said to mend it does
        words = ["bash", "-c", command]  # as a person pastes it
        subprocess.run(words, env=environment(lab.ws1.directory), check=True, capture_output=True, timeout=60)
    assert wrong(check(connect(lab.ws1), name)) == []


def test_a_privileged_instance(lab: Hosts, init: Callable[..., str]) -> None:
    name = init("-c", "security.privileged=true")
    [(level, detail, fix)] = wrong(check(connect(lab.ws1)))
    assert (level, fix) == (BAD, f"lxc config set {name} security.privileged=false")
    assert "privileged" in detail


def test_gpus_that_get_past_berth(lab: Hosts, init: Callable[..., str]) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), init("-c", "security.devlxd=false")
    gpu = host.gpus[1]
    host.lxc("config", "device", "add", name, "mine", "gpu", f"pci={gpu.pci_address}")
    host.lxc("config", "device", "add", name, "all", "gpu", "id=0")
    char = f"source=/dev/nvidia{gpu.minor}"
    host.lxc("config", "device", "add", name, "raw", "unix-char", char, "path=/dev/nvidia-mine")
    with profile(host, "shared", "gpu", f"pci={gpu.pci_address}") as used:
        [(level, detail, fix)] = wrong(check(driver), f"profile {used}")
        assert (level, fix) == (WARN, f"lxc profile device remove {used} shared")
        assert "nobody" in detail
        host.lxc("profile", "add", name, used)
        every = check(driver)
        found = {fix: detail for _level, detail, fix in wrong(every, f"machine {name}")}
        assert found.keys() == {
            *(f"lxc config device remove {name} {device}" for device in ("mine", "all", "raw")),
            f"lxc profile device remove {used} shared",
        }
        if every_gpu_by_id(every):
            assert "every GPU of the host" in found[f"lxc config device remove {name} all"]
        [(level, _detail, _fix)] = wrong(every, f"profile {used}")
        assert level == BAD
        for fix in found:
            host.lxc(*fix.split()[1:])
        assert wrong(check(driver)) == []
        host.lxc("profile", "remove", name, used)


def every_gpu_by_id(found: list[Finding]) -> bool:
    return any(one.what == "LXD: gpu id=" for one in found)


def test_a_copy_brings_the_gpu_along(lab: Hosts, machine: Callable[[], str]) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), machine()
    driver.attach(name, host.gpus[0], TAG)
    copy = host.unique()
    try:
        host.lxc("copy", name, copy)
        [(level, detail, fix)] = wrong(check(driver, name))
        device = device_name(host.gpus[0].pci_address)
        assert (level, fix) == (BAD, f"lxc config device remove {copy} {device}")
        assert "a copy" in detail
    finally:
        host.remove(copy)


def test_a_port_that_is_taken(lab: Hosts, init: Callable[..., str], machine: Callable[[], str]) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), init()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = ("proxy", f"listen=tcp:127.0.0.1:{port}", "connect=tcp:127.0.0.1:22")
        host.lxc("config", "device", "add", name, "ssh", *listen)
        [(level, detail, fix)] = wrong(check(driver))
        assert level == BAD
        assert f"port {port}/tcp" in detail
        assert "cannot start" in detail
        assert f"lxc config device set {name} ssh listen=" in fix
        with pytest.raises(RuntimeError, match=r"lxc start"):
            host.lxc("start", name)
    assert wrong(check(driver)) == []
    other = machine()
    host.lxc("config", "device", "add", other, "ssh", *listen)
    found = check(driver, other)
    assert f"machine {other} (ssh) has" in wrong(found, f"machine {name}")[0][1]
    assert f"machine {name} (ssh) wants too" in wrong(found, f"machine {other}")[0][1]
    host.remove(name)
    assert wrong(check(driver, other)) == []  # its own proxy listens there


def test_nodes_that_are_missing(lab: Hosts, machine: Callable[[], str]) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), machine()
    gpu = host.gpus[0]
    with host.without_node(gpu.minor):
        driver.attach(name, gpu, TAG)
        found = check(driver, name)
    [(level, detail, fix)] = wrong(found, "device nodes")
    assert (level, fix.split(";")[0]) == (BAD, f"nvidia-modprobe -u -c {gpu.minor}")
    assert f"/dev/nvidia{gpu.minor}" in detail
    [(level, detail, fix)] = wrong(found, f"machine {name}")
    assert level == BAD
    assert "no node of it" in detail
    assert f"nvidia-modprobe -u -c {gpu.minor}" in fix
    driver.detach(name, device_name(gpu.pci_address))
    driver.attach(name, gpu, TAG)
    assert wrong(check(driver, name)) == []


def test_gpus_that_only_one_side_knows(lab: Hosts) -> None:
    facts = connect(lab.ws1).examine()
    one, two = facts.gpus
    found = checkup.findings(facts, Known("ws1", (one,)))
    assert [level for level, _detail, _fix in wrong(found, "GPUs")] == [WARN]
    found = checkup.findings(facts, Known("ws1", (one, two, type(one)("0000:7f:00.0", "X", 99))))
    [(level, _detail, fix)] = wrong(found, "GPUs")
    assert level == BAD
    assert "berth host sync ws1" in fix


def test_libraries_of_another_driver(lab: Hosts, machine: Callable[[], str]) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), machine()

    def do(script: str) -> None:
        assert host.run(name, "sh", "-ec", f"cd {LIBRARIES}; {script}") == ""

    do("touch libnvidia-ml.so.550.54.14")
    [(level, detail, fix)] = wrong(check(driver, name))
    assert level == BAD
    assert "550.54.14" in detail
    assert "NVML error 18" in detail
    assert "NVIDIA-Linux-x86_64-580.95.05.run --no-kernel-modules" in fix
    do("touch libnvidia-ml.so.580.95.05; ln -s libnvidia-ml.so.580.95.05 libnvidia-ml.so.1")
    assert wrong(check(driver, name)) == []
    do("ln -sf libnvidia-ml.so.550.54.14 libnvidia-ml.so.1")  # both are there, and programs load the old one
    assert len(wrong(check(driver, name))) == 1


@pytest.mark.parametrize(
    "trap",
    [
        "mkfifo libnvidia-ml.so.1",  # LXD waits for somebody to write to it
        "ln -s /dev/zero libnvidia-ml.so.1",
        "truncate -s 1T libnvidia-ml.so.1",
        "seq -f name-%020g 100000 | xargs touch",
        "ln -s 'libnvidia-ml.so.550.1; reboot' libnvidia-ml.so.1",
    ],
    ids=["pipe", "endless", "huge", "crowd", "words"],
)
def test_a_hostile_machine_costs_a_check_little(
    lab: Hosts, machine: Callable[[], str], monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    asked, ask = list[str](), Peek._ask
    monkeypatch.setattr(Peek, "_ask", lambda peek, who, *more: asked.append(who) or ask(peek, who, *more))
    host, driver, name, other = lab.ws1, connect(lab.ws1), machine(), machine()
    host.run(other, "touch", f"{LIBRARIES}/libnvidia-ml.so.550.54.14")
    host.run(name, "sh", "-ec", f"cd {LIBRARIES}; {trap}", timeout=120)
    began = time.monotonic()
    found = check(driver, name, other)
    assert time.monotonic() - began < CHECKED
    assert asked.count(name) > 0
    assert len(wrong(found, f"machine {other}")) == 1
    assert wrong(found, f"machine {name}") == []
    asked.clear()
    again = check(driver, name, other)
    assert (name in asked) != trap.startswith("seq"), "who made it wait is not asked again"
    assert other in asked
    assert wrong(again) == wrong(found)
    unseen = [detail for _level, detail, _fix in wrong(again, "not seen")]
    assert all(name in detail and other not in detail for detail in unseen)
    assert bool(unseen) == trap.startswith("seq")
    began = time.monotonic()
    driver.stop(name, force=True)
    assert time.monotonic() - began < STOPPED


def test_one_who_is_not_root_says_what_it_could_not_see(lab: Hosts) -> None:
    """A child with root's group and no rights of root's: it may open LXD's socket and nothing else."""
    receive, send = os.pipe()
    driver = connect(lab.ws1)
    known = Known("ws1", tuple(driver.gpus()))
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(0)
            os.setuid(65534)
            wire.DEFAULT_CERTS = type(wire.DEFAULT_CERTS)("/nonexistent", "/nonexistent")  # not those in root's home
            rows = checkup.to_keep(checkup.findings(driver.examine(), known))
            os.write(send, json.dumps(rows).encode())
        finally:
            os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    with os.fdopen(receive) as answer:
        rows = {row["what"]: row for row in json.loads(answer.read())}
    assert "whether GPUs are in the machines" in rows["not seen"]["detail"]
    assert "as root" in rows["not seen"]["fix"]
