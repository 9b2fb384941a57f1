"""Freezing, renaming, resizing, snapshots and taking over: on a simulated host, by the rules of the real one."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

from app.drivers.base import TAG_PREFIX, GiveUp, InstanceSpec, Progress, TryAgain
from app.drivers.fake_libraries import lent
from app.drivers.lifecycle import RENEWED, Size
from app.drivers.readout import plain
from app.drivers.simulated import OWNER, SimulatedHost, State, clear, instance_of, owner_of
from app.drivers.survey import BERTH, HAND, HostUse, InstanceUse, NetworkUse, PoolUse, ProfileUse, SnapshotSeen

_USED = 3_100_000_000  # bytes of each simulated disk
_MEMORY = 420_000_000
_ALL_MEMORY, _SYSTEM = 128 << 30, 4 << 30  # of the host, and what it needs itself


class FakeLifecycle(SimulatedHost):
    """A part of FakeLxd."""

    def survey(self, names: frozenset[str] | None = None) -> HostUse:
        """Instances with what they would use."""
        with self._call("survey") as state:
            found = {
                name: _use(number, name, item)
                for number, (name, item) in enumerate(state["instances"].items(), start=2)
                if names is None or name in names
            }
            pools = (PoolUse("pool", "btrfs", 120_000_000_000, 900_000_000_000),)
            profiles = (ProfileUse("default", "", ("root: disk path=/ pool=pool",), len(found)),)
            networks = (NetworkUse("berthbr0", "bridge", True, True, "10.80.0.1/24", len(found)),)
            used = _SYSTEM + sum(one.memory or 0 for one in found.values())
            return HostUse(found, pools, profiles, networks, "pool", _ALL_MEMORY, used, self._path.stem, "simulated")

    def read_log(self, instance: str) -> str:
        """A line about its start."""
        with self._call("read_log") as state:
            item = instance_of(state, f"Read LXD's log of {instance}", instance)
            started = f"lxc {instance} simulated: it started without trouble" if "started" in item else ""
            return plain(str(item.get("log", started)).encode())

    def read_console(self, instance: str) -> str:
        """As if it had just come up."""
        with self._call("read_console") as state:
            item = instance_of(state, f"Read the console of {instance}", instance)
            greeting = f"[  OK  ] Reached target Multi-User System.\n\nDebian GNU/Linux 12 {instance} console\n"
            return plain(str(item.get("console", greeting)).encode())

    def write_logs(self, instance: str, **texts: str) -> None:
        """Let its `log` or `console` be this."""
        with self._open() as state:
            state["instances"][instance].update(texts)

    def freeze(self, instance: str) -> None:
        """Pause it."""
        with self._call("freeze") as state:
            what = f"Freeze {instance}"
            item = instance_of(state, what, instance)
            if item["status"] not in {"running", "frozen"}:
                raise TryAgain(what, f"the instance is {item['status']}", "Start the instance.")
            item["status"] = "frozen"

    def rename(self, instance: str, new: str) -> None:
        """Give it another name."""
        with self._call("rename") as state:
            what = f"Rename {instance} to {new}"
            if instance not in state["instances"] and new in state["instances"]:
                return
            item = instance_of(state, what, instance)
            if new in state["instances"]:
                raise GiveUp(what, "the host has an instance of that name", "Choose another name.")
            if item["status"] != "stopped":
                raise TryAgain(what, f"it is {item['status']}", "Stop it first.")
            state["instances"][new] = state["instances"].pop(instance)

    def resize(self, instance: str, size: Size) -> None:
        """Set its limits. The simulated pool can make a disk smaller, down to what is used."""
        with self._call("resize") as state:
            what = f"Resize {instance}"
            item = instance_of(state, what, instance)
            if 0 < size.disk_gib << 30 < _USED:
                raise GiveUp(what, "2.9 GiB of its disk are in use", "Remove files from it, or choose a larger size.")
            disk = size.disk_gib or item.get("size", [0, 0, 0])[2]
            item["size"] = [size.cpus, size.memory_mib, disk]

    def snapshot(self, instance: str, name: str) -> None:
        """Keep its settings; a simulated disk has nothing on it."""
        with self._call("snapshot") as state:
            item = instance_of(state, f"Snapshot {instance}", instance)
            kept = {"at": time.time(), "config": dict(item["config"]), "devices": dict(item["devices"])}
            item.setdefault("snapshots", {}).setdefault(name, kept)

    def restore(self, instance: str, name: str) -> None:
        """Put it back, its settings but no GPU's."""
        with self._call("restore") as state:
            what = f"Restore {instance}"
            item = instance_of(state, what, instance)
            if name not in item.get("snapshots", {}):
                raise GiveUp(what, f"there is no snapshot {name}", "Choose another one.")
            if item["status"] != "stopped":
                raise TryAgain(what, f"it is {item['status']}", "Stop it first.")
            gone = set(item["devices"])
            item["config"] = {key: text for key, text in item["config"].items() if key[len(TAG_PREFIX) :] not in gone}
            item["devices"], item["nodes"], item["restored"] = {}, [], name

    def forget(self, instance: str, name: str) -> None:
        """Remove a snapshot."""
        with self._call("forget") as state:
            instance_of(state, f"Delete a snapshot of {instance}", instance).get("snapshots", {}).pop(name, None)

    def rebuild(self, spec: InstanceSpec, progress: Progress) -> None:
        """Nothing is on a simulated disk; the snapshots go."""
        with self._call("rebuild") as state:
            what = f"Rebuild {spec.name}"
            name = spec.name if spec.name in state["instances"] else f"{spec.name}-OLD"  # as far as it came before
            item = instance_of(state, what, name)
            if name == spec.name and spec.image not in {image["alias"] for image in state["images"]}:
                raise GiveUp(what, f"no image {spec.image!r} on this host", "Import it there, or choose another one.")
        progress("carrying", 40)
        self._pause(1.0)
        with self._open() as state:
            item = instance_of(state, what, name)
            clear(state, spec.name, spec.owner)
            gone = set(item["devices"])
            item["config"] = {key: text for key, text in item["config"].items() if key[len(TAG_PREFIX) :] not in gone}
            item |= {"devices": {}, "nodes": [], "snapshots": {}, "status": "stopped"}
            state["instances"][spec.name] = item
        progress("starting", RENEWED)
        with self._open() as state:
            instance_of(state, what, spec.name).update(status="running", started=time.time())

    def backup(self, instance: str, snapshot: str, into: Path, most: int, progress: Progress) -> int:
        """A file with a note in it."""
        with self._call("backup") as state:
            what = f"Back up {instance}"
            item = instance_of(state, what, instance)
            if snapshot and snapshot not in item.get("snapshots", {}):
                raise GiveUp(what, f"there is no snapshot {snapshot}", "Choose another one.")
            if most < _USED:
                detail = f"its disk holds 2.9 GiB, and a backup may have {most / (1 << 30):.1f} GiB at most"
                raise GiveUp(what, detail, "Remove files from it, or copy what you need over SSH.")
        for done in (10, 40, 70):
            progress("packing", done)
            self._pause(0.5)
        note = f"{instance} is simulated: there is nothing on its disk.\n".encode()
        entry = tarfile.TarInfo("backup/README")
        entry.size = len(note)
        with tarfile.open(into, "w:gz") as archive:
            archive.addfile(entry, io.BytesIO(note))
        return into.stat().st_size

    def adopt(self, instance: str, owner: str) -> None:
        """Mark it as Berth's."""
        with self._call("adopt") as state:
            what = f"Take over {instance}"
            item = instance_of(state, what, instance)
            if item["privileged"]:
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            if item["config"].get(OWNER, owner) != owner:
                raise GiveUp(what, "it is marked as somebody else's", f"Unset {OWNER} on it if that is wrong.")
            item["config"][OWNER] = owner

    def move(self, instance: str, member: str, progress: Progress) -> None:
        """Into the file of another simulated host, which are all of one cluster."""
        what, target = f"Move {instance} to {member}", self._path.with_name(f"{member}.json")
        with self._call("move") as state:
            item = state["instances"].get(instance)
            if item and item["status"] != "stopped":
                raise TryAgain(what, f"it is {item['status']}", "Stop it first.")
        if not target.is_file():
            raise GiveUp(what, "its LXD cluster has no such member", "See lxc cluster list.")
        progress("moving", 10)
        self._pause(1.0)
        with SimulatedHost(target)._open() as there:  # noqa: SLF001 - its own kind
            if item is None:
                if moved := there["instances"].pop(f"{instance}-MOVED", None):  # as far as it came before
                    there["instances"][instance] = moved
                instance_of(there, what, instance)
                return
            gone = set(item["devices"])
            config = {key: text for key, text in item["config"].items() if key[len(TAG_PREFIX) :] not in gone}
            bare = {"config": config, "devices": {}, "nodes": [], "doors": {}, "shares": {}}
            there["instances"][instance] = item | bare
        with self._open() as state:
            state["instances"].pop(instance, None)

    def restored(self, instance: str) -> str:
        """The snapshot that it was last put back to."""
        with self._open() as state:
            return str(state["instances"][instance].get("restored", ""))

    def size(self, instance: str) -> list[int]:
        """CPUs, MiB and GiB as last set."""
        with self._open() as state:
            return list(state["instances"][instance].get("size", []))


