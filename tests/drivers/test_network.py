"""Which NICs a new machine gets, and addresses that nobody else has."""

from __future__ import annotations

from typing import Any

import pytest

from app.drivers.lxd import network

OURS = {
    "name": "berthbr0",
    "type": "bridge",
    "managed": True,
    "config": {"ipv4.address": "10.9.0.1/29", network.MARK: "machines"},
}
PLAIN = {
    "name": "lxdbr0",
    "type": "bridge",
    "managed": True,
    "config": {"ipv4.address": "10.8.0.1/24", "ipv6.address": "fd42::1/64"},
}


class Wire:
    """LXD's answers."""

    def __init__(self, *networks: dict[str, Any], taken: tuple[str, ...] = ()) -> None:
        devices = [{"eth0": {"type": "nic", "network": "berthbr0", "ipv4.address": address}} for address in taken]
        self.networks = list(networks)
        self.instances = [{"name": f"m{n}", "expanded_devices": device} for n, device in enumerate(devices)]

    def get(self, *path: str, **_params: object) -> list[dict[str, Any]]:
        return self.networks if path == ("networks",) else self.instances


def nics(wire: Wire, **profile: dict[str, str]) -> dict[str, Any]:
    return network.nics(wire, "new", profile)  # type: ignore[arg-type]


def test_a_host_without_any_network_gives_none() -> None:
    assert nics(Wire()) == {}
    assert nics(Wire(PLAIN)) == {}


def test_berths_bridge_comes_in_the_place_of_the_profiles_nics() -> None:
    found = nics(Wire(OURS, PLAIN), enp5s0={"type": "nic", "network": "lxdbr0"}, root={"type": "disk"})
    assert found["enp5s0"] == {"type": "none"}
    assert found["eth0"].pop("ipv4.address").startswith("10.9.0.")
    assert found["eth0"] == {"type": "nic", "name": "eth0", "network": "berthbr0", **network.FILTERED}


def test_an_address_is_free_and_never_the_gateways() -> None:
    others = tuple(f"10.9.0.{n}" for n in (2, 3, 4, 6))
    assert nics(Wire(OURS, taken=others))["eth0"]["ipv4.address"] == "10.9.0.5"
    full = nics(Wire(OURS, taken=(*others, "10.9.0.5")))["eth0"]
    assert "ipv4.address" not in full
    assert full["security.port_isolation"] == "true"


@pytest.mark.parametrize(
    ("nic", "more"),
    [
        ({"network": "lxdbr0", "name": "eth0"}, {**network.FILTERED, "ipv6.address": "none", "ipv4.address": ""}),
        ({"nictype": "bridged", "parent": "br0"}, network.ISOLATED),
        ({"nictype": "macvlan", "parent": "eth0"}, {}),
    ],
)
def test_without_berths_bridge_the_profiles_nic_is_confined_as_far_as_it_can_be(
    nic: dict[str, str], more: dict[str, str]
) -> None:
    found = nics(Wire(PLAIN), eth0={"type": "nic", **nic})["eth0"]
    if "ipv4.address" in more:
        assert found["ipv4.address"].startswith("10.8.0.")
        more = {**more, "ipv4.address": found["ipv4.address"]}
    assert found == {"type": "nic", **nic, **more}
