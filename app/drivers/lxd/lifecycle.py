"""Freezing, renaming, resizing, snapshots and taking over: on a real LXD."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from app.drivers.base import GiveUp, InstanceSpec, Progress, TryAgain
from app.drivers.lifecycle import FILLED, SHRINKABLE, SNAPSHOT_NAME, Size
from app.drivers.lxd import backups, instances, move, rebuild, shapes, turns
from app.drivers.lxd.errors import AWAY, RefusedError, as_driver_errors
from app.drivers.lxd.readout import Readout
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.survey import Surveyor, size_of
from app.drivers.survey import HostUse

MOVE_TIMEOUT = 60.0  # seconds for a rename
SNAPSHOT_TIMEOUT = 900.0  # a pool without copy-on-write copies all of it


class Lifecycle(Readout):
    """LifecycleDriver's part of the driver."""

    def survey(self, names: frozenset[str] | None = None) -> HostUse:
        """Instances with what they use, pools and profiles."""
        return Surveyor(self._wire).survey(names)

    def freeze(self, instance: str) -> None:
        """Pause it."""
        instances.power(self._wire, instance, "freeze")

    def rename(self, instance: str, new: str) -> None:
        """Give it another name."""
        what = f"Rename {instance} to {new}"

        def act() -> None:
            current, there = self._wire.find(instance)[0], self._wire.find(new)[0]
            if current is None and there is not None:
                return
            if current is None:
                raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
            if there is not None:
                raise GiveUp(what, "the host has an instance of that name", "Choose another name.")
            if current["status"].lower() != "stopped":
                raise TryAgain(what, f"it is {current['status'].lower()}", "Stop it first.")
            if not self._wire.send("post", "instances", instance, json={"name": new}, limit=MOVE_TIMEOUT):
                raise RefusedError(AWAY, 404)  # another look tells which name it has

        with as_driver_errors(what):
            turns.look_and_act(act)

    def resize(self, instance: str, size: Size) -> None:
        """Set its limits."""
        what = f"Resize {instance}"

        def change(current: Json, body: Json) -> bool:
            limits = {"limits.cpu": str(size.cpus), "limits.memory": f"{size.memory_mib}MiB"}
            before = dict(body["config"]), dict(body["devices"])
            body["config"].update(limits)
            if size.disk_gib:
                name, root = shapes.root_disk(current)
                self._refuse_shrinking(current, root, size.disk_gib << 30, what)
                body["devices"][name] = {**root, "size": f"{size.disk_gib}GiB"}
            return before != (body["config"], body["devices"])

        self._update(instance, what, change)

    def snapshot(self, instance: str, name: str) -> None:
        """Keep its disk as it is now."""
        what = f"Snapshot {instance}"

        def act() -> None:
            self._known(instance, what)
            instances.join(self._wire, instance)  # one that is listed may be half copied yet
            if self._snapshot(instance, name, what) is None:
                body = {"name": name, "stateful": False}
                path = "instances", instance, "snapshots"
                if not self._wire.send("post", *path, json=body, limit=SNAPSHOT_TIMEOUT):
                    with suppress(RefusedError):  # half of one is listed like a whole one
                        self._wire.send("delete", *path, name, limit=SNAPSHOT_TIMEOUT)
                    raise TryAgain(what, AWAY)

        with as_driver_errors(what):
            turns.look_and_act(act)

    def restore(self, instance: str, name: str) -> None:
        """Put its disk back. LXD brings the settings of that day along, GPUs too: they are taken out again before
        anybody can start it, and a restore of a running instance, which LXD starts itself, is refused."""
        what = f"Restore {instance}"
        with as_driver_errors(what):
            kept = self._known(instance, what)
            if self._snapshot(instance, name, what) is None:
                raise GiveUp(what, f"there is no snapshot {name}", "Choose another one.")
            if kept["status"].lower() != "stopped":
                raise TryAgain(what, f"it is {kept['status'].lower()}", "Stop it first.")
            request = partial(self._wire.finish, what, "put", "instances", instance, json={"restore": name})
            turns.look_and_act(lambda: request(limit=SNAPSHOT_TIMEOUT))
        config, devices = shapes.without_gpus(kept)

        def change(_current: Json, body: Json) -> bool:
            of_lxd = {key: value for key, value in body["config"].items() if key.startswith(("volatile.", "image."))}
            wanted = of_lxd | config, devices, kept["profiles"]
            if wanted == (body["config"], body["devices"], body["profiles"]):
                return False
            body["config"], body["devices"], body["profiles"] = wanted
            return True

        self._update(instance, what, change)

    def forget(self, instance: str, name: str) -> None:
        """Remove a snapshot."""
        what = f"Delete a snapshot of {instance}"

        def act() -> None:
            self._known(instance, what)
            if self._snapshot(instance, name, what) is not None:
                self._wire.send("delete", "instances", instance, "snapshots", name, limit=SNAPSHOT_TIMEOUT)

        with as_driver_errors(what):
            turns.look_and_act(act)

    def rebuild(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make it anew, /home kept."""
        rebuild.rebuild(self._wire, self._update, spec, progress)

    def backup(self, instance: str, snapshot: str, into: Path, most: int, progress: Progress) -> int:
        """Write its disk into a file."""
        what = f"Back up {instance}"
        with as_driver_errors(what):
            source = self._known(instance, what)
            if snapshot and self._snapshot(instance, snapshot, what) is None:
                raise GiveUp(what, f"there is no snapshot {snapshot}", "Choose another one.")
        return backups.backup(self._wire, source, snapshot, into, most, progress)

    def move(self, instance: str, member: str, progress: Progress) -> None:
        """Bring it to another member of the cluster."""
        move.move(self._wire, instance, member, progress)

    def adopt(self, instance: str, owner: str) -> None:
        """Mark it as Berth's."""
        what = f"Take over {instance}"

        def change(current: Json, body: Json) -> bool:
            if shapes.privileged(current):
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            if current.get("type") != "container":
                raise GiveUp(what, "it is a virtual machine", "Berth looks after containers.")
            if body["config"].get(shapes.OWNER, owner) != owner:
                raise GiveUp(what, "it is marked as somebody else's", f"Unset {shapes.OWNER} on it if that is wrong.")
            before = dict(body["config"])
            body["config"].update({shapes.OWNER: owner, **shapes.ALWAYS})
            return before != body["config"]

        self._update(instance, what, change)

    def _known(self, instance: str, what: str) -> Json:
        current = self._wire.find(instance)[0]
        if current is None:
            raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
        return current

    def _snapshot(self, instance: str, name: str, what: str) -> Json | None:
        if not SNAPSHOT_NAME.fullmatch(name):
            raise GiveUp(what, f"{name[:40]!r} is no name for a snapshot", "Use letters, digits and dashes.")
        try:
            found: Json = self._wire.get("instances", instance, "snapshots", name)
        except RefusedError as error:
            if error.code == 404:
                return None
            raise
        return found

    def _refuse_shrinking(self, current: Json, root: Json, wanted: int, what: str) -> None:
        now = size_of(root.get("size", ""))
        if now is None or wanted >= now:
            return
        driver = str(self._wire.get("storage-pools", root["pool"])["driver"])
        if driver not in SHRINKABLE:
            raise GiveUp(what, f"a {driver} pool cannot make a disk smaller", "Choose a size that is not smaller.")
        disk = (self._wire.get("instances", current["name"], "state").get("disk") or {}).get("root") or {}
        used = int(disk.get("usage") or 0)
        if used > wanted * FILLED:
            detail = f"{used / (1 << 30):.1f} GiB of its disk are in use"
            raise GiveUp(what, detail, "Remove files from it, or choose a larger size.")