def _use(number: int, name: str, item: State) -> InstanceUse:
    runs = item["status"] in {"running", "frozen"}
    cpus, memory, disk = item.get("size", [4, 16384, 50])
    ours = {device: f"gpu pci={known['pci']}" for device, known in item["devices"].items()}
    keys, libraries = lent(item)
    return InstanceUse(
        name=name,
        status=item["status"],
        owner=owner_of(item),
        privileged=item["privileged"],
        isolated=bool(item["config"].get(OWNER)),
        image="Debian with SSH",
        cpu_seconds=time.time() % 1_000_000 / 4 if runs else None,
        memory=_MEMORY if runs else None,
        disk=_USED,
        processes=31 if runs else None,
        addresses=(f"10.80.0.{number % 250}",) if runs else (),
        started_at=item.get("started") if runs else None,
        cpus=str(cpus),
        memory_limit=f"{memory}MiB",
        disk_limit=f"{disk}GiB" if disk else "",
        pool="pool",
        profiles=("default",),
        config={**{key: str(value) for key, value in item["config"].items()}, **keys},
        devices={"root": "disk path=/ pool=pool", **ours, **libraries},
        origins={
            "root": BERTH if item["config"].get(OWNER) else "profile:default",
            **dict.fromkeys(libraries, BERTH),
            **_origins(item),
        },
        gpus=tuple(item["devices"]),
        snapshots=tuple(SnapshotSeen(name, kept["at"], 12_000_000) for name, kept in item.get("snapshots", {}).items()),
    )


def _origins(item: State) -> dict[str, str]:
    tags = item["config"]
    return {
        name: "profile:default" if not known["own"] else BERTH if TAG_PREFIX + name in tags else HAND
        for name, known in item["devices"].items()
    }
