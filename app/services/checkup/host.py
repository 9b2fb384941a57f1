"""What is to be said of a host itself."""

from __future__ import annotations

from collections.abc import Iterator

from app.drivers.facts import HostFacts
from app.drivers.libraries import INSIDE, Way
from app.services.checkup.finding import BAD, OK, OWNER, WARN, Finding, Known

SKEW_WARN, SKEW_BAD = 2.0, 5.0  # seconds between the clock that ends bookings and the one that granted them


def judge(facts: HostFacts, known: Known) -> Iterator[Finding]:
    """GPUs, the fence, AppArmor, the driver, the clock, and what could not be seen."""
    if not facts.local:
        detail = "LXD is reached over the network: whether a GPU has left a machine cannot be proven from here"
        fix = f"Run the agent on the host, on LXD's socket there: berth agent {known.host}"
        yield Finding(BAD, "kernel", detail, fix)
    yield from _gpus(facts, known)
    yield from _nodes(facts)
    yield from _fence(facts.fence)
    yield from _apparmor(facts.apparmor)
    yield from _driver(facts)
    yield from _restrictions(facts)
    if known.skew is not None:
        yield clock(known.skew)
    if facts.unseen:
        fix = "Run `berth doctor` as root on the host; a machine that gives no answer: look into it, or restart it."
        yield Finding(WARN, "not seen", "; ".join(facts.unseen), fix)


def clock(skew: float) -> Finding:
    """`skew`: seconds by which this machine's clock is ahead of the database's."""
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the database's"
    if abs(skew) <= SKEW_WARN:
        return Finding(OK, "clock", detail)
    detail += ": bookings begin and end too early or late"
    fix = "Set it right on both machines: timedatectl set-ntp true, then compare chronyc tracking"
    return Finding(BAD if abs(skew) > SKEW_BAD else WARN, "clock", detail, fix)


def _gpus(facts: HostFacts, known: Known) -> Iterator[Finding]:
    sync = f"Bring Berth up to date: berth host sync {known.host}"
    there = {gpu.pci_address: gpu for gpu in facts.gpus}
    wrong = 0
    for gpu in known.gpus:
        found = there.get(gpu.pci_address)
        if found is None:
            wrong += 1
            detail = f"{gpu.pci_address} ({gpu.model}) is known to Berth, and LXD does not find it on the host"
            fix = f"Look for it: nvidia-smi -L; lspci -s {gpu.pci_address}; dmesg | grep -i xid. If it is gone: {sync}"
            yield Finding(BAD, "GPUs", detail, fix)
        elif found.minor != gpu.minor:
            wrong += 1
            detail = f"{gpu.pci_address} is /dev/nvidia{found.minor} now, and Berth knows it as /dev/nvidia{gpu.minor}"
            yield Finding(BAD, "GPUs", detail, sync)
    for address in sorted(set(there) - {gpu.pci_address for gpu in known.gpus} - known.resting):
        wrong += 1
        yield Finding(WARN, "GPUs", f"{address} ({there[address].model}) is on the host, and unknown to Berth", sync)
    if not wrong:
        detail = f"{len(facts.gpus)} there, {len(known.gpus) + len(known.resting)} known"
        yield Finding(OK, "GPUs", detail)


def _nodes(facts: HostFacts) -> Iterator[Finding]:
    if facts.nodes is None:
        return
    for gpu in facts.gpus:
        if gpu.minor not in facts.nodes:
            detail = f"/dev/nvidia{gpu.minor} ({gpu.pci_address}) is missing: LXD says attached, and attaches nothing"
            fix = f"nvidia-modprobe -u -c {gpu.minor}; for good: systemctl enable --now nvidia-persistenced"
            yield Finding(BAD, "device nodes", detail, fix)


def _fence(fence: str | None) -> Iterator[Finding]:
    if fence == "":
        detail = "no device cgroup, neither of version 1 nor of version 2 with BPF: who keeps a copy of a GPU's node"
        fix = (
            "Use a kernel with CONFIG_CGROUP_BPF and /sys/fs/cgroup mounted as version 2: boot it with"
            " systemd.unified_cgroup_hierarchy=1"
        )
        yield Finding(BAD, "fence", f"{detail} can open it after the booking", fix)
    elif fence:
        yield Finding(OK, "fence", f"device cgroup {fence}")


def _apparmor(on: bool | None) -> Iterator[Finding]:
    if on is False:
        detail = "off, so that root in a machine may mount what can hang a look at it"
        fix = "Boot the host with apparmor=1 security=apparmor, with the package apparmor installed, and restart LXD"
        yield Finding(WARN, "AppArmor", detail, fix)
    elif on:
        yield Finding(OK, "AppArmor", "on")


def _restrictions(facts: HostFacts) -> Iterator[Finding]:
    """Only of a host that `berth host init` has set up, and where it could: see hostinit.project."""
    if facts.restricted:
        yield Finding(OK, "restrictions", "LXD itself refuses privileged and nesting machines, and raw settings")
    elif facts.restricted is False and any(network.ours for network in facts.networks):
        others = [one.name for one in facts.instances if one.project == "default" and OWNER not in one.config]
        if others:
            detail = f"LXD refuses nothing by itself: {others[0]}, which is not of Berth's making, may need it"
            yield Finding(OK, "restrictions", detail)
            return
        detail = "LXD itself refuses nothing: a privileged machine, say, is held off by Berth alone"
        yield Finding(WARN, "restrictions", detail, "berth host init --yes, as root, with what it was given at first")


def _driver(facts: HostFacts) -> Iterator[Finding]:
    if facts.driver:
        yield Finding(OK, "NVIDIA driver", f"version {facts.driver}")
        yield from _libraries(facts)
    elif facts.gpus:
        detail = "its version is not known, so nothing can be said of the libraries in the machines"
        yield Finding(WARN, "NVIDIA driver", detail, "Look on the host: cat /proc/driver/nvidia/version")


def _libraries(facts: HostFacts) -> Iterator[Finding]:
    """The way NVIDIA's libraries come into new machines; what machines really have, each is looked at for."""
    if facts.libraries_by is Way.MOUNT and facts.libraries != facts.driver:
        detail = f"those that machines get are of {facts.libraries or 'no version'}, the driver is of {facts.driver}"
        fix = "The agent renews them: systemctl restart berth-agent, and see its log"
        yield Finding(WARN, "NVIDIA libraries", detail, fix)
    elif facts.libraries_by is Way.MOUNT:
        yield Finding(OK, "NVIDIA libraries", f"{facts.libraries}, mounted in new machines at {INSIDE}")
    elif facts.libraries_by is Way.RUNTIME:
        yield Finding(OK, "NVIDIA libraries", "brought into new machines by nvidia.runtime, as they start")
    elif facts.local:
        detail = f"not on the host in version {facts.driver}: each machine has to bring its own"
        yield Finding(OK, "NVIDIA libraries", detail)
