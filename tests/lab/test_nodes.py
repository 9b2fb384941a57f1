"""Where the device nodes really are, when LXD, root in the container or another admin says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.drivers.base import DeviceSeen, GiveUp, InstanceSpec, Node, device_name
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.looking import TAG, Launch, connect, only, seen

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("patient")]


def forget(host: Lab, device: str) -> None:
    """Make LXD forget a device that is plugged in, as a lost update or a crash does."""
    host.sql(f"DELETE FROM instances_devices WHERE name = '{device}'")


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


def test_a_bind_mount_that_outlives_the_booking_is_seen_for_what_it_is(lab: Hosts, launch: Launch) -> None:
    host, driver, name = lab.ws1, connect(lab.ws1), launch(lab.ws1)
    gpu = host.gpus[0]
    driver.attach(name, gpu, TAG)
    assert only(driver, name).node == Node.PRESENT
    script = f"touch '/root/my keep' && mount --bind /dev/nvidia{gpu.minor} '/root/my keep'"
    # In the first process's own mount namespace, where `exec` starts.
    assert host.run(name, "sh", "-c", script) == ""
    driver.detach(name, device_name(gpu.pci_address))
    assert (only(driver, name).configured, only(driver, name).node) == (False, Node.COPY)
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
