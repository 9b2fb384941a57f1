"""The steps of `berth host init` on a workstation on paper: what they would do, do, leave alone, and refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.system import NOT_FOUND, Done
from app.services import hostinit
from app.services.hostinit import State, Trouble, Wish, disks, firewall, services, units
from tests.require import need
from tests.services.hostinit.paper import PaperSystem

WISH = Wish("lab01", "/opt/berth/.venv/bin/berth", loop_gib=20, opened=("10.20.0.0/16",))
ADDRESSES = {"DATABASE_URL": 'postgresql://agent:p%24"w@db/berth', "REDIS_AGENT_URL": "redis://agent:x@cache/0"}
TITLES = [step.title for step in hostinit.steps(WISH)]


@pytest.fixture
def fresh(tmp_path: Path) -> PaperSystem:
    return PaperSystem(tmp_path, **ADDRESSES)


def run(system: PaperSystem, wish: Wish = WISH, *, really: bool = True) -> list[hostinit.Outcome]:
    return list(hostinit.go(hostinit.steps(wish), system, really=really))


def ready(system: PaperSystem) -> None:
    """Its packages are installed, and LXD can make a pool."""
    system._snap([])
    system.packages |= {"lxd", "btrfs-progs", "dnsmasq-base", "nftables"}


def states(outcomes: list[hostinit.Outcome]) -> list[State]:
    return [one.state for one in outcomes]


def test_a_plan_changes_nothing_and_names_every_command(fresh: PaperSystem, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    outcomes = run(fresh, really=False)
    assert states(outcomes) == [State.PLANNED] * len(TITLES)
    assert fresh.ran == []
    assert sorted(tmp_path.rglob("*")) == before
    text = "\n".join(line for one in outcomes for line in one.lines)
    assert "apt-get -qy install --no-install-recommends lxd btrfs-progs dnsmasq-base nftables" in text
    assert "lxc storage create berth 'zfs|btrfs|lvm' size=20GiB" in text
    assert "lxc network create berthbr0" in text
    assert "ipv4.address=10.100.0.1/24" in text  # 10.77 leads somewhere else here
    assert "p%24" not in text


def test_what_was_planned_is_done_and_the_second_run_finds_it_so(fresh: PaperSystem) -> None:
    fresh.broken["lxc storage create"] = "no btrfs"
    planned = [line for one in run(fresh, really=False) for line in one.lines if not line.startswith("write ")]
    fresh.broken.clear()
    fresh.packages |= {"lxd", "btrfs-progs", "dnsmasq-base", "nftables"}
    fresh._apt_get(["-qy", "install", "", "lxd"])
    fresh.lxd[""]["environment"]["storage_supported_drivers"] = [{"Name": "dir"}, {"Name": "lvm"}, {"Name": "btrfs"}]
    outcomes = run(fresh)
    assert states(outcomes) == [State.ALREADY, State.ALREADY] + [State.DONE] * 8
    assert "lxc storage create berth btrfs size=20GiB" in fresh.ran
    assert set(fresh.ran) - set(planned) == {"lxc storage create berth btrfs size=20GiB"}
    fresh.ran.clear()
    assert states(run(fresh)) == [State.ALREADY] * len(TITLES)
    assert fresh.ran == []
    assert fresh.sysctl == "22000-22999"
    assert services.environment(fresh) == ADDRESSES
    assert fresh._at(services.ENVIRONMENT).stat().st_mode & 0o777 == 0o600


def test_another_wish_changes_what_it_is_about_and_nothing_else(fresh: PaperSystem) -> None:
    ready(fresh)
    fresh.sysctl = "5000,8080-8090"
    assert State.FAILED not in states(run(fresh))
    assert fresh.sysctl == "5000,8080-8090,22000-22999"
    outcomes = run(fresh, replace(WISH, closed=("192.0.2.0/24",), loop_gib=0))
    assert [one.title for one in outcomes if one.state == State.DONE] == ["firewall of the bridge"]
    fresh.lxd["networks/berthbr0"]["config"]["dns.mode"] = "managed"
    fresh.ran.clear()
    assert states(run(fresh, replace(WISH, closed=("192.0.2.0/24",)))).count(State.DONE) == 1
    assert fresh.ran == ["lxc network set berthbr0 dns.mode=none"]


def test_rules_that_somebody_flushed_are_loaded_again(fresh: PaperSystem) -> None:
    """Its unit is active all the same."""
    ready(fresh)
    assert State.FAILED not in states(run(fresh))
    fresh.flushed = True
    outcomes = run(fresh)
    assert [one.title for one in outcomes if one.state == State.DONE] == ["firewall of the bridge"]
    assert not fresh.flushed


def test_an_agent_that_runs_is_given_the_new_addresses(fresh: PaperSystem) -> None:
    ready(fresh)
    assert State.FAILED not in states(run(fresh))
    fresh._environment["DATABASE_URL"] = "postgresql://agent:new@db/berth"
    fresh.ran.clear()
    outcomes = run(fresh, replace(WISH, first_port=30000, last_port=30999))
    assert "systemctl try-restart berth-agent.service" in fresh.ran
    assert services.environment(fresh)["DATABASE_URL"] == "postgresql://agent:new@db/berth"
    [known] = [one for one in outcomes if one.title == "host in Berth"]
    assert known.state == State.DONE
    [known] = [
        one for one in run(fresh, replace(WISH, first_port=30000, last_port=30999)) if one.title == "host in Berth"
    ]
    assert (known.state, known.lines) == (
        State.ALREADY, ("known, with the ports 22000-22999: berth host set lab01 --ports changes them",),
    )  # fmt: skip


def test_lxd_is_restricted_where_all_that_is_there_is_berths(fresh: PaperSystem) -> None:
    step = hostinit.Project()
    by_hand = {"name": "old-box", "config": {}}
    fresh.lxd = {"projects/default": {"config": {}}, "instances?recursion=1": [by_hand]}
    assert "old-box" in step.look(fresh)  # it may be a privileged one
    by_hand["config"] = {"user.berth.owner": "li"}
    assert step.look(fresh) == ""
    [command] = step.actions(fresh)
    command.do(fresh)
    assert fresh.lxd["projects/default"]["config"]["restricted.containers.privilege"] == "isolated"
    fresh.lxd["projects/default"]["config"]["restricted.containers.nesting"] = "allow"  # an admin knows why
    assert step.look(fresh).startswith("privileged")


def test_ubuntu_gets_lxd_from_the_snap(tmp_path: Path) -> None:
    system = PaperSystem(tmp_path, "ubuntu", **ADDRESSES)
    assert states(run(system)) == [State.DONE] * len(TITLES)
    assert "snap install lxd --channel=5.21/stable" in system.ran
    assert "lxc storage create berth zfs size=20GiB" in system.ran


def test_a_host_that_can_limit_no_disk_is_told_so_and_what_to_install(fresh: PaperSystem) -> None:
    """Without ZFS it is btrfs, and LVM without that; a pool that keeps nobody to a size is none that it makes."""
    fresh.packages |= {"lxd", "btrfs-progs", "dnsmasq-base", "nftables"}
    fresh._apt_get(["-qy", "install", "", "lxd"])
    fresh.lxd[""]["environment"]["storage_supported_drivers"] = [{"Name": "dir"}]
    pool = next(one for one in run(fresh, really=False) if one.title == "storage pool")
    said = " ".join((*pool.lines, pool.todo))
    assert pool.state == State.FAILED
    assert "LXD can use none of zfs, btrfs, lvm here" in said
    assert "Install btrfs-progs and restart LXD." in said
    assert "storage create" not in said


def usable(system: PaperSystem, *drivers: str) -> None:
    """Its LXD can make pools of these."""
    ready(system)
    system.lxd[""]["environment"]["storage_supported_drivers"] = [{"Name": "dir"}, *({"Name": one} for one in drivers)]


def pool(system: PaperSystem, wish: Wish = WISH, *, really: bool = False) -> hostinit.Outcome:
    return run(system, wish, really=really)[TITLES.index("storage pool")]


@pytest.mark.parametrize("really", [False, True])
def test_it_says_which_storage_it_takes_and_why_and_how_to_get_the_other(fresh: PaperSystem, *, really: bool) -> None:
    usable(fresh, "btrfs", "lvm")
    took, get = pool(fresh, really=really).notes
    assert took == (
        "It takes btrfs and not zfs: the kernel has no module zfs, and the programs of zfs are not installed. "
        "Of those that LXD can use here there is also: --storage lvm"
    )
    assert "zfs-dkms zfsutils-linux" in get
    assert "systemctl restart lxd" in get
    assert "--storage zfs" in get


def test_why_not_zfs_is_what_is_missing_and_no_more(fresh: PaperSystem) -> None:
    usable(fresh, "btrfs")
    fresh.modules.add("zfs")
    assert "not zfs: the programs of zfs are not installed" in pool(fresh).notes[0]
    fresh.tools.add("zfs")
    took, get = pool(fresh).notes
    assert "not zfs: LXD does not offer it, though its module and programs are there" in took
    assert (get.startswith("For zfs: systemctl restart lxd"), "apt-get" in get) == (True, False)
    fresh.modules.remove("zfs")
    fresh._modinfo = lambda _words: Done(NOT_FOUND, "-")  # type: ignore[method-assign]
    assert "not zfs: the module zfs is not loaded, and there is no modinfo to look for it" in pool(fresh).notes[0]
    fresh.write("/sys/module/zfs/version", "2.2")  # loaded, from wherever
    assert "LXD does not offer it" in pool(fresh).notes[0]


def test_with_lxd_from_the_snap_only_the_module_can_be_missing(tmp_path: Path) -> None:
    system = PaperSystem(tmp_path, "ubuntu", **ADDRESSES)
    usable(system, "lvm")
    took, *get = pool(system).notes
    assert took == (
        "It takes lvm and not zfs: the kernel has no module zfs; not btrfs: LXD does not offer it, though its module "
        "is there"
    )
    assert "linux-modules-extra" in get[0]
    assert "snap restart lxd" in get[0]
    assert get[1].startswith("For btrfs: snap restart lxd")


def test_the_best_there_is_needs_no_excuse_and_a_host_without_lxd_hears_what_stands_against_it(
    fresh: PaperSystem,
) -> None:
    before = pool(fresh).notes
    assert before[0].startswith("It takes the first of zfs, btrfs and lvm that LXD can use once it is there. Now not")
    assert "not zfs: the kernel has no module zfs" in before[0]
    assert "zfs-dkms" in before[1]
    usable(fresh, "zfs", "btrfs")
    assert pool(fresh).notes == (
        "It takes zfs, the first of zfs, btrfs and lvm. Of those that LXD can use here there is also: --storage btrfs",
    )
    assert State.FAILED not in states(run(fresh))
    assert pool(fresh).notes == (), "a pool that is there was not chosen now"


def test_a_storage_that_is_asked_for_is_taken_or_nothing_is(fresh: PaperSystem) -> None:
    wish = replace(WISH, storage="zfs")
    usable(fresh, "btrfs", "lvm")
    refused = pool(fresh, wish, really=True)
    assert refused.state == State.FAILED
    assert refused.lines == (
        "LXD cannot make a pool of zfs here: the kernel has no module zfs, and the programs of zfs are not installed",
    )
    assert "zfs-dkms" in refused.todo
    assert not [line for line in fresh.ran if "storage" in line]
    made = pool(fresh, replace(WISH, storage="lvm"), really=True)
    assert (made.state, made.lines, made.notes) == (State.DONE, ("berth (lvm)",), ("It takes lvm, as asked for.",))
    other = pool(fresh, replace(WISH, storage="btrfs"))
    assert (other.state, other.lines) == (State.FAILED, ("berth is of lvm, not of btrfs",))
    assert "lxc storage delete berth" in other.todo


def test_another_distribution_needs_lxd_and_nft_of_its_own(tmp_path: Path) -> None:
    system = PaperSystem(tmp_path, "fedora")
    system.broken["nft"] = "missing"
    [first, *rest] = run(system)
    assert (first.title, first.state) == ("packages", State.FAILED)
    assert "Install LXD and nft" in first.todo
    assert states(rest) == [State.LEFT] * len(rest)


def test_a_step_that_fails_says_why_leaves_the_rest_and_the_next_run_goes_on(fresh: PaperSystem) -> None:
    ready(fresh)
    fresh.broken["lxc network create"] = "Error: dnsmasq is missing"
    outcomes = run(fresh)
    failed = TITLES.index("bridge")
    assert states(outcomes)[failed:] == [State.FAILED] + [State.LEFT] * (len(TITLES) - failed - 1)
    assert "Error: dnsmasq is missing" in outcomes[failed].lines[0]
    assert outcomes[failed].todo
    fresh.broken.clear()
    assert states(run(fresh)) == [State.ALREADY] * failed + [State.DONE] * (len(TITLES) - failed)


def test_what_says_done_and_is_not_so_has_failed(fresh: PaperSystem) -> None:
    ready(fresh)
    fresh._systemctl = lambda words: Done(0 if not words[0].startswith("is-") else 1, "-")  # type: ignore[method-assign]
    assert states(run(fresh))[2] == State.FAILED


def test_without_addresses_the_agent_waits(tmp_path: Path) -> None:
    system = PaperSystem(tmp_path, "ubuntu")
    outcomes = run(system)
    assert states(outcomes)[-2:] == [State.FAILED, State.LEFT]
    assert "DATABASE_URL" in outcomes[-2].todo
    assert states(list(hostinit.go(hostinit.steps(WISH, agent=False), system, really=True))) == [State.ALREADY] * 8


def test_no_place_for_a_pool_is_said_with_the_disks_there_are(tmp_path: Path) -> None:
    system = PaperSystem(tmp_path, "ubuntu")
    listed = [{"name": "/dev/sdb", "type": "disk", "size": 2 << 40, "mountpoints": [None]}]
    system._lsblk = lambda _words: Done(0, json.dumps({"blockdevices": listed}))  # type: ignore[method-assign]
    system._wipefs = lambda _words: Done(0, "{}")  # type: ignore[attr-defined]
    found = run(system, replace(WISH, loop_gib=0))[TITLES.index("storage pool")]
    assert found.state == State.FAILED
    assert "--disk /dev/sdb (2048 GiB), --loop GIB" in found.todo


@pytest.mark.parametrize(
    ("part", "signature", "erase", "said"),
    [
        ({}, "", False, ""),
        ({}, "ext4", False, "not empty: ext4 on /dev/sdb"),
        ({}, "ext4", True, ""),
        ({"children": [{"name": "/dev/sdb1", "type": "part", "mountpoints": [None]}]}, "", False, "1 partitions"),
        (
            {"children": [{"name": "/dev/sdb1", "type": "part", "mountpoints": ["/home"]}]},
            "ext4",
            True,
            "mounted at /home",
        ),
        ({"children": [{"name": "/dev/mapper/vg", "type": "lvm", "mountpoints": []}]}, "", True, "is a lvm"),
    ],
)
def test_a_disk_is_taken_if_nothing_is_on_it(
    fresh: PaperSystem, part: dict[str, object], signature: str, erase: bool, said: str
) -> None:
    listed = {"blockdevices": [{"name": "/dev/sdb", "type": "disk", "size": 1, "mountpoints": [None], **part}]}
    found = {"signatures": [{"type": signature}]} if signature else {}
    fresh._lsblk = lambda _words: Done(0, json.dumps(listed))  # type: ignore[method-assign]
    fresh._wipefs = lambda _words: Done(0, json.dumps(found))  # type: ignore[attr-defined]
    if said:
        with pytest.raises(Trouble, match=said):
            disks.clear(fresh, "/dev/sdb", erase=erase)
    else:
        actions = disks.clear(fresh, "/dev/sdb", erase=erase)
        assert [action.words() for action in actions] == ["wipefs --all /dev/sdb"] * bool(signature)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a b"}, {"name": "x\nExecStart=/bin/sh"}, {"disk": "/dev/../etc"}, {"disk": "sdb"},
        {"loop_gib": 9, "disk": "/dev/sdb"},
        {"opened": ("10.0.0.1/8",)}, {"closed": ("} drop",)}, {"subnet": "10.77.0.0/24"}, {"subnet": "10.77.0.1"},
        {"rate": -1}, {"storage": "dir"}, {"first_port": 80}, {"first_port": 23000}, {"berth": "/opt/a b/berth"},
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_meant(changes: dict[str, object]) -> None:
    if changes.get("disk") and "loop_gib" not in changes:
        changes = {**changes, "loop_gib": 0}
    with pytest.raises(Trouble):
        replace(WISH, **changes)  # type: ignore[arg-type]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    need("systemd-analyze", shutil.which("systemd-analyze") is not None, "no systemd-analyze")
    berth = tmp_path / "berth"
    berth.write_text("#!/bin/sh\n")
    berth.chmod(0o755)
    agent, wall = tmp_path / "berth-agent.service", tmp_path / "berth-firewall.service"
    agent.write_text(units.AGENT.format(name="lab01", berth=berth, environment="/etc/berth/agent.env"))
    wall.write_text(units.FIREWALL.format(rules=services.RULES, table=firewall.TABLE))
    done = subprocess.run(["systemd-analyze", "verify", agent, wall], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "berth" in line]
    assert (done.returncode, ours) == (0, [])
    # 0.3 of it for SETUID and SETGID, without which the agent would read image files as root.
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=51", str(agent)]
    done = subprocess.run(rated, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_nft_takes_the_rules() -> None:
    need("nft", shutil.which("nft") is not None, "no nft")
    text = firewall.rules("berthbr0", ("10.20.0.0/16",), ("192.0.2.0/24",), rate=100_000)
    done = subprocess.run(["nft", "--check", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "not permitted" in done.stderr, done.stderr
