"""What a storage pool is made of: the first of ZFS, btrfs and LVM that LXD can use here, why not an earlier one, and
how an admin gets that."""

from __future__ import annotations

from dataclasses import dataclass

from app.drivers.system import NOT_FOUND, System
from app.services.hostinit.asking import ask, by_snap, distribution
from app.services.hostinit.step import Trouble

WHICH = ("zfs", "btrfs", "lvm")
_MODULES = {"zfs": "zfs", "btrfs": "btrfs", "lvm": "dm_thin_pool"}
_DEBIAN = {
    "zfs": "apt-get install linux-headers-amd64 zfs-dkms zfsutils-linux (of Debian's contrib); modprobe zfs",
    "btrfs": "apt-get install btrfs-progs",
    "lvm": "apt-get install lvm2 thin-provisioning-tools",
}


@dataclass(frozen=True)
class Choice:
    """`driver`: as LXD calls it; all of them in a plan for a host that has no LXD yet. `notes`: why it is this one, and
    what to do for another."""

    driver: str
    notes: tuple[str, ...]


def choose(system: System, wanted: str = "") -> Choice:
    """`wanted`: this one and no other. Raises Trouble where LXD can use none, or not that."""
    found = _usable(system)
    if wanted:
        if found is not None and wanted not in found:
            raise Trouble(f"LXD cannot make a pool of {wanted} here: {_why_not(system, wanted)}", _get(system, wanted))
        notes = [f"It takes {wanted}, as asked for."]
        if found is None and _lacks(system, wanted):
            notes = [
                f"{notes[0]} Now LXD could not: {_why_not(system, wanted)}",
                f"For {wanted}: {_get(system, wanted)}",
            ]
        return Choice(wanted, tuple(notes))
    if found is None:
        lacking = [name for name in WHICH[:1] if _lacks(system, name)]
        now = "".join(f" Now not {name}: {_why_not(system, name)}" for name in lacking)
        first = f"It takes the first of zfs, btrfs and lvm that LXD can use once it is there.{now}"
        return Choice("|".join(WHICH), (first, *(f"For {name}: {_get(system, name)}" for name in lacking)))
    if not found:
        raise Trouble(f"LXD can use none of {', '.join(WHICH)} here", "Install btrfs-progs and restart LXD.")
    return _first(system, found)


def replacing(pool: str) -> str:
    """How a pool goes whose storage is to be another: nothing turns one into another."""
    return f"while it is empty: lxc profile device remove default root; lxc storage delete {pool}"


def _first(system: System, found: list[str]) -> Choice:
    driver, *others = found
    passed = WHICH[: WHICH.index(driver)]
    reasons = "; ".join(f"not {name}: {_why_not(system, name)}" for name in passed)
    first = f"It takes {driver} and {reasons}" if passed else f"It takes {driver}, the first of zfs, btrfs and lvm"
    if others:
        options = ", ".join(f"--storage {name}" for name in others)
        first += f". Of those that LXD can use here there is also: {options}"
    return Choice(driver, (first, *(f"For {name}: {_get(system, name)}" for name in passed)))


def _usable(system: System) -> list[str] | None:
    """Those of ours that LXD can use, the best first; None where it does not answer."""
    server = ask(system, "")
    if server is None:
        return None
    found = {driver["Name"] for driver in server["environment"].get("storage_supported_drivers") or []}
    return [name for name in WHICH if name in found]


def _lacks(system: System, name: str) -> list[str]:
    """What is missing for it. The snap brings its own programs along."""
    lacking = []
    module = _MODULES[name]
    built_in = name in (system.read("/proc/filesystems") or "").split()
    if not (built_in or system.exists(f"/sys/module/{module}")):
        asked = system.run(["modinfo", module])
        if asked.status == NOT_FOUND:
            lacking.append(f"the module {module} is not loaded, and there is no modinfo to look for it")
        elif not asked.ok:
            lacking.append(f"the kernel has no module {module}")
    if not by_snap(system) and system.run([name, "version"]).status == NOT_FOUND:
        lacking.append(f"the programs of {name} are not installed")
    return lacking


def _why_not(system: System, name: str) -> str:
    there = "its module is there" if by_snap(system) else "its module and programs are there"
    return ", and ".join(_lacks(system, name)) or f"LXD does not offer it, though {there}"


def _get(system: System, name: str) -> str:
    """What gives LXD this one."""
    restart = "snap restart lxd" if by_snap(system) else "systemctl restart lxd"
    steps = [_install(system, name), restart] if _lacks(system, name) else [restart]
    again = f"then this again with --storage {name}. A pool stays what it was made of; one that is there goes first"
    return f"{'; '.join(steps)}; {again}, {replacing('POOL')}"


def _install(system: System, name: str) -> str:
    if by_snap(system):
        return "apt-get install linux-modules-extra-$(uname -r)"
    if "debian" in distribution(system):
        return _DEBIAN[name]
    return f"install the kernel's module and the programs of {name} as your distribution does"
