"""Facts in, findings out: one table for what is wrong, and that what is right is left in peace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.drivers.base import GpuInfo, InstanceSpec
from app.drivers.facts import HostFacts, InstanceFacts, Listener, ProfileFacts
from app.drivers.libraries import Way
from app.drivers.lxd import shapes
from app.drivers.lxd.examine import _relevant
from app.drivers.survey import PoolUse
from app.services import checkup
from app.services.checkup import BAD, LEVELS, OK, WARN, Finding, Known
from app.services.checkup.versions import LACKS, below, parse

ONE = GpuInfo("0000:01:00.0", "NVIDIA RTX A6000", 0)
TWO = GpuInfo("0000:02:00.0", "NVIDIA RTX A6000", 1)
OURS, TAG = "gpu-0000-01-00-0", "user.berth.gpu-0000-01-00-0"
REQUEST = shapes.new_instance(InstanceSpec("m1", "base", 4, 4096, 20, "liwei"), "pool")
MACHINE = InstanceFacts(
    "m1",
    config=_relevant(REQUEST["config"]),
    devices=REQUEST["devices"],
    own=frozenset(REQUEST["config"]) | frozenset(REQUEST["devices"]),
    profiles=("default",),
    libraries=frozenset(),
)
DEFAULT = ProfileFacts("default", {}, {"root": {"type": "disk", "path": "/", "pool": "pool"}}, 1)
CLEAN = HostFacts(
    "5.21.7",
    gpus=(ONE, TWO),
    driver="580.95.05",
    nodes=frozenset({0, 1}),
    apparmor=True,
    fence="v2",
    listeners=frozenset(),
    instances=(MACHINE,),
    profiles=(DEFAULT,),
)
KNOWN = Known("ws1", (ONE, TWO), frozenset(), frozenset({"m1"}), 0.1)


def machine(**changes: Any) -> InstanceFacts:
    """m1 with other keys (`_` for the dot; None: not set) and devices."""
    config = {key.replace("_", "."): value for key, value in changes.pop("config", {}).items()}
    kept = {key: value for key, value in {**MACHINE.config, **config}.items() if value is not None}
    devices = {**MACHINE.devices, **changes.pop("devices", {})}
    own = changes.pop("own", frozenset(kept) | frozenset(devices))
    return replace(MACHINE, config=kept, devices=devices, own=own, **changes)


def host(*instances: InstanceFacts, **changes: Any) -> HostFacts:
    return replace(CLEAN, instances=instances or CLEAN.instances, **changes)


def wrong(facts: HostFacts, known: Known = KNOWN) -> list[Finding]:
    return [one for one in checkup.findings(facts, known) if one.level != OK]


def gpu(**keys: str) -> dict[str, dict[str, str]]:
    return {"mine": {"type": "gpu", **keys}}


def proxy(listen: str, **keys: str) -> dict[str, dict[str, str]]:
    return {"ssh": {"type": "proxy", "listen": listen, "connect": "tcp:127.0.0.1:22", **keys}}


def test_what_berth_makes_itself_on_a_sound_host_has_nothing_against_it() -> None:
    assert wrong(CLEAN) == []
    attached = machine(config={"user_berth_x": "1"}, devices={OURS: {"type": "gpu", "pci": ONE.pci_address}})
    assert wrong(host(attached)) == []
    assert {one.what for one in checkup.findings(CLEAN, KNOWN)} == {
        "GPUs", "fence", "AppArmor", "NVIDIA driver", "NVIDIA libraries", "clock", "LXD", "profiles", "machines",
    }  # fmt: skip


@pytest.mark.parametrize(("used", "level"), [(None, None), (849, OK), (850, WARN), (949, WARN), (950, BAD)])
def test_how_full_a_storage_pool_is(used: int | None, level: str | None) -> None:
    pools = (PoolUse("fast", "zfs", used and used << 30, 1000 << 30), PoolUse("odd", "cephobject"))
    found = [one for one in checkup.findings(CLEAN, replace(KNOWN, pools=pools)) if "pool" in one.what]
    assert [(one.level, one.what) for one in found] == ([(level, "storage pool fast")] if level else [])
    assert all(one.fix for one in found if one.level != OK)


PROFILE_GPU = ProfileFacts("gpus", {}, {"all": {"type": "gpu"}}, 0)
MACHINES = [
    ({"config": {"security_privileged": "true"}}, BAD, "privileged", "config set m1 security.privileged=false"),
    ({"config": {"security_nesting": "1"}}, WARN, "nesting", "config set m1 security.nesting=false && lxc restart m1"),
    ({"config": {"security_idmap_isolated": None}}, WARN, "user ids", "m1 security.idmap.isolated=true"),
    ({"config": {"limits_cpu": None}}, WARN, "no limit of CPUs", "lxc config set m1 limits.cpu=4"),
    ({"config": {"limits_memory": ""}}, WARN, "no limit of memory", "lxc config set m1 limits.memory=16GiB"),
    ({"config": {"limits_processes": None}}, WARN, "no limit of processes", "m1 limits.processes=4096"),
    ({"devices": {"root": DEFAULT.devices["root"]}}, WARN, "disk size", "config device set m1 root size=50GiB"),
    ({"config": {"boot_autostart": "true"}}, WARN, "by itself", "lxc config set m1 boot.autostart=false"),
    ({"config": {"boot_autostart": None}}, WARN, "by itself", "lxc config set m1 boot.autostart=false"),
    ({"config": {"security_syscalls_deny": None}}, WARN, "io_uring", "m1 security.syscalls.deny=$'io_uring_setup"),
    ({"config": {"security_devlxd": None}}, WARN, "/dev/lxd", "config set m1 security.devlxd=false"),
    ({"config": {"raw_lxc": "lxc.apparmor.profile=unconfined"}}, BAD, "unconfined", "lxc config unset m1 raw.lxc"),
    ({"config": {"raw_seccomp": "x"}}, BAD, "raw.seccomp", "lxc config unset m1 raw.seccomp"),
    ({"config": {"raw_idmap": "both 1000 1000"}}, WARN, "raw.idmap", "lxc config unset m1 raw.idmap"),
    ({"devices": gpu(pci=ONE.pci_address)}, BAD, "did not make", "lxc config device remove m1 mine"),
    ({"devices": gpu()}, BAD, "every GPU of the host", "lxc config device remove m1 mine"),
    ({"devices": {"c": {"type": "unix-char", "source": "/dev/nvidia1"}}}, BAD, "/dev/nvidia1", "remove m1 c"),
    ({"devices": {"c": {"type": "unix-char", "path": "/dev/x", "major": "195", "minor": "0"}}}, BAD, "node", "m1 c"),
    ({"devices": {"c": {"type": "unix-char", "path": "/dev/dri/renderD128"}}}, BAD, "renderD128", "remove m1 c"),
    ({"devices": {"d": {"type": "disk", "source": "/dev", "path": "/hostdev"}}}, BAD, "/dev of the host", "m1 d"),
    ({"without_node": (OURS,), "devices": {OURS: {"type": "gpu", "pci": ONE.pci_address}}}, BAD, "no node of it",
     "nvidia-modprobe -u -c 0; berth reconcile ws1"),
    ({"libraries": frozenset({"550.54.14"})}, BAD, "NVML error 18", "NVIDIA-Linux-x86_64-580.95.05.run"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "level", "detail", "fix"), MACHINES)
def test_a_machine(changes: dict[str, Any], level: str, detail: str, fix: str) -> None:
    [found] = wrong(host(machine(**changes)))
    assert (found.level, found.what) == (level, "machine m1")
    assert detail in found.detail
    assert fix in found.fix


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"limits_cpu": None, "limits_cpu_allowance": "50%"}},
        {"devices": {"uvm": {"type": "unix-char", "source": "/dev/nvidia-uvm"}}},
        {"devices": {"ctl": {"type": "unix-char", "path": "/dev/x", "major": "195", "minor": "255"}}},
        {"devices": {"data": {"type": "disk", "source": "/srv/data", "path": "/data"}}},
        {"devices": {"vol": {"type": "disk", "source": "vol", "pool": "pool", "path": "/data"}}},
        {"devices": {"null": {"type": "unix-char", "source": "/dev/null"}}},
        {"libraries": frozenset({"580.95.05", "550.54.14"})},  # an old file beside the right one
        {"libraries": None},
        {"devices": proxy("tcp:0.0.0.0:60001")},
        {"devices": proxy("unix:/run/x")},
        {"devices": proxy("tcp:[::1]:60001,")},
        {"status": "stopped", "devices": proxy("tcp:0.0.0.0:60001", bind="instance")},
    ],
)
def test_a_machine_that_is_left_in_peace(changes: dict[str, Any]) -> None:
    assert wrong(host(machine(**changes), listeners=frozenset({Listener("tcp", "::", 60001)}))) == []


def test_an_id_device_hands_over_everything_on_an_old_lxd_only() -> None:
    by_id = host(machine(devices=gpu(id="0")))
    [found] = wrong(by_id)
    assert "every GPU" not in found.detail
    assert any("every GPU of the host" in one.detail for one in wrong(replace(by_id, version="5.0.2")))


def test_what_others_made_is_only_judged_by_what_it_does_to_berth() -> None:
    bare = InstanceFacts("theirs", config={"security.nesting": "true"}, profiles=("default",))
    assert wrong(host(bare)) == []
    for key in ("raw.lxc", "security.privileged"):
        assert [one.level for one in wrong(host(replace(bare, config={key: "true"})))] == [BAD]
    assert len(wrong(host(replace(bare, config={"user.berth.owner": "x"})))) == 5
    vm = replace(bare, container=False, config={"security.privileged": "true"}, devices=gpu(pci=ONE.pci_address))
    assert ["did not make" in one.detail for one in wrong(host(replace(vm, own=frozenset({"mine"}))))] == [True]


def test_a_copy_with_berths_device_and_another_project() -> None:
    device = {OURS: {"type": "gpu", "pci": ONE.pci_address}}
    copy = InstanceFacts("copy", "stopped", devices=device, own=frozenset(device))
    [found] = wrong(host(copy))
    assert (found.level, found.fix) == (BAD, f"lxc config device remove copy {OURS}")
    assert "a copy" in found.detail
    [found] = wrong(host(replace(copy, name="m1", project="lab")))  # the name of one of Berth's, somewhere else
    assert found.what == "machine m1 (project lab)"
    assert found.fix == f"lxc --project lab config device remove m1 {OURS}"


def test_a_profile_with_a_gpu() -> None:
    [found] = wrong(host(profiles=(DEFAULT, PROFILE_GPU)))
    assert (found.level, found.what, found.fix) == (WARN, "profile gpus", "lxc profile device remove gpus all")
    user = machine(devices=PROFILE_GPU.devices, own=frozenset(), profiles=("default", "gpus"))
    found = wrong(host(user, profiles=(DEFAULT, replace(PROFILE_GPU, used_by=1))))
    assert [(one.level, one.what) for one in found] == [(BAD, "profile gpus"), (BAD, "machine m1")]
    assert {one.fix for one in found} == {"lxc profile device remove gpus all"}
    [found] = wrong(host(profiles=(replace(DEFAULT, used_by=0, devices={"all": {"type": "gpu"}}),)))
    assert (found.level, found.what) == (BAD, "profile default")
    raw = machine(config={"raw_lxc": "x"}, own=frozenset(), profiles=("default", "gpus"))
    [found] = wrong(host(raw, profiles=(DEFAULT, ProfileFacts("gpus", {"raw.lxc": "x"}))))
    assert found.fix == "lxc profile unset gpus raw.lxc"


@pytest.mark.parametrize(
    ("changes", "level", "detail"),
    [
        ({"libraries_by": Way.MOUNT, "libraries": "580.95.05"}, OK, "mounted in new machines"),
        ({"libraries_by": Way.MOUNT, "libraries": "570.1.2"}, WARN, "of 570.1.2, the driver is of 580.95.05"),
        ({"libraries_by": Way.RUNTIME}, OK, "nvidia.runtime"),
        ({"libraries_by": Way.INSTALL}, OK, "bring its own"),
    ],
)
def test_the_way_of_the_libraries_is_told(changes: dict[str, Any], level: str, detail: str) -> None:
    [found] = [one for one in checkup.findings(host(**changes), KNOWN) if one.what == "NVIDIA libraries"]
    assert found.level == level
    assert detail in found.detail
    assert ("systemctl restart berth-agent" in found.fix) == (level == WARN)


HOSTS: list[tuple[dict[str, Any], dict[str, Any], str, str, str, str]] = [
    ({"local": False, "nodes": None, "fence": None}, {}, BAD, "kernel", "cannot be proven", "berth agent ws1"),
    ({"nodes": frozenset({0})}, {}, BAD, "device nodes", "/dev/nvidia1", "nvidia-modprobe -u -c 1"),
    ({"fence": ""}, {}, BAD, "fence", "no device cgroup", "CONFIG_CGROUP_BPF"),
    ({"apparmor": False}, {}, WARN, "AppArmor", "off", "apparmor=1"),
    ({"driver": ""}, {}, WARN, "NVIDIA driver", "not known", "/proc/driver/nvidia/version"),
    ({"gpus": (ONE,)}, {}, BAD, "GPUs", "0000:02:00.0", "berth host sync ws1"),
    ({}, {"gpus": (ONE,)}, WARN, "GPUs", "unknown to Berth", "berth host sync ws1"),
    ({}, {"gpus": (ONE, replace(TWO, minor=7))}, BAD, "GPUs", "/dev/nvidia7", "berth host sync ws1"),
    ({"unseen": ("a", "b")}, {}, WARN, "not seen", "a; b", "as root"),
    ({"version": "4.24"}, {}, BAD, "LXD", "older", "Upgrade LXD to 5.0.9"),
    ({}, {"skew": 2.1}, WARN, "clock", "2.1 s ahead", "set-ntp"),
    ({}, {"skew": -2.1}, WARN, "clock", "2.1 s behind", "set-ntp"),
    ({}, {"skew": -5.1}, BAD, "clock", "too early or late", "set-ntp"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "known", "level", "what", "detail", "fix"), HOSTS)
def test_a_host(facts: dict[str, Any], known: dict[str, Any], level: str, what: str, detail: str, fix: str) -> None:
    [found] = wrong(replace(CLEAN, **facts), replace(KNOWN, **known))
    assert (found.level, found.what) == (level, what)
    assert detail in found.detail
    assert fix in found.fix


def test_a_gpu_in_maintenance_may_be_away_or_there() -> None:
    known = replace(KNOWN, gpus=(ONE,), resting=frozenset({TWO.pci_address}))
    assert wrong(CLEAN, known) == []
    assert wrong(replace(CLEAN, gpus=(ONE,)), known) == []


def test_what_is_unknown_is_not_called_well() -> None:
    blind = replace(CLEAN, nodes=None, apparmor=None, fence=None, listeners=None)
    assert {"fence", "AppArmor", "device nodes"} & {one.what for one in checkup.findings(blind, KNOWN)} == set()


@pytest.mark.parametrize(
    ("version", "lacks"),
    [
        ("5.0.2", 4), ("5.0.3", 2), ("5.0.8", 1), ("5.0.9", 0), ("5.0.10", 0), ("5.1", 4), ("5.20", 4), ("5.21.0", 2),
        ("5.21.5", 2), ("5.21.6 LTS", 1), ("5.21.7", 0), ("5.21.7+snap1", 0), ("6.0", 2), ("6.8", 2), ("6.9", 0),
        ("6.10", 0), ("7.0", 0), ("simulated", 0),
    ],
)  # fmt: skip
def test_what_a_version_of_lxd_lacks(version: str, lacks: int) -> None:
    found = wrong(replace(CLEAN, version=version))
    assert [one.level for one in found] == [WARN] * lacks
    assert all("Upgrade LXD to" in one.fix and "Until then" in one.fix for one in found)


def test_the_way_up_stays_on_the_line() -> None:
    for version, target in {"5.0.2": "5.0.9", "5.15": "5.21.7", "5.21.3": "5.21.7", "6.5": "6.9"}.items():
        assert all(f"Upgrade LXD to {target} or newer" in one.fix for one in wrong(replace(CLEAN, version=version)))
    assert parse("6.9") == (6, 9, 0)
    assert parse("") is parse("x5.0") is None
    assert all(below((5, 0, 2), lack.mended) and lack.reason and lack.until for lack in LACKS)


STOPPED = {"status": "stopped", "devices": proxy("tcp:0.0.0.0:60000-60003,60010")}


@pytest.mark.parametrize(
    ("taken", "port"),
    [
        (Listener("tcp", "0.0.0.0", 60002), 60002), (Listener("tcp", "127.0.0.1", 60010), 60010),
        (Listener("tcp", "::", 60000), 60000), (Listener("tcp", "0.0.0.0", 60004), None),
        (Listener("udp", "0.0.0.0", 60002), None),
    ],
)  # fmt: skip
def test_a_stopped_machine_whose_port_is_taken(taken: Listener, port: int | None) -> None:
    found = wrong(host(machine(**STOPPED), listeners=frozenset({taken})))
    assert len(found) == (port is not None)
    for one in found:
        assert f"port {port}/tcp" in one.detail
        assert "cannot start" in one.detail
        assert f"sport = :{port}" in one.fix
        assert "config device set m1 ssh listen=tcp:0.0.0.0:PORT" in one.fix
    assert wrong(host(machine(**STOPPED | {"status": "running"}), listeners=frozenset({taken}))) == []


def test_a_port_that_two_want() -> None:
    other = replace(machine(devices=proxy("tcp:10.0.0.1:60001")), name="m2")
    found = wrong(host(machine(**STOPPED), other), replace(KNOWN, instances=frozenset({"m1", "m2"})))
    assert [(one.what, one.level) for one in found] == [("machine m1", BAD), ("machine m2", BAD)]
    assert "machine m2 (ssh) has" in found[0].detail
    assert "machine m1 (ssh) wants too" in found[1].detail
    apart = replace(machine(devices=proxy("tcp:10.0.0.2:60001")), name="m1")
    assert wrong(host(apart, other), replace(KNOWN, instances=frozenset({"m1", "m2"}))) == []
    doubled = {**proxy("tcp::60001"), "rdp": proxy("tcp:127.0.0.1:60001")["ssh"]}
    assert len(wrong(host(machine(devices=doubled)))) == 2


def test_what_is_kept_is_bounded_printable_and_the_worst_first() -> None:
    many = [Finding(LEVELS[n % 3], f"w{n}", "\x1b" * 2000, "f") for n in range(1200)]
    rows = checkup.to_keep(many)
    assert len(rows) == checkup.MOST + 1
    assert {row["level"] for row in rows[:-1]} == {BAD}
    assert rows[-1]["detail"] == f"{800 - checkup.MOST} further findings"
    assert all(row["detail"].isprintable() and len(row["detail"]) <= 600 for row in rows)
    assert checkup.to_keep(checkup.findings(CLEAN, KNOWN)) == []
    assert checkup.not_examined("no socket", "").fix


@pytest.mark.parametrize(
    ("way", "changes", "words"),
    [
        (Way.MOUNT, {}, "has none of NVIDIA's libraries"),
        (Way.RUNTIME, {}, "has none of NVIDIA's libraries"),
        (Way.RUNTIME, {"config": {"nvidia_runtime": "true"}}, "not been started since"),
        (Way.MOUNT, {"devices": {"nvidia-lib": {"type": "disk", "path": "/usr/local/nvidia"}}}, ""),
        (Way.MOUNT, {"libraries": frozenset({"580.95.05"})}, ""),
        (Way.MOUNT, {"libraries": None}, ""),  # nobody could look
        (Way.INSTALL, {}, ""),
    ],
)
def test_a_machine_without_any_nvidia_library_on_a_host_that_brings_them(
    way: Way, changes: dict[str, Any], words: str
) -> None:
    facts = host(machine(**changes), libraries_by=way, libraries="580.95.05")
    found = [one for one in wrong(facts) if one.what == "machine m1"]
    assert [one.level for one in found] == ([WARN] if words else [])
    assert all(words in one.detail and one.fix for one in found)
    if "has none" in words:
        assert 'berth instance libraries m1, or the button "Give it the host\'s libraries"' in found[0].fix
    assert not [one for one in wrong(replace(facts, gpus=())) if "of NVIDIA's libraries" in one.detail]


def test_one_with_libraries_of_another_version_can_be_lent_the_hosts() -> None:
    old = {"libraries": frozenset({"550.54.14"})}
    [found] = wrong(host(machine(**old), libraries_by=Way.MOUNT, libraries="580.95.05"))
    assert found.fix.startswith("berth instance libraries m1, or the button")
    mounted = machine(**old, devices={"nvidia-lib": {"type": "disk", "path": "/usr/local/nvidia"}})
    [found] = wrong(host(mounted, libraries_by=Way.MOUNT, libraries="580.95.05"))
    assert found.fix.startswith("Install the same version")
