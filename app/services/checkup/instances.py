"""What is to be said of instances and profiles: how they are confined, and GPUs that get past Berth."""

from __future__ import annotations

from collections.abc import Iterator

from app.drivers.base import DENIED_CALLS, DEVICE_NAME
from app.drivers.facts import HostFacts, InstanceFacts
from app.drivers.libraries import INSIDE, LENDING
from app.services.checkup.devices import brings_gpu
from app.services.checkup.finding import BAD, OK, OWNER, WARN, Finding, Known, on
from app.services.checkup.versions import below, parse

_UNDOING = {"raw.lxc", "raw.apparmor", "raw.seccomp", "raw.qemu"}  # each can undo all that LXD does to confine it
_LIMITS = {  # LXD's key: what else would do, what it limits, an example
    "limits.cpu": ("limits.cpu.allowance", "CPUs", "4"),
    "limits.memory": ("", "memory", "16GiB"),
    "limits.processes": ("", "processes", "4096"),
}


def label(instance: InstanceFacts) -> str:
    """How a finding names an instance."""
    where = "" if instance.project == "default" else f" (project {instance.project})"
    return f"machine {instance.name}{where}"


def lxc(instance: InstanceFacts, command: str) -> str:
    """The command for LXD's own program, in the instance's project."""
    project = "" if instance.project == "default" else f"--project {instance.project} "
    return f"lxc {project}{command}"


def origin(facts: HostFacts, instance: InstanceFacts, name: str) -> str:
    """The profile that an instance has a key or a device from; "" if it is its own."""
    if name in instance.own:
        return ""
    holding = {profile.name for profile in facts.profiles if name in profile.devices or name in profile.config}
    return next((profile for profile in reversed(instance.profiles) if profile in holding), "PROFILE")


def judge(facts: HostFacts, known: Known) -> Iterator[Finding]:
    """Each instance; how those of other people's making are limited is not Berth's to say."""
    for instance in facts.instances:
        found = [*_devices(facts, known, instance), *_nodes(facts, known, instance)]
        found += [*_library(facts, known, instance), *_no_library(facts, known, instance)]
        if instance.container:
            found += [*_unmarked(known, instance), *_exposed(facts, instance)]
            if cared_for(known, instance):
                found += [*_confined(instance), *_limits(instance)]
        yield from (Finding(level, label(instance), detail, fix) for level, detail, fix in found)


def judge_profiles(facts: HostFacts) -> Iterator[Finding]:
    """GPUs in profiles: whoever gets such a profile gets the GPU, whatever is booked."""
    found = 0
    for profile in facts.profiles:
        for name, device in profile.devices.items():
            if text := brings_gpu(device):
                found += 1
                who = f"{profile.used_by} machines have it" if profile.used_by else "nobody has it yet"
                level = BAD if profile.used_by or profile.name == "default" else WARN
                fix = f"lxc profile device remove {profile.name} {name}"
                yield Finding(level, f"profile {profile.name}", f"its device {name} gives away {text}; {who}", fix)
    if not found:
        yield Finding(OK, "profiles", "none of them gives away a GPU")


_Said = tuple[str, str, str]


def _unmarked(known: Known, instance: InstanceFacts) -> Iterator[_Said]:
    if _is_berths(known, instance) and OWNER not in instance.config:
        detail = f"has the name of a machine of Berth's and no {OWNER}, so Berth leaves it alone"
        yield WARN, detail, lxc(instance, f"config set {instance.name} {OWNER}=USERNAME") + ", if it is that machine"


def cared_for(known: Known, instance: InstanceFacts) -> bool:
    """Whether how it is limited is Berth's to say."""
    return _is_berths(known, instance) or OWNER in instance.config


def _is_berths(known: Known, instance: InstanceFacts) -> bool:
    return instance.project == "default" and instance.name in known.instances


def _devices(facts: HostFacts, known: Known, instance: InstanceFacts) -> Iterator[_Said]:
    for name, device in instance.devices.items():
        text = brings_gpu(device)
        if not text:
            continue
        profile = origin(facts, instance, name)
        holder = f"profile device remove {profile}" if profile else f"config device remove {instance.name}"
        fix = lxc(instance, f"{holder} {name}")
        if profile or not DEVICE_NAME.match(name):
            source = f"from the profile {profile}" if profile else "that Berth did not make"
            yield BAD, f"has a device {name} {source}, past every booking: {text}{_every(facts, device)}", fix
        elif not _is_berths(known, instance):
            detail = f"has Berth's device {name} and is no machine of Berth's: a copy, or restored from one"
            yield BAD, detail, fix


def _every(facts: HostFacts, device: object) -> str:
    version = parse(facts.version)
    selects = isinstance(device, dict) and device.get("type") == "gpu" and "id" in device
    if selects and version and below(version, ((5, 0, 3), (5, 21, 0), (6, 0, 0))):
        return f", which on LXD {facts.version} means every GPU of the host"
    return ""


def _nodes(facts: HostFacts, known: Known, instance: InstanceFacts) -> Iterator[_Said]:
    minors = {gpu.pci_address: gpu.minor for gpu in facts.gpus}
    for name in instance.without_node:
        minor = minors.get(instance.devices.get(name, {}).get("pci", ""))
        made = "" if minor is None else f"nvidia-modprobe -u -c {minor}; "
        fix = f"On the host: {made}berth reconcile {known.host} plugs it in anew"
        yield BAD, f"LXD lists its GPU device {name}, and there is no node of it in the machine", fix


