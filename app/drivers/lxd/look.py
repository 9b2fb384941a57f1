"""Instances as they are, seen from the host: what LXD's configuration says, and where the device nodes really are."""

from __future__ import annotations

from pathlib import Path

from app.drivers.base import InstanceSeen
from app.drivers.holders import nodes as files
from app.drivers.lxd import shapes
from app.drivers.lxd.errors import RefusedError
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

_RUNS = {"running", "frozen"}


class Eye:
    """Looks at this machine's kernel; of a server on another machine it sees no nodes, and says so."""

    def __init__(self, wire: Wire, proc: Path = files.PROC) -> None:
        self._wire = wire
        self._proc = proc
        self._daemon: tuple[int, int | None] = (0, None)  # LXD's process: id and start time
        self._inits: dict[str, tuple[int, int | None]] = {}  # each instance's first process, likewise
        self._had: dict[str, set[str]] = {}  # the GPU devices that an instance was last seen with

    def devices_dir(self) -> Path | None:
        """LXD's device directory, if LXD runs on this machine and this process may look."""
        folder = self._wire.lxd_dir
        if not folder:
            return None
        if not self._alive(self._daemon):
            self._daemon = self._with_start(int(self._wire.get()["environment"]["server_pid"]))
        try:
            return files.devices_dir(self._daemon[0], folder, self._proc)
        except files.CannotLookError:
            return None

    def lingers(self, instance: Json, device: str) -> bool:
        """Whether LXD's directory holds a GPU node of that device for a running instance."""
        if not (directory := self.devices_dir()) or instance["status"].lower() not in _RUNS:
            return False
        try:
            return device in {node.device for node in files.host_nodes(directory, instance["name"])}
        except files.CannotLookError:
            return False

    def look(self, instance: Json, directory: Path | None) -> InstanceSeen:
        """One instance; its nodes are unknown while it does not run. What it had and what cannot be looked for now
        is reported as unknown, not left out: nobody may take it for gone."""
        name = instance["name"]
        if not directory or instance.get("type") != "container" or instance["status"].lower() not in _RUNS:
            return shapes.instance_seen(instance, frozenset(), None)
        init = 0
        try:
            init = self._init(name)
            nodes = files.host_nodes(directory, name)
            mounted = files.mounted_nodes(name, files.mounts(init, self._proc))
        except files.CannotLookError:
            return shapes.instance_seen(instance, frozenset(), None, self._had.get(name, set()), init)
        seen = shapes.instance_seen(instance, nodes, mounted, init=init)
        self._had[name] = {device.name for device in seen.devices}
        return seen

    def _init(self, name: str) -> int:
        """Kept once known: asking LXD costs more than the rest of a look."""
        known = self._inits.get(name, (0, None))
        if not self._alive(known):
            try:
                known = self._with_start(int(self._wire.get("instances", name, "state")["pid"]))
            except RefusedError as error:
                raise files.CannotLookError(str(error)) from error
            self._inits[name] = known
        return known[0]

    def _with_start(self, pid: int) -> tuple[int, int | None]:
        return pid, files.start_time(pid, self._proc)

    def _alive(self, process: tuple[int, int | None]) -> bool:
        pid, start = process
        return start is not None and files.start_time(pid, self._proc) == start
