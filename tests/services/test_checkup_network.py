"""The check of the network: a bridge without rules, and machines that reach or can pass for others."""

from __future__ import annotations

import pytest

from app.drivers.facts import HostFacts, InstanceFacts, NetworkFacts
from app.services import checkup
from app.services.checkup import BAD, OK, WARN, Known, network

OURS = NetworkFacts("berthbr0", ours=True, subnet="10.9.0.1/24")
PLAIN = NetworkFacts("lxdbr0", subnet="10.8.0.1/24")
OUTSIDE = NetworkFacts("br0")
LOOSE = {"type": "nic", "network": "berthbr0"}
SAFE = {**LOOSE, "ipv4.address": "10.9.0.5"} | dict.fromkeys(network._FILTERED, "true")


def machine(nic: dict[str, str], *, own: bool = True, owner: str = "li") -> InstanceFacts:
    config = {"user.berth.owner": owner} if owner else {}
    return InstanceFacts("m1", config=config, devices={"eth0": nic}, own=frozenset({"eth0"} if own else ()))


def facts(*instances: InstanceFacts, walled: frozenset[str] | None = frozenset({"berthbr0"})) -> HostFacts:
    return HostFacts("6.9", instances=instances, networks=(OURS, PLAIN, OUTSIDE), walled=walled)


def test_berths_bridge_has_its_rules_or_not_or_nobody_knows() -> None:
    assert [found.level for found in network.judge(facts())] == [OK]
    [found] = network.judge(facts(walled=frozenset()))
    assert found.level == BAD
    assert "berth-firewall" in found.fix
    assert list(network.judge(facts(walled=None))) == []


def test_what_lxd_itself_refuses_on_a_host_with_berths_bridge() -> None:
    def said(restricted: bool | None, *instances: InstanceFacts, ours: bool = True) -> list[tuple[str, str]]:
        networks = (OURS,) if ours else (PLAIN,)
        facts = HostFacts("6.9", instances=instances, networks=networks, restricted=restricted)
        return [(one.level, one.detail) for one in checkup.findings(facts, Known("ws1")) if one.what == "restrictions"]

    assert [level for level, _ in said(True)] == [OK]
    assert [level for level, _ in said(False, machine(SAFE))] == [WARN]
    [(level, detail)] = said(False, machine(SAFE, owner=""))
    assert (level, "m1" in detail) == (OK, True)
    assert said(False, ours=False) == []
    assert said(None) == []


def test_a_limit_of_what_machines_send_is_said() -> None:
    [found] = network.judge(HostFacts("6.9", networks=(OURS,), walled=frozenset({"berthbr0"}), rate=900))
    assert "900 Mbit/s" in found.detail


def test_a_bridge_of_others_is_advised_against_once_machines_are_on_it() -> None:
    [_, found] = network.judge(facts(machine({"type": "nic", "network": "lxdbr0"})))
    assert (found.level, found.what) == (WARN, "network")
    assert "lxdbr0" in found.detail
    assert "berth host init" in found.fix


@pytest.mark.parametrize(
    ("nic", "own", "detail", "fix"),
    [
        (LOOSE, True, "it can reach the other machines",
         "lxc config device set m1 eth0 " + " ".join(f"{key}=true" for key in network._FILTERED)
         + " ipv4.address=ADDRESS, ADDRESS being a free one of 10.9.0.1/24"),
        ({**SAFE, "security.mac_filtering": "no"}, True, "it can pass for another one",
         "lxc config device set m1 eth0 security.mac_filtering=true"),
        ({**SAFE, "security.port_isolation": ""}, False, "it can reach the other machines",
         "lxc config device override m1 eth0 security.port_isolation=true"),
        ({"type": "nic", "nictype": "bridged", "parent": "br0", "security.mac_filtering": "true"}, True,
         "without security.port_isolation", "lxc config device set m1 eth0 security.port_isolation=true"),
        ({"type": "nic", "nictype": "macvlan", "parent": "eth0"}, True, "macvlan", "berth host init"),
    ],
)  # fmt: skip
def test_a_nic_that_lacks_something(nic: dict[str, str], own: bool, detail: str, fix: str) -> None:
    [found] = network.judge_machines(facts(machine(nic, own=own)), Known("ws1"))
    assert (found.level, found.what) == (WARN, "machine m1")
    assert detail in found.detail
    assert found.fix == fix or fix in found.fix.partition("(")[2]


def test_what_has_all_and_what_is_not_berths_is_left_in_peace() -> None:
    assert list(network.judge_machines(facts(machine(SAFE)), Known("ws1"))) == []
    assert list(network.judge_machines(facts(machine(LOOSE, owner="")), Known("ws1"))) == []
