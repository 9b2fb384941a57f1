"""The real driver: one LXD server, asked through pylxd and checked on the host's kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.drivers.base import (
    DriverError as DriverError,
)
from app.drivers.base import (
    GiveUp,
    GpuInfo,
    HostSeen,
    HostUnreachable,
    ImageInfo,
    InstanceSpec,
    Progress,
    Tag,
    TryAgain,
    device_name,
)
from app.drivers.facts import HostFacts
from app.drivers.inside import Answer, Command, Heard
from app.drivers.libraries import Brought, Way
from app.drivers.lxd import creation, events, examine, execute, instances, lend, libraries, shapes, tell
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.examine import Examiner
from app.drivers.lxd.images import TemplateSide
from app.drivers.lxd.lifecycle import Lifecycle
from app.drivers.lxd.look import Eye
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.ways_in import WaysIn
from app.drivers.lxd.wire import Wire
from app.drivers.survey import ServerInfo

DETACH_TIMEOUT = 4.0  # to unplug one; a container can make that hang for ever, and what holds the device is to be ended


class PylxdDriver(WaysIn, TemplateSide, Lifecycle):
    """LxdDriver for a socket or an https address, which takes the `lxc` command's client certificate."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(Wire(endpoint))
        self._eye = Eye(self._wire)
        self._examiner = Examiner(endpoint, self._wire)

    def devices_dir(self) -> Path | None:
        """Where LXD keeps the nodes it makes for instances; None while that cannot be looked at from here."""
        with as_driver_errors("Find LXD's device directory"):
            return self._eye.devices_dir()

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with each lifecycle event's action until the connection ends."""
        with as_driver_errors("Listen to LXD's events", HostUnreachable):
            client = self._wire.client_for_events()
        events.listen(client, heard)

    def server(self) -> ServerInfo:
        """Who answers there."""
        with as_driver_errors("Ask LXD who it is", HostUnreachable):
            environment = self._wire.get()["environment"]
            name, version = str(environment["server_name"]), str(environment["server_version"])
            return ServerInfo(name, version, *shapes.cluster_of(environment))

    def gpus(self) -> list[GpuInfo]:
        """The GPUs LXD finds on the host, by PCI address."""
        with as_driver_errors("List the GPUs"):
            cards = self._wire.get("resources")["gpu"]["cards"] or []
            found = (shapes.gpu_info(card) for card in cards)
            return sorted((gpu for gpu in found if gpu), key=lambda gpu: gpu.pci_address)

    def images(self) -> list[ImageInfo]:
        """The container images, once per alias."""
        with as_driver_errors("List the images"):
            found = self._wire.get("images", recursion=1) or []
            return sorted((info for image in found for info in shapes.image_infos(image)), key=lambda info: info.alias)

    def observe(self, names: frozenset[str] | None = None) -> HostSeen:
        """Instances with their GPU devices, and their nodes as the host's kernel shows them."""
        with as_driver_errors("Look at the instances", HostUnreachable):
            if names is not None and len(names) <= 2:  # else one request for all is cheaper
                found = [instance for name in names if (instance := self._wire.find(name)[0])]
            else:
                every = self._wire.instances(recursion=1)
                found = [instance for instance in every if names is None or instance["name"] in names]
            directory = self._eye.devices_dir()
            return HostSeen({instance["name"]: self._eye.look(instance, directory) for instance in found})

    def examine(self) -> HostFacts:
        """Everything a check of the host needs."""
        return self._examiner.examine(self.observe(), self._eye.devices_dir())

    def attach(self, instance: str, gpu: GpuInfo, tag: Tag) -> None:
        """Plug the GPU in, with its tag."""
        what, device = f"Attach GPU {gpu.pci_address} to {instance}", device_name(gpu.pci_address)

        def change(current: Json, body: Json) -> bool:
            if shapes.privileged(current):
                raise GiveUp(what, "the instance is privileged", "Set security.privileged=false and restart it.")
            status = current["status"].lower()
            if status != "running" and device not in current["devices"]:
                raise TryAgain(what, f"the instance is {status}", "Start the instance.")
            return self._plug_over_orphan(current, body, device) or shapes.plug(body, gpu, tag)

        self._update(instance, what, change)

    def detach(self, instance: str, device: str) -> None:
        """Take the device and its tag out; a missing instance has neither."""
        what = f"Detach {device} from {instance}"

        def change(current: Json, body: Json) -> bool:
            if device not in current["devices"] and device in current.get("expanded_devices", {}):
                raise GiveUp(what, "the device comes from a profile", "Remove it from the instance's profiles.")
            return self._plug_over_orphan(current, body, device) or shapes.unplug(body, device)

        self._update(instance, what, change, missing_ok=True, limit=DETACH_TIMEOUT)

    def create(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make the instance and start it."""
        creation.create(self._wire, spec, progress)

    def start(self, instance: str) -> None:
        """Start it; a running one is fine."""
        begun = instances.power(self._wire, instance, "start")
        lend.after_start(self._wire, self._update, instance, begun=begun)

    def stop(self, instance: str, *, force: bool = False) -> None:
        """Stop it cleanly, or at once; a stopped one is fine."""
        instances.power(self._wire, instance, "stop", force=force)

    def restart(self, instance: str) -> None:
        """Stop and start it."""
        instances.restart(self._wire, instance)
        lend.after_start(self._wire, self._update, instance)

    def delete(self, instance: str, owner: str, *, anywhere: bool = False) -> None:
        """Stop and remove it and what a rebuild or a move of it has left, as far as it is this owner's."""
        instances.clear(self._wire, instance, owner)
        instances.delete(self._wire, instance, owner, anywhere=anywhere)

    def bring_libraries(self, wanted: Way | None = None) -> Brought:
        """Have NVIDIA's libraries ready for machines."""
        with as_driver_errors("Bring NVIDIA's libraries"):
            return libraries.bring(
                self._wire.lxd_dir,
                examine.driver_version(self._wire.get("resources")["gpu"].get("cards") or []),
                self._wire.get()["api_extensions"],
                libraries.listed,
                wanted,
            )

    def lend_libraries(self, instance: str) -> bool:
        """Give it what new ones get."""
        with as_driver_errors(f"Give {instance} NVIDIA's libraries"):
            return lend.lend(self._wire, self._update, instance)

    def tell(self, instance: str, title: str, text: str) -> None:
        """Show a message on every terminal and every desktop of the running instance."""
        tell.tell(self._wire, instance, title, text)

    def run(self, instance: str, command: Command, heard: Heard | None = None) -> Answer:
        """Run it as root in the running instance and wait for its end."""
        return execute.run(self._wire, instance, command, heard)

    def _plug_over_orphan(self, current: Json, body: Json, device: str) -> bool:
        """A node that LXD made and forgot (two updates at once, a crash) blocks its name and cannot be detached. A
        harmless device of that name makes LXD take it away, together with what bears the same name."""
        if device in current["devices"] or not self._eye.lingers(current, device):
            return False
        body["devices"][device] = {"type": "unix-char", "source": "/dev/null", "path": "/dev/berth-away"}
        return True