def _library(facts: HostFacts, known: Known, instance: InstanceFacts) -> Iterator[_Said]:
    if not facts.driver or not instance.libraries or facts.driver in instance.libraries:
        return
    inside = ", ".join(sorted(instance.libraries)[:3])
    detail = (
        f"NVIDIA's library in it is of {inside}, the host's driver of {facts.driver}: nothing on the GPU starts"
        " (NVML error 18, driver/library version mismatch)"
    )
    lent = f"{_lend(instance)}; or install" if _may_lend(facts, known, instance) else "Install"
    fix = (
        f"{lent} the same version in it: sh NVIDIA-Linux-x86_64-{facts.driver}.run --no-kernel-modules"
        f" (or its distribution's libraries of {facts.driver.partition('.')[0]}), and renew the image it came from"
    )
    yield BAD, detail, fix


def _no_library(facts: HostFacts, known: Known, instance: InstanceFacts) -> Iterator[_Said]:
    """Made before the host lent them, taken over, or moved there."""
    lends = facts.driver and facts.gpus and facts.libraries_by in LENDING
    if not lends or instance.libraries != frozenset() or not _is_berths(known, instance):
        return
    if on(instance.config, "nvidia.runtime") and not _mounted(instance):
        detail = "NVIDIA's libraries come into it as it starts, and it has not been started since that was set"
        yield WARN, detail, f"Restart it: berth instance stop {instance.name}; berth instance start {instance.name}"
        return
    if _may_lend(facts, known, instance):
        detail = (
            f"has none of NVIDIA's libraries, its own or the host's ({facts.driver}): nothing on a GPU starts in it"
        )
        yield WARN, detail, f"{_lend(instance)}; or install those of {facts.driver} in it"


def _may_lend(facts: HostFacts, known: Known, instance: InstanceFacts) -> bool:
    """Whether the host's can be given to it, and it has not got them."""
    without = not _mounted(instance) and not on(instance.config, "nvidia.runtime")
    return facts.libraries_by in LENDING and without and _is_berths(known, instance)


def _mounted(instance: InstanceFacts) -> bool:
    return INSIDE in {device.get("path") for device in instance.devices.values()}


def _lend(instance: InstanceFacts) -> str:
    button = "Give it the host's libraries"
    return f'berth instance libraries {instance.name}, or the button "{button}" on its page'


def _exposed(facts: HostFacts, instance: InstanceFacts) -> Iterator[_Said]:
    if on(instance.config, "security.privileged"):
        fix = _set(instance, "security.privileged=false", restart=True)
        yield BAD, "is privileged: root in it is root on the host. Berth gives it no GPU", fix
    for key in sorted(key for key in instance.config if key.startswith("raw.")):
        profile = origin(facts, instance, key)
        where = f"profile unset {profile} {key}" if profile else f"config unset {instance.name} {key}"
        text = "can undo every limit of the machine" if key in _UNDOING else "shares user ids with the host"
        loose = "unconfined" in instance.config[key]
        level = BAD if key in _UNDOING else WARN
        yield level, f"{key} is set, which {text}{', and says unconfined' * loose}", lxc(instance, where)


def _confined(instance: InstanceFacts) -> Iterator[_Said]:
    if on(instance.config, "security.nesting"):
        detail = "nesting is on: root in it may mount what hides a GPU's node or hangs a look at it"
        yield WARN, detail, _set(instance, "security.nesting=false", restart=True)
    if not on(instance.config, "security.privileged") and not on(instance.config, "security.idmap.isolated"):
        detail = "its user ids are not its own: who breaks out of it owns the files of the other machines"
        yield WARN, detail, _set(instance, "security.idmap.isolated=true", restart=True)
    if instance.config.get("boot.autostart", "").lower() != "false":
        detail = "LXD starts it by itself with the host, with the GPUs it had, whoever has booked them since"
        yield WARN, detail, _set(instance, "boot.autostart=false")
    if "io_uring_setup" not in instance.config.get("security.syscalls.deny", ""):
        detail = "io_uring is open to it: a ring can keep a GPU past its booking where nobody can look"
        calls = DENIED_CALLS.replace("\n", "\\n")
        yield WARN, detail, _set(instance, f"security.syscalls.deny=$'{calls}'", restart=True)
    if on(instance.config, "security.devlxd", unset="true"):
        detail = "security.devlxd is on: its users can talk to LXD through /dev/lxd"
        yield WARN, detail, _set(instance, "security.devlxd=false", restart=True)


def _limits(instance: InstanceFacts) -> Iterator[_Said]:
    config = instance.config
    missing = {key: row for key, row in _LIMITS.items() if not config.get(key) and not config.get(row[0] or key)}
    words = [words for _also, words, _example in missing.values()]
    commands = []
    if missing:
        values = " ".join(f"{key}={example}" for key, (_also, _words, example) in missing.items())
        commands.append(lxc(instance, f"config set {instance.name} {values}"))
    for name, device in instance.devices.items():
        if device.get("type") == "disk" and device.get("path") == "/" and not device.get("size"):
            words.append("disk size")
            verb = "set" if name in instance.own else "override"
            commands.append(lxc(instance, f"config device {verb} {instance.name} {name} size=50GiB"))
    if words:
        yield WARN, f"may use all of the host: no limit of {', '.join(words)}", " && ".join(commands)


def _set(instance: InstanceFacts, value: str, *, restart: bool = False) -> str:
    then = f" && {lxc(instance, f'restart {instance.name}')}" if restart and instance.status == "running" else ""
    return lxc(instance, f"config set {instance.name} {value}") + then
