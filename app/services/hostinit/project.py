"""What LXD itself refuses whoever asks, root and Berth too: a net below what Berth does right by itself."""

from __future__ import annotations

from dataclasses import dataclass

from app.drivers.lxd.shapes import OWNER
from app.drivers.system import System
from app.services.hostinit.asking import ask
from app.services.hostinit.step import Action, Command

# Of the default project, where Berth's machines are. A directory of the host may be anywhere: Berth's agent looks at
# each. Snapshots, backups and choosing a cluster's member are Berth's own work.
RESTRICTED = {
    "restricted": "true",
    "restricted.containers.privilege": "isolated",
    "restricted.containers.nesting": "block",
    "restricted.containers.lowlevel": "block",
    "restricted.containers.interception": "block",
    "restricted.virtual-machines.lowlevel": "block",
    **{f"restricted.devices.{kind}": "block" for kind in (
        "infiniband", "pci", "unix-block", "unix-char", "unix-hotplug", "usb",
    )},
    **{f"restricted.devices.{kind}": "allow" for kind in ("disk", "gpu", "proxy")},
    "restricted.devices.nic": "managed",
    "restricted.snapshots": "allow",
    "restricted.backups": "allow",
    "restricted.cluster.target": "allow",
}  # fmt: skip


@dataclass(frozen=True)
class Project:
    """LXD's default project, restricted where all that is in it is Berth's. What somebody then allows again stays."""

    title: str = "what LXD refuses"

    def look(self, system: System) -> str:
        """Whether it refuses, or others' instances are there that may have to have it."""
        config = (ask(system, "projects/default") or {}).get("config") or {}
        if config.get("restricted") == "true":
            return "privileged and nesting machines, raw settings, and device nodes but those of GPUs"
        every = ask(system, "instances?recursion=1") or []
        others = [str(found["name"]) for found in every if not (found.get("config") or {}).get(OWNER)]
        if others:
            return f"nothing: {others[0]}{' and others' * (len(others) > 1)} of not Berth's making may need it"
        return ""

    def actions(self, _system: System) -> list[Action]:
        """Restrict it."""
        pairs = (f"{key}={value}" for key, value in RESTRICTED.items())
        return [Command(("lxc", "project", "set", "default", *pairs))]
