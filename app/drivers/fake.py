"""The simulated driver: a host in a JSON file, the same for every process that opens it. Also the demo's host.

It keeps the rules of the real one, and can be told to fail and to lie; what it is told is kept in the file too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.drivers.base import (
    DEVICE_NAME,
    TAG_PREFIX,
    DeviceSeen,
    GiveUp,
    GpuInfo,
    HostSeen,
    ImageInfo,
    InstanceSeen,
    InstanceSpec,
    Node,
    Progress,
    Tag,
    TryAgain,
    address_of,
    device_name,
    pci_address,
)
from app.drivers.facts import HostFacts
from app.drivers.fake_doors import FakeDoors, says
from app.drivers.fake_facts import host_facts
from app.drivers.fake_images import FakeImages
from app.drivers.fake_libraries import FakeLibraries, lend_to_new
from app.drivers.fake_lifecycle import FakeLifecycle
from app.drivers.fake_shares import FakeShares
from app.drivers.inside import Answer, Command, Heard
from app.drivers.simulated import SimulatedHost, State, clear, instance_of, new_instance, owner_of
from app.drivers.survey import ServerInfo

_CREATION = [("preparing", 0, 0.2), *(("copying", done, 0.25) for done in (0, 25, 50, 75)), ("copying", 100, 0.0)]
_STARTING = [("starting", 0, 0.5), ("checking", 0, 0.3), ("checking", 100, 0.0)]
_PLUG_SECONDS = 0.05


class FakeLxd(FakeDoors, FakeImages, FakeLibraries, FakeLifecycle, FakeShares):
    """LxdDriver for a host that exists only in a file."""

    def server(self) -> ServerInfo:
        """Who answers there."""
        with self._call("server"):
            return ServerInfo(self._path.stem, "simulated", self._path.stem, "simulated")

    def gpus(self) -> list[GpuInfo]:
        """The simulated GPUs."""
        with self._call("gpus") as state:
            return [GpuInfo(**gpu) for gpu in state["gpus"]]

    def images(self) -> list[ImageInfo]:
        """The simulated images."""
        with self._call("images") as state:
            return [ImageInfo(**image) for image in state["images"]]

    def observe(self, names: frozenset[str] | None = None) -> HostSeen:
        """The instances as they are, whatever they were said to be."""
        with self._call("observe") as state:
            found = state["instances"].items()
            return HostSeen({name: _seen(name, item) for name, item in found if names is None or name in names})

    def examine(self) -> HostFacts:
        """The host without a fault, but for what it was told to report."""
        with self._call("examine") as state:
            return host_facts(state)

    def listen(self, heard: Callable[[str], None]) -> None:
        """A simulated host says nothing by itself; its agent looks at every tick."""
        with self._call("listen"):
            heard("")

    def attach(self, instance: str, gpu: GpuInfo, tag: Tag) -> None:
        """Plug the GPU in, with its tag."""
        self._pause(_PLUG_SECONDS)
        with self._call("attach") as state:
            what = f"Attach GPU {gpu.pci_address} to {instance}"
            item, name = instance_of(state, what, instance), device_name(gpu.pci_address)
            if item["privileged"]:
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            if name not in item["devices"]:
                if item["status"] != "running":
                    raise TryAgain(what, f"the instance is {item['status']}", "Start the instance.")
                if pci_address(gpu.pci_address) not in {known["pci_address"] for known in state["gpus"]}:
                    raise GiveUp(what, f"no device found: {gpu.pci_address}", "Look for the GPU with lspci.")
                item["devices"][name] = {"pci": gpu.pci_address, "own": True}
                if not state["lies"].get("attach"):
                    item["nodes"].append(name)
            item["config"][TAG_PREFIX + name] = str(tag)

    def detach(self, instance: str, device: str) -> None:
        """Take the device and its tag out."""
        self._pause(_PLUG_SECONDS)
        with self._call("detach") as state:
            if not (item := state["instances"].get(instance)):
                return
            if not item["devices"].get(device, {"own": True})["own"]:
                what = f"Detach {device} from {instance}"
                raise GiveUp(what, "the device comes from a profile", "Remove it from the instance's profiles.")
            item["devices"].pop(device, None)
            item["config"].pop(TAG_PREFIX + device, None)
            if device in item["nodes"] and not state["lies"].get("detach"):
                item["nodes"].remove(device)

    def create(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make the instance and start it."""
        what = f"Create {spec.name}"
        with self._call("create") as state:
            item = state["instances"].get(spec.name)
            if item and owner_of(item) != spec.owner:
                raise GiveUp(what, "an instance of that name exists and is not this owner's", "Choose another name.")
            if not item and spec.image not in {image["alias"] for image in state["images"]}:
                raise GiveUp(what, f"no image {spec.image!r} on this host", "Import it there, or choose another one.")
        self._report(progress, _CREATION)
        with self._open() as state:
            made = new_instance("stopped", owner=spec.owner) | {"image": spec.image} | lend_to_new(state)
            item = state["instances"].setdefault(spec.name, made)
            item["size"] = [spec.cpus, spec.memory_mib, spec.disk_gib]
        self._report(progress, _STARTING[:1])
        self._power(spec.name, "start", "running")
        self._report(progress, _STARTING[1:])

    def start(self, instance: str) -> None:
        """Start it; a running one is fine."""
        with self._call("start"):
            pass
        self._power(instance, "start", "running")

    def stop(self, instance: str, *, force: bool = False) -> None:
        """Stop it; a stopped one is fine."""
        with self._call("stop"):
            pass
        self._pause(0.0 if force else 0.5)
        self._power(instance, "stop", "stopped")

    def restart(self, instance: str) -> None:
        """Stop and start it."""
        with self._call("restart"):
            pass
        self._power(instance, "restart", "stopped")
        self._pause(0.5)
        self._power(instance, "restart", "running")

    def delete(self, instance: str, owner: str, *, anywhere: bool = False) -> None:
        """Remove it and what is beside it, if it is this owner's."""
        with self._call("delete") as state:
            _remove(state, instance, owner)
        for neighbour in self._path.parent.glob("*.json") if anywhere else ():
            with SimulatedHost(neighbour)._open() as state:  # noqa: SLF001 - its own kind
                _remove(state, instance, owner)

    def tell(self, instance: str, title: str, text: str) -> None:
        """Keep the message."""
        with self._call("tell") as state:
            what = f"Tell {instance}"
            if (status := instance_of(state, what, instance)["status"]) != "running":
                raise TryAgain(what, f"the instance is {status}", "Start the instance.")
            state["told"] = [*state.get("told", [])[-99:], [instance, title, text]]

    def told(self) -> list[tuple[str, str, str]]:
        """What was shown in which instance: name, title and text; the last hundred."""
        with self._open() as state:
            return [(instance, title, text) for instance, title, text in state.get("told", [])]

    def run(self, instance: str, command: Command, heard: Heard | None = None) -> Answer:
        """Nothing runs in there: it says nothing and works, but for what it was told by `answer`."""
        with self._call("run") as state:
            what = f"Run {command.argv[0]} in {instance}"
            if (status := instance_of(state, what, instance)["status"]) != "running":
                raise TryAgain(what, f"the instance is {status}", "Start the instance.")
            state["ran"] = [*state.get("ran", [])[-99:], [instance, *command.argv]]
            said = Answer(*state.get("answers", {}).get(instance, (0, says(instance, command))))
            if command.stdin:
                state.setdefault("given", {})[instance] = command.stdin.decode()
        if heard and said.text:
            heard(said.text)
        return said

    def given(self, instance: str) -> str:
        """What a command in there was last given to read."""
        with self._open() as state:
            return str(state.get("given", {}).get(instance, ""))

    def _power(self, instance: str, action: str, status: str) -> None:
        with self._open() as state:
            what = f"{action.capitalize()} {instance}"
            item = instance_of(state, what, instance)
            if status == "running" and item["status"] == "stopped":
                self.refuse_taken(state, what, item)
            if item["status"] != status:
                if (item["status"], status) == ("stopped", "running"):
                    item["started"] = time.time()
                item["status"] = status
                item["nodes"] = list(item["devices"]) if status == "running" else []

    def _report(self, progress: Progress, steps: list[tuple[str, int, float]]) -> None:
        for step, done, seconds in steps:
            progress(step, done)
            self._pause(seconds)


def _remove(state: State, instance: str, owner: str) -> None:
    clear(state, instance, owner)
    if owner_of(state["instances"].get(instance)) == owner:
        del state["instances"][instance]


def _seen(name: str, item: State) -> InstanceSeen:
    runs = item["status"] in {"running", "frozen"}
    devices = [
        DeviceSeen(
            device,
            known["pci"],
            ours=bool(DEVICE_NAME.match(device)) and known["own"],
            node=(Node.PRESENT if device in item["nodes"] else Node.ABSENT) if runs else Node.UNKNOWN,
            tag=Tag.parse(item["config"].get(TAG_PREFIX + device, "")),
        )
        for device, known in item["devices"].items()
    ]
    devices += [
        DeviceSeen(device, address_of(device), bool(DEVICE_NAME.match(device)), Node.PRESENT, configured=False)
        for device in sorted(set(item["nodes"]) - set(item["devices"]))
    ]
    owner = owner_of(item)
    return InstanceSeen(name, item["status"], item["privileged"], tuple(devices), ("default",), owner=owner)
